# SPDX-License-Identifier: Apache-2.0
"""Loads rows under locks and applies the decisions of `rules`: the only module that moves disputes.

Locks are taken in the order job, dispute, attempt, so that a dispute and its job's settlement exclude each other.
"""

import logging
from collections.abc import Sequence
from uuid import UUID

import msgspec

from qubix_coordinator.db.database import Tx, execute
from qubix_coordinator.disputes import money, rules, views
from qubix_coordinator.disputes.rules import Event, Verb
from qubix_coordinator.disputes.tables import Dispute
from qubix_coordinator.errors import Conflict, NotFound
from qubix_coordinator.jobs import accept, again, flow, outcomes
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.tables import Attempt, Job
from qubix_coordinator.ledger.tell import emit_account
from qubix_coordinator.market.reputation import What
from qubix_coordinator.outbox import events
from qubix_protocol.disputes import OUTCOME_TEXT, DisputeState, Finding, Outcome, Side
from qubix_protocol.states import FINAL_JOB_STATES, JobState

log = logging.getLogger(__name__)


async def lock(tx: Tx, dispute_id: UUID) -> tuple[Job, Dispute]:
    found = await Dispute.filter(id=dispute_id).using_db(tx).only("job_id").first()
    if found is None:
        raise unknown()
    job = await flow.lock_job(tx, found.job_id)
    return job, await Dispute.filter(id=dispute_id).using_db(tx).select_for_update().get()


def unknown() -> NotFound:
    return NotFound(
        "there is no such dispute of yours", field="dispute_id", remedy="List your disputes with GET /disputes"
    )


def facts(dispute: Dispute) -> rules.Facts:
    return rules.Facts(
        state=DisputeState(dispute.state),
        opened_by=Side(dispute.opened_by),
        checked=dispute.checked,
        finding=Finding(dispute.finding),
    )


async def note(
    desk: Desk, tx: Tx, dispute_id: UUID, by: str, what: str, text: str = "", digests: Sequence[str] = ()
) -> None:
    """A line of the timeline, which both sides see."""
    await execute(
        tx,
        "INSERT INTO dispute_step (dispute_id, at_ms, by, what, text, digests)"
        " VALUES ($1, $2, $3, $4, $5, $6::bytea[])",
        dispute_id,
        desk.now_ms(),
        by,
        what,
        text,
        [bytes.fromhex(one) for one in digests],
    )


async def save(desk: Desk, tx: Tx, dispute: Dispute) -> None:
    """Saves, and tells whoever watches it. The event is for all who may see it: `you` stays empty."""
    dispute.revision += 1
    await dispute.save(using_db=tx)
    view = await views.view(desk, tx, dispute, "")
    await events.emit(tx, f"dispute:{dispute.id}", msgspec.to_builtins(view))


async def step(desk: Desk, tx: Tx, job: Job, dispute: Dispute, event: Event, *, award_qu: int = 0) -> rules.Decision:
    """Decides and applies; money follows in the same transaction. `award_qu`: what arbiters decided."""
    decision = rules.decide(facts(dispute), event)
    if decision.verb is not Verb.APPLY:
        return decision
    if decision.outcome is not None:
        await _resolve(desk, tx, job, dispute, decision.outcome, award_qu)
        return decision
    if decision.state is DisputeState.JUDGING:
        await _stop_rerun(desk, tx, dispute)
        if dispute.finding == Finding.NONE.value:
            dispute.finding = Finding.UNDECIDABLE.value
    dispute.state = decision.state.value
    dispute.due_ms = desk.now_ms() + wait_ms(desk, decision.state)
    await note(desk, tx, dispute.id, "market", decision.state.value, _words(dispute))
    await save(desk, tx, dispute)
    return decision


def wait_ms(desk: Desk, state: DisputeState) -> int:
    """How long it may stay in a state."""
    seconds = {
        DisputeState.OPENED: desk.settings.dispute_answer_s,
        DisputeState.RERUNNING: desk.settings.dispute_rerun_s,
        DisputeState.JUDGING: desk.settings.dispute_judge_s,
    }
    return round(seconds[state] * 1000)


