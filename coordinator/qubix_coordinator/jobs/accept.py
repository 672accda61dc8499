# SPDX-License-Identifier: Apache-2.0
"""How delivered work of kernels without a verifier is paid: by the consumer's word, by a window that ends, by decision.

`close` is the only way out of DELIVERED but a dispute; `decide` pays each disputed attempt its share. Either is one
transaction under the job's lock, so that accepting, disputing and the window's end exclude each other (trust.md M4).
"""

import logging
from uuid import UUID

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Tx
from qubix_coordinator.jobs import flow, rules, settle
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.rules import AttemptEvent, JobEvent, Verb
from qubix_coordinator.jobs.tables import Attempt, ChainLink, Job
from qubix_protocol.receipts import REFUTED
from qubix_protocol.states import REASON_TEXT, AttemptState, Reason

log = logging.getLogger(__name__)
_WHY = {
    JobEvent.ACCEPT: REASON_TEXT[Reason.ACCEPTED_BY_CONSUMER],
    JobEvent.WINDOW_ENDED: REASON_TEXT[Reason.NOT_DISPUTED],
}


async def close(desk: Desk, tx: Tx, job: Job, event: JobEvent) -> rules.JobDecision:
    """Pays what is owed and ends the job, if the event says so."""
    decision = rules.decide_job(flow.facts(job, await flow.hands(tx, job.id)), event)
    if decision.verb is not Verb.APPLY:
        return decision
    for attempt in await owed(tx, job.id):
        await pay_owed(desk, tx, job, attempt, attempt.owed_qu, _WHY[event])
    return await flow.step_job(desk, tx, job, event, paid=True)


async def owed(tx: Tx, job_id: UUID) -> list[Attempt]:
    """The attempts that wait to be paid; call under the job's lock."""
    return await Attempt.filter(job_id=job_id, owed_qu__gt=0).using_db(tx).order_by("fence").select_for_update()


async def pay_owed(desk: Desk, tx: Tx, job: Job, attempt: Attempt, charge_qu: int, why: str) -> None:
    """Pays `charge_qu` of what is owed for an attempt; the rest stays in the hold and returns with it. An attempt that
    earned nothing is rejected; without blame, since nobody could check it."""
    job.owed_qu -= attempt.owed_qu
    attempt.owed_qu = 0
    if charge_qu:
        provider = await accounts.account_of_node(tx, attempt.peer_id)
        await settle.pay(desk, tx, job, attempt, provider, charge_qu)
    event = AttemptEvent.PASSED if charge_qu else AttemptEvent.FAILED_CHECK
    decision = rules.decide_attempt(AttemptState(attempt.state), event, links=attempt.links)
    if decision.verb is Verb.APPLY:
        attempt.state, attempt.verdict = decision.state.value, settle.WORDS[decision.state]
    if not charge_qu:
        attempt.units_accepted = 0  # the job's count stays: they were made, in the right form
    links = ChainLink.filter(attempt_id=attempt.id, owed=True).using_db(tx)
    await links.update(owed=False, paid=charge_qu > 0)
    await settle.conclude(desk, tx, job, attempt, why)


async def refute(desk: Desk, tx: Tx, job: Job, attempt: Attempt, reason: Reason, why: str) -> bool:
    """What it delivered is not paid, and its units are run again elsewhere, with as much time as the job had at first.
    False when it is paid, disputed or over already."""
    decision = rules.decide_job(flow.facts(job, await flow.hands(tx, job.id)), JobEvent.REFUTED)
    if decision.verb is not Verb.APPLY or attempt.owed_qu == 0:
        return False
    now_ms = desk.now_ms()
    job.owed_qu -= attempt.owed_qu
    job.units_accepted -= attempt.units_accepted
    job.bad_attempts += 1
    job.deadline_ms = max(job.deadline_ms, now_ms + job.deadline_ms - job.created_ms)
    attempt.owed_qu = attempt.units_accepted = 0
    attempt.state, attempt.verdict = AttemptState.REJECTED.value, REFUTED
    attempt.reason, attempt.detail = reason.value, why[: flow.DETAIL_MAX]
    # Their form stays good, and the consumer has seen them: only who is owed for these units is open again.
    await ChainLink.filter(attempt_id=attempt.id, owed=True).using_db(tx).update(owed=False)
    await settle.conclude(desk, tx, job, attempt, REASON_TEXT[reason])
    await flow.step_job(desk, tx, job, JobEvent.REFUTED, detail=f"attempt {attempt.fence}: {why}")
    return True


async def decide(desk: Desk, tx: Tx, job: Job) -> rules.JobDecision:
    """Ends a job whose last dispute is decided: what nobody disputed is paid."""
    decision = rules.decide_job(flow.facts(job, await flow.hands(tx, job.id)), JobEvent.RESOLVE)
    if decision.verb is not Verb.APPLY:
        return decision
    for attempt in await owed(tx, job.id):
        await pay_owed(desk, tx, job, attempt, attempt.owed_qu, REASON_TEXT[Reason.NOT_DISPUTED])
    return await flow.step_job(desk, tx, job, JobEvent.RESOLVE, paid=True)
