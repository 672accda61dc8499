# SPDX-License-Identifier: Apache-2.0
"""Loads rows under the job's lock and applies the decisions of `rules`: the only module that moves states.

Locks are always taken in the order job, attempt, listing (trust.md M4: decisions happen under the job's row lock).
"""

import logging
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import msgspec

from qubix_coordinator.artifacts import service as artifacts
from qubix_coordinator.db.database import Tx, value
from qubix_coordinator.errors import Forbidden, NotFound, StaleAttempt
from qubix_coordinator.jobs import money, outcomes, receipt, rules, views
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.rules import AttemptEvent, JobEvent, Verb
from qubix_coordinator.jobs.tables import Attempt, ChainLink, Job
from qubix_coordinator.market import service as market
from qubix_coordinator.market.reputation import What
from qubix_coordinator.outbox import events
from qubix_protocol.messages import Cancel, Message
from qubix_protocol.states import FINAL_JOB_STATES, AttemptState, JobState, Reason

log = logging.getLogger(__name__)
OPEN_STATES = (AttemptState.OFFERED.value, AttemptState.RUNNING.value, AttemptState.VERIFYING.value)
DETAIL_MAX = 2_000


async def lock_job(tx: Tx, job_id: UUID) -> Job:
    job = await Job.filter(id=job_id).using_db(tx).select_for_update().first()
    if job is None:
        raise NotFound("there is no such job", field="job_id", remedy="List your jobs with GET /jobs")
    return job


async def lock_attempt(tx: Tx, attempt_id: UUID) -> tuple[Job, Attempt]:
    job_id = await value(tx, "SELECT job_id FROM attempt WHERE id = $1", attempt_id)
    if job_id is None:
        raise NotFound("there is no such attempt", field="attempt_id", remedy="Stop working on it")
    job = await lock_job(tx, job_id)
    return job, await Attempt.filter(id=attempt_id).using_db(tx).select_for_update().get()


async def lock_own_attempt(tx: Tx, peer_id: str, attempt_id: str, fence: int) -> tuple[Job, Attempt]:
    """The attempt a node speaks of. Raises NotFound, Forbidden (another's) or StaleAttempt (another fence)."""
    job, attempt = await lock_attempt(tx, UUID(attempt_id))
    if attempt.peer_id != peer_id:
        raise Forbidden("the attempt is another provider's", field="attempt_id", remedy="Speak of your own attempts")
    if attempt.fence != fence:
        raise stale(attempt)
    return job, attempt


def stale(attempt: Attempt) -> StaleAttempt:
    return StaleAttempt(
        f"the attempt is over ({attempt.state}) or superseded; what it sends now is kept and not paid",
        field="fence",
        remedy="Stop working on it",
    )


async def hands(tx: Tx, job_id: UUID) -> list[Attempt]:
    """Its open attempts; call under the job's lock."""
    found = Attempt.filter(job_id=job_id, state__in=OPEN_STATES).using_db(tx).select_for_update()
    return await found.order_by("fence")


def facts(job: Job, open_now: Sequence[Attempt], refusals: int = 0) -> rules.JobFacts:
    states = Counter(attempt.state for attempt in open_now)
    reported = sum(attempt.units for attempt in open_now if attempt.reason == Reason.COMPLETED.value)
    return rules.JobFacts(
        state=JobState(job.state),
        hands=rules.Hands(*(states[state] for state in OPEN_STATES)),
        hands_max=job.hands_max,
        complete=job.units_accepted == job.units,
        reported_all=job.units_accepted + reported == job.units,
        # What runs on a rental is paid for by its time: there is nothing to use up.
        hold_left_qu=job.hold_spare_qu if job.rental_id is None else 1,
        owed_qu=job.owed_qu,
        bad_attempts=job.bad_attempts,
        refusals=refusals,
        closing=Reason(job.closing) if job.closing else None,
    )


async def step_job(
    desk: Desk, tx: Tx, job: Job, event: JobEvent, *, detail: str = "", paid: bool = False
) -> rules.JobDecision:
    """Decides by the attempts as they are stored, and applies: saves the job, stops the hands that must stop, and
    returns the rest of the hold when the job ends. `paid`: an attempt was paid out of the hold just now."""
    open_now = await hands(tx, job.id)
    decision = rules.decide_job(facts(job, open_now, len(await refusers(tx, job))), event)
    if decision.verb is not Verb.APPLY:
        return decision
    now_ms, waited = desk.now_ms(), job.units_waiting
    if decision.state is JobState.QUEUED and job.state != JobState.QUEUED.value:
        job.queued_ms = now_ms
    job.state, job.reason, job.detail = decision.state.value, decision.reason.value, detail[:DETAIL_MAX]
    job.closing = decision.closing.value if decision.closing else None
    job.units_waiting = job.units - job.units_accepted - sum(attempt.units for attempt in open_now)
    if job.units_waiting > waited:
        job.match_ms = now_ms
    job.due_ms = None
    if decision.state is JobState.DELIVERED:
        await _deliver(desk, tx, job, now_ms)
    left_qu = 0
    if decision.state in FINAL_JOB_STATES:
        left_qu, job.returned_qu = job.hold_left_qu, job.returned_qu + job.hold_left_qu
        await _finish(desk, tx, job, now_ms)
    await save_job(tx, job, now_ms)
    # Late: until the commit, the consumer's other jobs wait for this balance.
    await money.return_rest(tx, job, left_qu)
    if paid or left_qu:
        await money.tell_consumer(tx, job)
    if decision.stop_hands:
        await _stop_hands(desk, tx, job, open_now, decision.reason)
    desk.wake.set()
    return decision


