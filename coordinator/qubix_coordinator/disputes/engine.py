# SPDX-License-Identifier: Apache-2.0
"""The task that moves disputes on: second looks, and deadlines with their default outcomes (trust.md M5).

Replicas run one each on the same database; every step is one transaction that looks again under the locks.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from qubix_coordinator.db.database import Tx, rows
from qubix_coordinator.disputes import flow, look
from qubix_coordinator.disputes.rules import Event
from qubix_coordinator.disputes.tables import Dispute
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.jobs.desk import Desk
from qubix_protocol.disputes import DisputeState

log = logging.getLogger(__name__)
TICK_S: Final = 0.5
BATCH: Final = 64


class Engine:
    """`await Engine(desk).run()` in the app's task group; cancelling it is safe at any moment."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def run(self) -> None:
        await self._desk.db.every(TICK_S, self.tick)

    async def tick(self) -> None:
        """One round of everything; tests call it directly with a clock of their own."""
        desk = self._desk
        for key in await desk.db.run(lambda tx: due(tx, desk.now_ms())):
            await self._each("due", key, lambda tx, key: fire(desk, tx, key))
        for key in await desk.db.run(lambda tx: to_look_at(tx, desk.now_ms())):
            await self._each("look", key, lambda tx, key: look.advance(desk, tx, key))

    async def _each(self, what: str, key: UUID, step: Callable[[Tx, UUID], Awaitable[None]]) -> None:
        """One that cannot be moved is logged and must not stop the others; the database being away does."""
        try:
            await self._desk.db.run(lambda tx: step(tx, key))
        except Unavailable:
            raise
        except Exception:  # whatever is wrong with one row, the others go on
            log.exception("dispute.step_failed", extra={"step": what, "dispute": str(key)})


async def due(tx: Tx, now_ms: int) -> list[UUID]:
    found = Dispute.filter(due_ms__lte=now_ms).using_db(tx)
    return [row.id for row in await found.order_by("due_ms").limit(BATCH).only("id")]


async def to_look_at(tx: Tx, now_ms: int) -> list[UUID]:
    found = await rows(
        tx,
        "SELECT id FROM dispute WHERE (state = 'rerunning' OR NOT rerun_settled) AND look_ms <= $1"
        " ORDER BY look_ms LIMIT $2",
        now_ms,
        BATCH,
    )
    return [UUID(str(row["id"])) for row in found]


async def fire(desk: Desk, tx: Tx, dispute_id: UUID) -> None:
    job, dispute = await flow.lock(tx, dispute_id)
    if dispute.due_ms is not None and dispute.due_ms <= desk.now_ms():
        await flow.step(desk, tx, job, dispute, Event.DUE)


async def settle_due(desk: Desk, job_id: UUID) -> int | None:
    """Does for a job's disputes what is due now; when the next thing falls due, None when no dispute is open."""

    async def open_ones(tx: Tx) -> list[Dispute]:
        found = Dispute.filter(job_id=job_id).exclude(state=DisputeState.RESOLVED.value).using_db(tx)
        return await found.order_by("no")

    for dispute in await desk.db.run(open_ones):
        await desk.db.run(lambda tx, key=dispute.id: fire(desk, tx, key))  # type: ignore[misc]
    left = [one.due_ms for one in await desk.db.run(open_ones) if one.due_ms is not None]
    return min(left, default=None)
