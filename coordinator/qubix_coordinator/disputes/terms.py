# SPDX-License-Identifier: Apache-2.0
"""What of a job can be disputed by whom, until when, and what that stakes: before anything is opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Principal
from qubix_coordinator.db.database import Tx, rows, value
from qubix_coordinator.disputes import rules
from qubix_coordinator.disputes.tables import Dispute
from qubix_coordinator.errors import Conflict, InvalidInput, NotFound
from qubix_coordinator.jobs import billing
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.tables import Attempt, ChainLink, Job
from qubix_protocol.disputes import DisputableView, DisputeState, JobDisputesView, JobDisputeView, Outcome, Side
from qubix_protocol.messages import Range
from qubix_protocol.states import FINAL_JOB_STATES, AttemptState, JobState


@dataclass(frozen=True, slots=True)
class Terms:
    """`in_window`: the job's hold is still open, and the award is a part of it."""

    ranges: tuple[Range, ...]
    stake_qu: int
    bond_qu: int
    in_window: bool


async def key_of_party(tx: Tx, principal: Principal, job_id: str) -> UUID:
    """Of the consumer's own job, or of one in which a node of the account has worked. Raises NotFound."""
    missing = NotFound(
        "there is no such job of yours, nor did a node of yours work on it",
        field="job_id",
        remedy="List your jobs with GET /jobs",
    )
    try:
        key = UUID(job_id)
    except ValueError:
        raise missing from None
    worked = await value(
        tx,
        "SELECT true FROM attempt a JOIN node n ON n.peer_id = a.peer_id WHERE a.job_id = $1 AND n.account_id = $2",
        key,
        principal.account_id,
    )
    if not worked and not await Job.filter(id=key, account_id=principal.account_id).using_db(tx).exists():
        raise missing
    return key


async def disputed(tx: Tx, principal: Principal, job: Job, fence: int | None) -> tuple[Attempt, Side]:
    """The attempt that is meant, and on which side the account stands. Raises Conflict, InvalidInput."""
    side, could = await _could(tx, principal, job)
    if fence is not None:
        could = [one for one in could if one.fence == fence]
    if not could:
        which = "attempt of it" if fence is None else f"attempt {fence}"
        raise Conflict(
            f"no {which} can be disputed: {_why_none(side)}", field="attempt", remedy="Look at the job's attempts"
        )
    if len(could) > 1:
        raise InvalidInput(
            "attempt",
            f"{len(could)} attempts can be disputed",
            f"Name one: {', '.join(str(one.fence) for one in could)}",
        )
    return could[0], side


async def _could(tx: Tx, principal: Principal, job: Job) -> tuple[Side, list[Attempt]]:
    attempts = await Attempt.filter(job_id=job.id).using_db(tx).order_by("fence")
    if job.account_id == principal.account_id:
        return Side.CONSUMER, [one for one in attempts if one.owed_qu or one.paid_qu + one.fee_qu]
    mine = {
        row["peer_id"] for row in await rows(tx, "SELECT peer_id FROM node WHERE account_id = $1", principal.account_id)
    }
    wrong = [one for one in attempts if one.state == AttemptState.REJECTED.value]
    return Side.PROVIDER, [one for one in wrong if one.peer_id in mine and one.owed_qu == 0]


def _why_none(side: Side) -> str:
    return "nothing is owed or paid for" if side is Side.CONSUMER else "none of yours was rejected"


async def of_attempt(desk: Desk, tx: Tx, job: Job, attempt: Attempt, side: Side) -> Terms:
    """Raises Conflict where nothing is at stake."""
    links = await ChainLink.filter(attempt_id=attempt.id, verdict=side is Side.CONSUMER).using_db(tx).order_by("index")
    ranges = billing.merge([Range(link.start, link.stop) for link in links])
    units = billing.total(ranges)
    if units == 0:
        raise Conflict("there are no units to dispute", field="attempt", remedy="Look at the job's attempts")
    cost_qu = billing.bill_max_qu(
        attempt.rate_qu_per_h, forecast_ms=attempt.forecast_ms, attempt_units=attempt.units, units=units
    )
    if side is Side.CONSUMER:
        stake_qu = attempt.owed_qu or attempt.paid_qu + attempt.fee_qu
    else:
        # All such stakes together, never more than the job's hold had beside what it has paid (awards ≤ hold).
        others_qu = await value(
            tx,
            "SELECT coalesce(sum(CASE state WHEN 'resolved' THEN award_qu ELSE stake_qu END), 0)::bigint"
            " FROM dispute WHERE job_id = $1 AND attempt_id <> $2 AND opened_by = 'provider'",
            job.id,
            attempt.id,
        )
        stake_qu = min(cost_qu, job.cap_qu - job.paid_qu - job.fee_qu - job.owed_qu - others_qu)
    if stake_qu <= 0:
        raise Conflict("nothing is at stake: others have the whole hold", field="attempt", remedy="Nothing is lost")
    return Terms(
        ranges=tuple(ranges),
        stake_qu=stake_qu,
        bond_qu=rules.bond_qu(0 if job.has_verifier else cost_qu, desk.settings.dispute_bond_min_qu),
        in_window=side is Side.CONSUMER and attempt.owed_qu > 0,
    )


