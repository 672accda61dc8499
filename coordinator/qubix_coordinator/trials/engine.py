# SPDX-License-Identifier: Apache-2.0
"""The task that begins trials unannounced, ends those that are overdue, and judges what came.

Replicas run one each on the same database: rows in somebody else's hands are skipped. Pages are made anew in a thread,
outside any transaction, one trial at a time: what that costs is bounded by `rules.SAMPLES`.
"""

import asyncio
import dataclasses
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final
from uuid import UUID, uuid4

import msgspec

from qubix_coordinator.db.database import Row, Tx, execute, one, rows, value
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.jobs import flow as jobs
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.market import rules as market_rules
from qubix_coordinator.market.tables import Listing
from qubix_coordinator.trials import flow, rules, standing
from qubix_coordinator.trials import parts as stored
from qubix_coordinator.trials.rules import Aims, Claim, Part, State
from qubix_kernels.trial import rules as pages
from qubix_protocol.messages import KernelRate
from qubix_protocol.states import Availability, DeviceKind
from qubix_protocol.trials import TrialAsk, TrialPart
from qubix_protocol.units import OFFER_S

log = logging.getLogger(__name__)
TICK_S: Final = 0.5
AT_ONCE_MAX: Final = 16
"""Trials under way at a time, whoever runs them."""
BATCH: Final = 8
AGAIN_MS: Final = 60_000
"""After a time at which the node was busy."""
STALE_EVERY_S: Final = 60.0