def _words(dispute: Dispute) -> str:
    return {
        DisputeState.RERUNNING.value: "the disputed units are looked at a second time",
        DisputeState.JUDGING.value: f"the second look: {dispute.finding}; an arbiter may decide now",
    }.get(dispute.state, "")


async def _resolve(desk: Desk, tx: Tx, job: Job, dispute: Dispute, outcome: Outcome, decided_qu: int) -> None:
    award = rules.award_qu(outcome, Side(dispute.opened_by), dispute.stake_qu, decided_qu)
    await _stop_rerun(desk, tx, dispute)
    attempt = await Attempt.filter(id=dispute.attempt_id).using_db(tx).select_for_update().get()
    dispute.award_qu = award
    if award and not dispute.in_window:
        await money.pay_award(desk, tx, dispute, outcome, award, attempt.paid_qu)
    await money.end_bonds(tx, dispute, outcome, award)
    dispute.state, dispute.outcome = DisputeState.RESOLVED.value, outcome.value
    dispute.due_ms, dispute.resolved_ms = None, desk.now_ms()
    if dispute.in_window:
        dispute.from_hold_qu = award
        await _close_attempt(desk, tx, job, dispute, attempt, outcome)
    await _reputation(desk, tx, job, dispute, attempt, outcome)
    await note(desk, tx, dispute.id, "market", outcome.value, OUTCOME_TEXT[outcome])
    await save(desk, tx, dispute)
    log.info("dispute.resolved", extra={"dispute": str(dispute.id), "outcome": outcome.value, "award_qu": award})


async def _reputation(desk: Desk, tx: Tx, job: Job, dispute: Dispute, attempt: Attempt, outcome: Outcome) -> None:
    """A consumer's dispute that the provider lost or won. What nobody could judge says nothing of it."""
    if dispute.opened_by != Side.CONSUMER.value or outcome in (Outcome.UNDECIDABLE, Outcome.WITHDRAWN):
        return
    lost = rules.opener_keeps_bonds(outcome, dispute.award_qu, dispute.stake_qu, spent=True)
    await outcomes.tell(desk, tx, job, attempt, What.DISPUTE_LOST if lost else What.DISPUTE_WON)


async def _close_attempt(desk: Desk, tx: Tx, job: Job, dispute: Dispute, attempt: Attempt, outcome: Outcome) -> None:
    """The attempt gets what the award left of it; with the last of its disputes the job ends."""
    await accept.pay_owed(desk, tx, job, attempt, dispute.stake_qu - dispute.award_qu, OUTCOME_TEXT[outcome])
    others = Dispute.filter(job_id=job.id, in_window=True).exclude(id=dispute.id)
    if await others.exclude(state=DisputeState.RESOLVED.value).using_db(tx).exists():
        await flow.save_job(tx, job, desk.now_ms())
        await emit_account(tx, job.account_id)
    else:
        await accept.decide(desk, tx, job)


async def _stop_rerun(desk: Desk, tx: Tx, dispute: Dispute) -> None:
    """A re-run that nobody waits for any more is stopped; what it made is paid, the rest is bond again, at once or as
    soon as that is checked."""
    if dispute.rerun_settled or dispute.rerun_job_id is None:
        return
    rerun = await again.stop(desk, tx, dispute.rerun_job_id)
    if JobState(rerun.state) in FINAL_JOB_STATES:
        await money.rerun_back(tx, dispute, rerun)


def too_late(dispute: Dispute, what: str) -> Conflict:
    said = {
        DisputeState.OPENED.value: ("the other side has its say first", "Wait for its answer, or for the deadline"),
        DisputeState.RERUNNING.value: ("the second look is under way", "Wait until it is over"),
        DisputeState.JUDGING.value: ("the evidence is complete", "An arbiter decides, or the deadline does"),
        DisputeState.RESOLVED.value: ("it is resolved", "Nothing more can be done about it here"),
    }
    problem, remedy = said[dispute.state]
    return Conflict(f"{what}: {problem}", field="dispute_id", remedy=remedy)