def check_time(desk: Desk, job: Job, *, in_window: bool) -> int | None:
    """Until when it can be opened; None: while others of the same job are open. Raises Conflict where not now."""
    if job.data_account_id is not None:
        raise Conflict("this is a re-run for a dispute", field="job_id", remedy="It is that dispute's evidence")
    if in_window:
        if job.state == JobState.DISPUTED.value:
            return None
        if job.due_ms is not None and job.due_ms > desk.now_ms():
            return int(job.due_ms)
        # Owed for, and not delivered yet, or due already.
        raise Conflict(
            f"the job is {job.state}: it can be disputed in its acceptance window",
            field="job_id",
            remedy="Wait until it is delivered"
            if job.due_ms is None
            else "The window has ended; dispute it after settlement",
        )
    if JobState(job.state) not in FINAL_JOB_STATES:
        raise Conflict(
            f"the job is {job.state}: what is settled of it can be disputed when it is over",
            field="job_id",
            remedy="Wait for its end",
        )
    assert job.ended_ms is not None
    until_ms: int = job.ended_ms + round(desk.settings.dispute_s * 1000)
    if until_ms <= desk.now_ms():
        raise Conflict(
            f"the job ended more than {desk.settings.dispute_s:g} s ago",
            field="job_id",
            remedy="Disputes are opened within that time",
        )
    return until_ms


async def of_job(desk: Desk, principal: Principal, job_id: str) -> JobDisputesView:
    """For either side of the job. Raises NotFound."""

    async def step(tx: Tx) -> JobDisputesView:
        job = await Job.filter(id=await key_of_party(tx, principal, job_id)).using_db(tx).get()
        side, could = await _could(tx, principal, job)
        there = await Dispute.filter(job_id=job.id).using_db(tx).order_by("no")
        shown = [one for one in there if principal.account_id in (one.consumer_id, one.provider_id)]
        return await _view(desk, tx, job, side, could, shown)

    return await desk.db.run(step)


async def _view(
    desk: Desk, tx: Tx, job: Job, side: Side, could: Sequence[Attempt], there: Sequence[Dispute]
) -> JobDisputesView:
    found, why = [], "" if could else _why_none(side)
    for attempt in could:
        try:
            found.append(await _disputable(desk, tx, job, attempt, side, there))
        except Conflict as problem:
            why = problem.problem
    disputes = tuple(
        JobDisputeView(
            dispute_id=str(one.id),
            attempt=one.fence,
            state=DisputeState(one.state),
            opened_by=Side(one.opened_by),
            outcome=Outcome(one.outcome) if one.outcome else None,
            opened_ms=one.opened_ms,
            due_ms=one.due_ms,
        )
        for one in there
    )
    return JobDisputesView(
        job_id=str(job.id), side=side, disputable=tuple(found), why="" if found else why, disputes=disputes
    )


async def _disputable(
    desk: Desk, tx: Tx, job: Job, attempt: Attempt, side: Side, there: Sequence[Dispute]
) -> DisputableView:
    if await accounts.account_of_node(tx, attempt.peer_id) == job.account_id:
        raise Conflict("both sides are you", field="job_id", remedy="Settle it with yourself")
    for one in there:
        if one.attempt_id == attempt.id and (one.opened_by == side.value or one.resolved_ms is None):
            raise Conflict(f"attempt {attempt.fence} was disputed already", field="attempt", remedy="Look at that one")
    terms = await of_attempt(desk, tx, job, attempt, side)
    until_ms = check_time(desk, job, in_window=terms.in_window)
    return DisputableView(
        attempt=attempt.fence,
        provider=attempt.peer_id,
        model=attempt.model,
        stake_qu=terms.stake_qu,
        bond_qu=terms.bond_qu,
        until_ms=until_ms,
    )
