# SPDX-License-Identifier: Apache-2.0
"""What falls due for attempts and jobs by themselves, each with its default outcome (trust.md M5).

The engine fires these as their time comes; `settle_due` does it for whoever asks about one job.
"""

from uuid import UUID

from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import NotFound
from qubix_coordinator.jobs import accept, flow, rules, settle
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.rules import AttemptEvent, JobEvent
from qubix_coordinator.jobs.tables import Attempt, Job, Verdict
from qubix_protocol.states import AttemptState, JobState

NOBODY_WORKS = (JobState.DELIVERED.value, JobState.DISPUTED.value)


async def due_attempts(tx: Tx, now_ms: int, limit: int) -> list[UUID]:
    found = Attempt.filter(state__in=flow.OPEN_STATES, due_ms__lte=now_ms).using_db(tx)
    return [row.id for row in await found.order_by("due_ms").limit(limit).only("id")]


async def expired_jobs(tx: Tx, now_ms: int, limit: int) -> list[UUID]:
    found = Job.filter(ended_ms__isnull=True, closing__isnull=True, deadline_ms__lte=now_ms)
    found = found.exclude(state__in=NOBODY_WORKS).using_db(tx)
    return [row.id for row in await found.order_by("deadline_ms").limit(limit).only("id")]


async def ended_windows(tx: Tx, now_ms: int, limit: int) -> list[UUID]:
    found = Job.filter(due_ms__lte=now_ms).using_db(tx)
    return [row.id for row in await found.order_by("due_ms").limit(limit).only("id")]


async def fire_attempt(desk: Desk, tx: Tx, attempt_id: UUID) -> None:
    job, attempt = await flow.lock_attempt(tx, attempt_id)
    state, now_ms = AttemptState(attempt.state), desk.now_ms()
    if attempt.due_ms is None or attempt.due_ms > now_ms:
        return
    if state is AttemptState.VERIFYING:
        await settle.give_up_check(desk, tx, job, attempt)
        return
    reason = rules.due_reason(state, limit_ms=attempt.limit_ms, now_ms=now_ms, leaving=attempt.leaving)
    await flow.end_attempt(desk, tx, job, attempt, AttemptEvent.DUE, reason)
    await flow.tell(tx, attempt.peer_id, flow.cancel_of(attempt, reason))


async def expire(desk: Desk, tx: Tx, job_id: UUID) -> None:
    job = await flow.lock_job(tx, job_id)
    if job.deadline_ms <= desk.now_ms() and job.closing is None:
        await flow.step_job(desk, tx, job, JobEvent.EXPIRE)


async def end_window(desk: Desk, tx: Tx, job_id: UUID) -> None:
    job = await flow.lock_job(tx, job_id)
    if job.due_ms is not None and job.due_ms <= desk.now_ms():
        await accept.close(desk, tx, job, JobEvent.WINDOW_ENDED)


async def settle_due(desk: Desk, job_id: UUID) -> int | None:
    """Does for this job what is due now. When the next thing falls due; None when the job is over.

    Anybody may ask: it does only what would happen anyhow. Raises NotFound.
    """

    async def attempts(tx: Tx) -> list[UUID]:
        if not await Job.filter(id=job_id).using_db(tx).exists():
            raise NotFound("there is no such job", field="job_id", remedy="Check the id")
        found = Attempt.filter(job_id=job_id, state__in=flow.OPEN_STATES).using_db(tx)
        return [row.id for row in await found.order_by("fence").only("id")]

    for attempt_id in await desk.db.run(attempts):
        await desk.db.run(lambda tx, key=attempt_id: _checked_or_due(desk, tx, key))  # type: ignore[misc]
    await desk.db.run(lambda tx: expire(desk, tx, job_id))
    await desk.db.run(lambda tx: end_window(desk, tx, job_id))
    return await desk.db.run(lambda tx: next_due_ms(tx, job_id))


async def _checked_or_due(desk: Desk, tx: Tx, attempt_id: UUID) -> None:
    if await Verdict.filter(attempt_id=attempt_id, applied=False).using_db(tx).exists():
        await settle.apply_verdict(desk, tx, attempt_id)
    else:
        await fire_attempt(desk, tx, attempt_id)


async def next_due_ms(tx: Tx, job_id: UUID) -> int | None:
    """Of the job and its attempts; of a disputed job, see its disputes."""
    job = await Job.filter(id=job_id).using_db(tx).get()
    if job.ended_ms is not None or job.state == JobState.DISPUTED.value:
        return None
    if job.due_ms is not None:
        window: int = job.due_ms
        return window
    found = Attempt.filter(job_id=job_id, state__in=flow.OPEN_STATES).using_db(tx)
    first: int = min([job.deadline_ms, *[row.due_ms for row in await found.only("due_ms")]])
    return first