class Engine:
    """`await Engine(desk).run()` in the app's task group; cancelling it is safe at any moment."""

    def __init__(self, desk: Desk, steady_s: Callable[[], float] = time.monotonic) -> None:
        self._desk, self._steady_s = desk, steady_s
        self._looked_s = float("-inf")
        self._attends_ms = 0
        """Since when, without a pause that nodes are given no time for."""
        self._chance = secrets.SystemRandom()
        self.wake = asyncio.Event()
        self._next_stale_s = 0.0
        self._swept_ms = 0
        self._resting: dict[UUID | str, int] = {}
        """Trials and nodes with which something went wrong here, and until when nobody waits for them."""

    async def run(self) -> None:
        while True:
            self.wake.clear()
            try:
                await self.tick()
                if self._steady_s() >= self._next_stale_s:
                    self._next_stale_s = self._steady_s() + STALE_EVERY_S
                    await self._forget_the_old()
            except Unavailable:
                await self._desk.db.until_back()
            except Exception:  # a round that fails must not be the last
                log.exception("trials.step_failed")
            try:
                async with asyncio.timeout(TICK_S):
                    await self.wake.wait()
            except TimeoutError:
                continue

    async def tick(self) -> None:
        """One round of everything; tests call it directly with a clock of their own."""
        if self._steady_s() - self._looked_s > rules.GRACE_MS / 1000:
            self._attends_ms = self._desk.now_ms()
        await self._end_overdue()
        await self._judge()
        if self._desk.settings.trial_every_s > 0:
            await self._begin_due()
        self._looked_s = self._steady_s()

    async def _alone(self, key: UUID | str, step: Awaitable[object]) -> None:
        """What fails with one trial or node is nobody else's: that one rests for a while."""
        try:
            await step
        except Unavailable:
            raise
        except Exception:
            log.exception("trials.step_failed", extra={"about": str(key)})
            self._resting[key] = self._desk.now_ms() + AGAIN_MS

    def _rested(self, kind: type[UUID] | type[str]) -> list[UUID | str]:
        """Those that still rest."""
        now_ms = self._desk.now_ms()
        self._resting = {key: until_ms for key, until_ms in self._resting.items() if until_ms > now_ms}
        return [key for key in self._resting if isinstance(key, kind)]

    # Ends -----------------------------------------------------------------------------------------------------------

    async def _end_overdue(self) -> None:
        desk = self._desk

        late = await desk.db.fetch(
            "SELECT id FROM trial WHERE ended_ms IS NULL AND due_ms <= $1 AND id <> ALL ($2::uuid[])"
            " ORDER BY due_ms LIMIT $3",
            desk.now_ms(),
            self._rested(UUID),
            BATCH,
        )
        for trial in late:
            await self._alone(trial["id"], desk.db.run(partial(self._end_one, trial["id"])))

    async def _end_one(self, trial_id: UUID, tx: Tx) -> None:
        late = await one(
            tx,
            "SELECT * FROM trial WHERE id = $1 AND ended_ms IS NULL AND due_ms <= $2 FOR UPDATE SKIP LOCKED",
            trial_id,
            self._desk.now_ms(),
        )
        if late is not None:
            attended = late["asked_ms"] >= self._attends_ms
            verdict = rules.overdue(await stored.of(tx, late["id"]), State(late["state"]), attended=attended)
            await flow.end(self._desk, tx, late, verdict)

    async def _judge(self) -> None:
        desk = self._desk
        waiting = await desk.db.fetch(
            "SELECT * FROM trial WHERE state = 'judging' AND id <> ALL ($1::uuid[]) ORDER BY due_ms LIMIT $2",
            self._rested(UUID),
            BATCH,
        )
        for trial in waiting:
            await self._alone(trial["id"], self._judge_one(trial))

    async def _judge_one(self, trial: Row) -> None:
        desk = self._desk
        parts = await desk.db.run(lambda tx: stored.of(tx, trial["id"]))
        answers = await desk.db.run(lambda tx: stored.digests_of(tx, trial["id"]))
        judged = [
            await asyncio.to_thread(self._looked_at, trial, part, answers[part.claim.device_id]) for part in parts
        ]

        async def step(tx: Tx) -> None:
            again = await stored.lock(tx, trial["id"])
            if again is not None and again["state"] == State.JUDGING:
                await flow.end(desk, tx, again, rules.judge(judged, flow.slack_ms(desk)))

        await desk.db.run(step)

    def _looked_at(self, trial: Row, part: Part, answer: bytes) -> Part:
        """Some pages, chosen now, made anew. Takes a while: call it in a thread."""
        shape = part.shape
        found = pages.read_digests(answer) if len(answer) == 4 * shape.pages else None
        chosen = self._chance.sample(range(shape.pages), min(rules.SAMPLES, shape.pages))
        right = found is not None and [int(found[page]) for page in chosen] == pages.expected(
            shape, bytes(trial["seed"]), bytes(trial["key"]), part.claim.device_id, chosen
        )
        return dataclasses.replace(part, right=right)

    # Beginnings -----------------------------------------------------------------------------------------------------

    async def _begin_due(self) -> None:
        desk = self._desk

        planned = await desk.db.fetch(
            "SELECT peer_id FROM trial_plan WHERE next_ms <= $1 AND peer_id <> ALL ($2::text[])"
            " ORDER BY next_ms LIMIT $3",
            desk.now_ms(),
            self._rested(str),
            BATCH,
        )
        for node in planned:
            await self._alone(node["peer_id"], desk.db.run(partial(self._begin_one, node["peer_id"])))

    async def _begin_one(self, peer_id: str, tx: Tx) -> None:
        if await value(tx, "SELECT count(*) FROM trial WHERE ended_ms IS NULL") >= AT_ONCE_MAX:
            return
        planned = await one(
            tx,
            "SELECT peer_id FROM trial_plan WHERE peer_id = $1 AND next_ms <= $2 FOR UPDATE SKIP LOCKED",
            peer_id,
            self._desk.now_ms(),
        )
        if planned is not None:
            begun = await self.begin(tx, peer_id)
            await self._plan(tx, peer_id, begun=begun)

    async def _plan(self, tx: Tx, peer_id: str, *, begun: bool) -> None:
        every_ms = round(self._desk.settings.trial_every_s * 1000)
        pause_ms = every_ms if begun else min(every_ms, AGAIN_MS)
        at_ms = rules.next_ms(self._desk.now_ms(), pause_ms, self._chance.random())
        await execute(tx, "UPDATE trial_plan SET next_ms = $2 WHERE peer_id = $1", peer_id, at_ms)

    async def begin(self, tx: Tx, peer_id: str) -> bool:
        """A trial of all that the node offers; False while any of it is in use, or nothing is there."""
        now_ms = self._desk.now_ms()
        if await value(tx, "SELECT true FROM trial WHERE peer_id = $1 AND ended_ms IS NULL", peer_id):
            return False
        listings = await _offered(tx, peer_id, now_ms)
        if not listings or await _in_use(tx, peer_id, listings):
            return False
        parts = _parts(listings, self._aims())
        if not parts:
            return False
        trial_id = uuid4()
        await execute(
            tx,
            "INSERT INTO trial (id, peer_id, state, asked_ms, due_ms) VALUES ($1, $2, 'asked', $3, $4)",
            trial_id,
            peer_id,
            now_ms,
            now_ms + rules.PREPARE_MS,
        )
        await stored.add(tx, trial_id, parts)
        await jobs.tell(tx, peer_id, _ask(trial_id, parts))
        log.info("trial.began", extra={"peer": peer_id, "devices": len(parts)})
        return True

    def _aims(self) -> Aims:
        settings = self._desk.settings
        return Aims(
            fill_s=settings.trial_fill_s, slack_ms=flow.slack_ms(self._desk), cpu_bytes_max=settings.trial_cpu_bytes
        )

    # Age ------------------------------------------------------------------------------------------------------------

    async def _forget_the_old(self) -> None:
        """Listings whose evidence has become too old are verified no more; what jobs showed meanwhile counts."""
        desk, since_ms = self._desk, self._swept_ms
        now_ms = self._swept_ms = desk.now_ms()
        oldest_ms = now_ms - round(desk.settings.trial_age_s * 1000)
        found = await desk.db.run(lambda tx: rows(tx, _TO_LOOK_AT_AGAIN, since_ms, oldest_ms))
        for row in found:
            await self._alone(row["peer_id"], desk.db.run(partial(self._refresh, row["peer_id"])))

    async def _refresh(self, peer_id: str, tx: Tx) -> None:
        await standing.refresh(self._desk, tx, peer_id)


