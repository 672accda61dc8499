# SPDX-License-Identifier: Apache-2.0
"""Tells those who watch the market what becomes true by time alone: an offer that expired, a reading that is too old.

Replicas run one each on the same database. A row that one of them looks at is passed over by the others, and what was
told is written down with it, so that each is told once.
"""

from typing import Final

from qubix_coordinator.clock import Clock
from qubix_coordinator.db.database import Database, Tx, rows
from qubix_coordinator.market import rules, views
from qubix_coordinator.market.tables import Listing
from qubix_protocol.units import OFFER_S

TICK_S: Final = 0.5
BATCH: Final = 200
"""Rows locked at once; more follow in the next transaction."""
_PASSED: Final = (
    "UPDATE listing SET {told} = {came} WHERE id IN (SELECT id FROM listing WHERE online"
    " AND {told} IS DISTINCT FROM {came} AND {came} < $1 ORDER BY {came} LIMIT $2 FOR UPDATE SKIP LOCKED)"
    " RETURNING id"
)
_EXPIRED: Final = _PASSED.format(told="expired_told_ms", came="offered_ms")
_STALE: Final = _PASSED.format(told="stale_told_ms", came="metrics_ms")


class Engine:
    """`await Engine(db, clock).run()` in the app's task group; cancelling it is safe at any moment."""

    def __init__(self, db: Database, clock: Clock, *, offer_s: float = OFFER_S) -> None:
        self._db, self._clock, self._offer_s = db, clock, offer_s

    async def run(self) -> None:
        await self._db.every(TICK_S, self.tick)

    async def tick(self) -> int:
        """One round of everything; gives how many listings were told of. Tests call it with a clock of their own."""
        now_ms = round(self._clock.now().timestamp() * 1000)
        since_ms = rules.visible_since_ms(now_ms, self._offer_s)
        told = await self._all(_EXPIRED, since_ms, now_ms)
        return told + await self._all(_STALE, rules.marked_before_ms(now_ms), now_ms)

    async def _all(self, sql: str, before_ms: int, now_ms: int) -> int:
        told = 0
        while True:
            found = await self._db.run(lambda tx: _tell(tx, sql, before_ms, now_ms))
            told += found
            if found < BATCH:
                return told


async def _tell(tx: Tx, sql: str, before_ms: int, now_ms: int) -> int:
    keys = [row["id"] for row in await rows(tx, sql, before_ms, BATCH)]
    if keys:
        for row in await Listing.filter(id__in=keys).using_db(tx).order_by("id"):
            await views.emit(tx, row, now_ms)
    return len(keys)
