# SPDX-License-Identifier: Apache-2.0
"""From what nodes say to batches: gathered for a moment, written in one COPY, then told to the market.

Telemetry's overflow policy: whoever says something never waits, at most `WAITING_MAX` samples do, and of more than that
the newest are kept. While the database is away they wait; nothing of a node's other statements waits with them.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import Final, TypeVar

import asyncpg

from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.telemetry import rules, service
from qubix_coordinator.telemetry.rules import Said
from qubix_protocol.messages import Telemetry

T = TypeVar("T")
log = logging.getLogger(__name__)
GATHER_S: Final = 0.2
BATCH_MAX: Final = 5_000
WAITING_MAX: Final = 50_000
NUMBERS_MAX: Final = 200_000

Told = Callable[[Mapping[tuple[str, str], Said]], Awaitable[None]]
"""Gets the newest sample of each device of each node, by peer and device id."""


class Fate(StrEnum):
    KEPT = "kept"
    TWICE = "twice"
    UNLISTED = "unlisted"
    """Of a device that its node does not have in the market."""
    IMPLAUSIBLE = "implausible"
    """From the future, too late, or no number."""
    OVERFLOWN = "overflown"
    REFUSED = "refused"
    """By the database."""


class Ingest:
    """`await Ingest(…).run()` in the app's task group; `count` is told what became of how many samples."""

    def __init__(
        self,
        db: Database,
        told: Told,
        count: Callable[[Fate, int], None],
        *,
        waiting_max: int = WAITING_MAX,
        gather_s: float = GATHER_S,
    ) -> None:
        self._db, self._told, self._count, self._gather_s = db, told, count, gather_s
        self._waiting: deque[Said] = deque(maxlen=waiting_max)
        self._some = asyncio.Event()
        self._known = service.Known({}, set())

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def offer(self, peer_id: str, message: Telemetry, now_ms: int) -> None:
        """Never waits."""
        good = rules.plausible(message.samples, now_ms)
        self._tell(Fate.IMPLAUSIBLE, len(message.samples) - len(good))
        assert self._waiting.maxlen is not None
        self._tell(Fate.OVERFLOWN, max(0, len(self._waiting) + len(good) - self._waiting.maxlen))
        self._waiting.extend([Said(peer_id, now_ms, one.device_id, one.sample) for one in good])
        if self._waiting:
            self._some.set()

    async def run(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(self._gather_s)
            await self.flush()

    async def flush(self) -> None:
        """Writes all that waits; returns when it is in the database, however long that is away."""
        self._some.clear()
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
            newest = await self._write(batch)
            if newest:
                await self._through_outages(partial(self._told, newest))

    async def _through_outages(self, step: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await step()
            except Unavailable:
                await self._db.until_back()

    async def _write(self, batch: list[Said]) -> dict[tuple[str, str], Said]:
        """The newest of each device in the market. What the database refuses costs its own node's samples, and nobody
        else's."""
        try:
            kept = await self._through_outages(partial(self._keep, batch))
        except Exception:  # whatever is wrong with one node's words, the others' are kept
            peers = sorted({one.peer_id for one in batch})
            if len(peers) > 1:
                newest: dict[tuple[str, str], Said] = {}
                for peer_id in peers:
                    newest |= await self._write([one for one in batch if one.peer_id == peer_id])
                return newest
            log.exception("telemetry.refused", extra={"peer": peers[0]})
            self._tell(Fate.REFUSED, len(batch))
            return {}
        self._tell(Fate.UNLISTED, len(batch) - kept.heard)
        self._tell(Fate.TWICE, kept.heard - kept.kept)
        self._tell(Fate.KEPT, kept.kept)
        return kept.newest

    async def _keep(self, batch: list[Said]) -> service.Kept:
        try:
            kept = await self._db.run(lambda tx: service.keep(tx, self._known, batch))
        except asyncpg.UniqueViolationError:
            kept = await self._db.run(lambda tx: service.keep(tx, self._known, batch, again=True))
        if len(self._known.numbers) > NUMBERS_MAX:
            self._known.numbers.clear()
        self._known.numbers.update(kept.known.numbers)
        # No more than those of the newest batch: days are dropped one day.
        self._known = service.Known(self._known.numbers, kept.known.days)
        return kept

    def _tell(self, fate: Fate, times: int) -> None:
        if times:
            self._count(fate, times)
