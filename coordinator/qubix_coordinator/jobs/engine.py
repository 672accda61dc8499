# SPDX-License-Identifier: Apache-2.0
"""The task that moves jobs on: assigns the queued, fires what is due, settles what is checked.

Replicas run one each on the same database: rows in somebody else's hands are skipped, and every step is one transaction
that looks again under the job's lock. Everything is bounded per tick; what is left waits for the next.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from qubix_coordinator.db.database import Tx, execute, value
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.jobs import assign, due, flow, relieve, rules, settle
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.tables import Attempt
from qubix_coordinator.market import rules as market_rules
from qubix_coordinator.market import service as market
from qubix_coordinator.market.learned import Fits
from qubix_protocol import barriers
from qubix_protocol.barriers import Barrier
from qubix_protocol.states import AttemptState

log = logging.getLogger(__name__)
TICK_S: Final = 0.5
CHECKING_S: Final = 0.03
"""Between looks at the verdicts while a check is under way."""
BATCH: Final = 64
SETTLING: Final = 4
"""Verdicts applied side by side: while one waits for the disk, the others go on. Each holds a database connection."""
EXPLAIN_BATCH: Final = 8


class Engine:
    """`await Engine(desk).run()` in the app's task group; cancelling it is safe at any moment."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._next_full_s = 0.0

    async def run(self) -> None:
        while True:
            woken = self._desk.wake.is_set()
            self._desk.wake.clear()
            now_s = asyncio.get_running_loop().time()
            try:
                if woken or now_s >= self._next_full_s:
                    self._next_full_s = now_s + TICK_S
                    await self.tick()
                checking = await self._settle_checked()
            except Unavailable:
                await self._desk.db.until_back()
                checking = False
            await self._pause(CHECKING_S if checking else TICK_S)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._desk.wake.wait()
        except TimeoutError:
            return

    async def tick(self) -> None:
        """One round of everything; tests call it directly with a clock of their own."""
        await self._pause_leases()
        await self._settle_checked()
        await self._fire_due()
        await self._resend()
        await self._assign()
        await self._assign_on_rentals()
        await self._relieve()

    async def _settle_checked(self) -> bool:
        """Applies new verdicts, some at once, as replicas would; whether more are to be expected soon."""
        desk = self._desk
        new = iter(await desk.db.run(lambda tx: settle.new_verdicts(tx, BATCH)))

        async def in_turn() -> None:
            for attempt_id in new:
                await self._each("verdict", attempt_id, lambda tx, key: settle.apply_verdict(desk, tx, key))
                await barriers.reach(Barrier.SETTLED)

        # Nobody is left running behind: a failure is raised once all have ended, a cancellation reaches all.
        for failure in await asyncio.gather(*(in_turn() for _ in range(SETTLING)), return_exceptions=True):
            if failure is not None:
                raise failure
        return await desk.db.run(_anything_checking)

    async def _fire_due(self) -> None:
        desk, now_ms = self._desk, self._desk.now_ms()
        for attempt_id in await desk.db.run(lambda tx: due.due_attempts(tx, now_ms, BATCH)):
            await self._each("due", attempt_id, lambda tx, key: due.fire_attempt(desk, tx, key))
        for job_id in await desk.db.run(lambda tx: due.expired_jobs(tx, now_ms, BATCH)):
            await self._each("expire", job_id, lambda tx, key: due.expire(desk, tx, key))
        for job_id in await desk.db.run(lambda tx: due.ended_windows(tx, now_ms, BATCH)):
            await self._each("window", job_id, lambda tx, key: due.end_window(desk, tx, key))

    async def _resend(self) -> None:
        """Assignments that nobody has answered yet; the fence makes a second one harmless."""
        now_ms = self._desk.now_ms()

        async def unanswered(tx: Tx) -> list[UUID]:
            found = Attempt.filter(state=AttemptState.OFFERED.value, sent_ms__lte=now_ms - rules.RESEND_MS).using_db(tx)
            return [row.id for row in await found.order_by("sent_ms").limit(BATCH).only("id")]

        async def again(tx: Tx, attempt_id: UUID) -> None:
            job, attempt = await flow.lock_attempt(tx, attempt_id)
            if attempt.state == AttemptState.OFFERED.value and attempt.sent_ms <= now_ms - rules.RESEND_MS:
                attempt.sent_ms = now_ms
                await attempt.save(using_db=tx, update_fields=["sent_ms"])
                await flow.tell(tx, attempt.peer_id, await assign.assign_message(tx, job, attempt))

        for attempt_id in await self._desk.db.run(unanswered):
            await self._each("resend", attempt_id, again)

    async def _assign(self) -> None:
        """In the order in which jobs came, as long as somebody is free; one that nobody fits holds up no other."""
        desk, now_ms = self._desk, self._desk.now_ms()
        waiting = await desk.db.run(lambda tx: assign.waiting_jobs(tx, now_ms, BATCH))
        if not waiting:
            return
        offers = await desk.db.run(lambda tx: market.candidates(tx, now_ms=now_ms))
        running = await desk.db.run(assign.running_counts)
        fits: Fits = {}

        async def one(tx: Tx, job_id: UUID) -> None:
            for taken in await assign.try_assign(desk, tx, job_id, offers, fits):
                running[taken] = running.get(taken, 0) + 1

        for job_id in waiting:
            if not market_rules.places_free(offers, running, now_ms):
                break
            await self._each("assign", job_id, one)
        for job_id in await desk.db.run(lambda tx: assign.unexplained_jobs(tx, now_ms, EXPLAIN_BATCH)):
            await self._each("explain", job_id, one)

    async def _assign_on_rentals(self) -> None:
        """Each rental's next job, on its device, whatever the market is doing."""
        desk, now_ms = self._desk, self._desk.now_ms()
        fits: Fits = {}

        async def one(tx: Tx, job_id: UUID) -> None:
            await assign.try_assign(desk, tx, job_id, (), fits)

        for job_id in await desk.db.run(lambda tx: assign.waiting_on_rentals(tx, now_ms, BATCH)):
            await self._each("assign_on_rental", job_id, one)

    async def _relieve(self) -> None:
        """Stragglers, as long as somebody is free whom no waiting job needs."""
        desk, now_ms = self._desk, self._desk.now_ms()
        slow = await desk.db.run(lambda tx: relieve.suspects(tx, BATCH))
        waiting = await desk.db.run(lambda tx: assign.waiting_jobs(tx, now_ms, 1)) if slow else []
        if not slow or waiting:
            return
        offers = await desk.db.run(lambda tx: market.candidates(tx, now_ms=now_ms))
        running = await desk.db.run(assign.running_counts)
        fits: Fits = {}

        async def one(tx: Tx, attempt_id: UUID) -> None:
            taken = await relieve.try_relieve(desk, tx, attempt_id, offers, running, fits)
            if taken is not None:
                running[taken] = running.get(taken, 0) + 1

        for attempt_id in slow:
            if not market_rules.places_free(offers, running, now_ms):
                break
            await self._each("relieve", attempt_id, one)

    async def _pause_leases(self) -> None:
        """Leases do not run while no coordinator does: after an outage each live attempt gets a whole lease again."""
        desk, now_ms = self._desk, self._desk.now_ms()

        async def step(tx: Tx) -> int:
            ticked_ms = await value(tx, "SELECT ticked_ms FROM engine_clock FOR UPDATE")
            await execute(tx, "UPDATE engine_clock SET ticked_ms = GREATEST(ticked_ms, $1)", now_ms)
            gap_ms = rules.paused(ticked_ms, now_ms)
            if gap_ms:
                await _extend(tx, gap_ms, now_ms, round(desk.settings.lease_s * 1000))
            return gap_ms

        gap_ms = await desk.db.run(step)
        if gap_ms:
            log.warning("engine.was_away", extra={"gap_ms": gap_ms})

    async def _each(self, what: str, key: UUID, step: Callable[[Tx, UUID], Awaitable[None]]) -> None:
        """One row that cannot be moved is logged and must not stop everybody's jobs; the database being away does."""
        try:
            await self._desk.db.run(lambda tx: step(tx, key))
        except Unavailable:
            raise
        except Exception:  # whatever is wrong with one row, the others go on
            log.exception("engine.step_failed", extra={"step": what, "key": str(key)})


async def _anything_checking(tx: Tx) -> bool:
    return await Attempt.filter(state=AttemptState.VERIFYING.value).using_db(tx).exists()


async def _extend(tx: Tx, gap_ms: int, now_ms: int, lease_ms: int) -> None:
    await execute(
        tx,
        "UPDATE attempt SET limit_ms = limit_ms + $1, heard_ms = GREATEST(heard_ms + $1, $2),"
        " due_ms = CASE WHEN state = 'running' THEN LEAST(GREATEST(heard_ms + $1, $2) + $3, limit_ms + $1)"
        " ELSE due_ms + $1 END WHERE state IN ('offered', 'running', 'verifying')",
        gap_ms,
        now_ms,
        lease_ms,
    )