async def _stop_hands(desk: Desk, tx: Tx, job: Job, open_now: Sequence[Attempt], reason: Reason) -> None:
    """What they made is still checked and paid. Each that ends is a step of the job of its own."""
    if reason not in (Reason.CANCELLED_BY_CONSUMER, Reason.EXPIRED, Reason.RENTAL_ENDED):
        reason = Reason.JOB_ENDED
    for attempt in open_now:
        if await end_attempt(desk, tx, job, attempt, AttemptEvent.STOP, reason) is Verb.APPLY:
            await tell(tx, attempt.peer_id, cancel_of(attempt, reason))


async def _deliver(desk: Desk, tx: Tx, job: Job, now_ms: int) -> None:
    """The acceptance window opens. What was made is owed from now on unless somebody disputes it, so its owner may read
    it (trust.md M3): nobody can judge what they cannot see."""
    job.due_ms = now_ms + round(desk.settings.accept_s * 1000)
    log.info("job.delivered", extra={"job": str(job.id), "owed_qu": job.owed_qu, "due_ms": job.due_ms})
    if job.data_account_id is not None:
        return  # a re-run: what it made is for the verifier's eyes alone
    links = await ChainLink.filter(job_no=job.no, owed=True).using_db(tx).only("output_digest")
    await artifacts.release(tx, job.data_owner, [bytes(link.output_digest) for link in links])


async def _finish(desk: Desk, tx: Tx, job: Job, now_ms: int) -> None:
    job.ended_ms, job.closing, job.units_waiting = now_ms, None, 0
    job.fraction = 1.0 if job.units_accepted == job.units else job.fraction
    await receipt.closed(desk, tx, job)
    log.info("job.ended", extra={"job": str(job.id), "state": job.state, "reason": job.reason, "paid_qu": job.paid_qu})


async def save_job(tx: Tx, job: Job, now_ms: int) -> None:
    """Saves, and tells whoever watches the job."""
    job.revision += 1
    await job.save(using_db=tx)
    await events.emit(tx, f"job:{job.id}", msgspec.to_builtins(await views.of_job(tx, job, now_ms)))


async def end_attempt(
    desk: Desk, tx: Tx, job: Job, attempt: Attempt, event: AttemptEvent, reason: Reason, detail: str = ""
) -> Verb:
    """The attempt is over on the node's side; its links, if any, now wait for the check."""
    decision = rules.decide_attempt(AttemptState(attempt.state), event, links=attempt.links)
    if decision.verb is not Verb.APPLY:
        return decision.verb
    now_ms = desk.now_ms()
    checking = decision.state is AttemptState.VERIFYING
    attempt.state, attempt.reason, attempt.detail = decision.state.value, reason.value, detail[:DETAIL_MAX]
    attempt.ended_ms = now_ms
    attempt.due_ms = rules.check_due_ms(now_ms, attempt.forecast_ms) if checking else None
    await attempt.save(using_db=tx)
    await receipt.ended(desk, tx, attempt)
    if reason not in rules.UNCOUNTED:
        job.bad_attempts += 1
    if reason not in rules.BLAMELESS:
        await outcomes.tell(desk, tx, job, attempt, What.FAILED)
        await market.count_failure(tx, attempt.listing_id, now_ms=now_ms)
    log.info("attempt.ended", extra={"attempt": str(attempt.id), "job": str(job.id), "reason": reason.value})
    await step_job(desk, tx, job, JobEvent.HANDED_IN if checking else JobEvent.EMPTIED, detail=detail)
    return Verb.APPLY


async def refusers(tx: Tx, job: Job) -> list[str]:
    """The providers that found the input unusable, one entry for each of their attempts."""
    if job.bad_attempts == 0:
        return []
    found = Attempt.filter(job_id=job.id, reason=Reason.BAD_INPUT.value).using_db(tx)
    return [row.peer_id for row in await found.only("peer_id")]


async def tell(tx: Tx, peer_id: str, message: Message) -> None:
    """A command for a node; it leaves after the commit, by whichever process holds the node's session."""
    await events.emit(tx, f"node:{peer_id}", msgspec.to_builtins(message))


def cancel_of(attempt: Attempt, reason: Reason) -> Cancel:
    return Cancel(attempt_id=str(attempt.id), fence=attempt.fence, reason=reason)