_TO_LOOK_AT_AGAIN: Final = (
    "SELECT DISTINCT l.peer_id FROM listing l WHERE l.verified AND ("
    " EXISTS (SELECT FROM listing_observed o WHERE o.listing_id = l.id AND o.at_ms >= $1)"
    " OR NOT EXISTS (SELECT FROM self_test s WHERE s.peer_id = l.peer_id AND s.device_id = l.device_id AND s.whole"
    " AND s.heard_ms >= $2)"
    " OR NOT EXISTS (SELECT FROM trial_part p JOIN trial t ON t.id = p.trial_id WHERE p.listing_id = l.id"
    " AND t.state = 'passed' AND t.ended_ms >= $2))"
)


async def plan_first(desk: Desk, tx: Tx, peer_id: str) -> None:
    """A node that passed its self-test is tried before long; one that is planned for already, no sooner for it, unless
    something of it is not verified. A browser tab is never tried: it has no way to fill a card's memory."""
    soon_ms = rules.next_ms(desk.now_ms(), round(desk.settings.trial_first_s * 1000), secrets.SystemRandom().random())
    await execute(
        tx,
        "INSERT INTO trial_plan AS p (peer_id, next_ms) SELECT $1::text, $2::bigint"
        " WHERE NOT EXISTS (SELECT FROM listing l WHERE l.peer_id = $1 AND l.browser)"
        " ON CONFLICT (peer_id) DO UPDATE SET next_ms = LEAST(p.next_ms, excluded.next_ms)"
        " WHERE EXISTS (SELECT FROM listing l WHERE l.peer_id = p.peer_id"
        " AND l.online AND NOT l.verified) AND NOT EXISTS (SELECT FROM trial t WHERE t.peer_id = p.peer_id"
        " AND t.asked_ms > $3)",
        peer_id,
        soon_ms,
        desk.now_ms() - FAILED_PAUSE_MS,
    )


FAILED_PAUSE_MS: Final = 10 * 60_000
"""However often a node asks to be believed, it is tried no more often than this beside its usual times."""


async def _offered(tx: Tx, peer_id: str, now_ms: int) -> list[Listing]:
    since_ms = market_rules.visible_since_ms(now_ms, OFFER_S)
    found = Listing.filter(peer_id=peer_id, online=True, browser=False, offered_ms__gte=since_ms)
    return await found.exclude(availability=Availability.OFFLINE.value).using_db(tx).order_by("id")


async def _in_use(tx: Tx, peer_id: str, listings: Sequence[Listing]) -> bool:
    """By a renter, a job, or because its owner wants it back: a trial never runs beside paid work."""
    if any(one.rental_id is not None or one.availability != Availability.AVAILABLE.value for one in listings):
        return True
    live = await value(
        tx, "SELECT true FROM attempt WHERE peer_id = $1 AND state IN ('offered', 'running') LIMIT 1", peer_id
    )
    return bool(live)


def _parts(listings: Sequence[Listing], aims: Aims) -> list[Part]:
    parts = []
    for listing in listings:
        rate = rules.matmul_rate(msgspec.convert(listing.rates, tuple[KernelRate, ...]), listing.backends)
        if rate is None:
            continue
        claim = Claim(
            listing_id=listing.id,
            device_id=listing.device_id,
            kind=DeviceKind(listing.kind),
            model=listing.model,
            driver=listing.driver,
            memory_bytes=listing.memory_bytes,
            backend=rate[0],
            flops=rate[1],
        )
        shape = rules.shape(claim, aims)
        if shape is not None:
            parts.append(Part(claim, shape))
    return parts


def _ask(trial_id: UUID, parts: Sequence[Part]) -> TrialAsk:
    return TrialAsk(
        trial_id=str(trial_id),
        parts=tuple(
            TrialPart(device_id=part.claim.device_id, backend=part.claim.backend, shape=part.shape) for part in parts
        ),
    )
