# SPDX-License-Identifier: Apache-2.0
"""What a job's receipt says, entry by entry; each is written in the transaction that causes it, under its lock."""

from collections.abc import Mapping, Sequence

from qubix_coordinator.db.database import Tx
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.tables import Attempt, ChainLink, Job, Verdict
from qubix_coordinator.receipts import service as receipts
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.chain import Chain, Statement
from qubix_protocol.job_receipt import (
    KIND,
    AttemptAssigned,
    AttemptChecked,
    AttemptEnded,
    AttemptSettled,
    JobClosed,
    JobOpened,
    LinkTaken,
    Output,
    ReportTaken,
)
from qubix_protocol.messages import InputRef, Range
from qubix_protocol.states import JobState, Reason


def chain_of(desk: Desk, job_id: object) -> Chain:
    return Chain(desk.network, KIND, str(job_id))


async def opened(desk: Desk, tx: Tx, job: Job, inputs: Sequence[InputRef], outputs: Mapping[str, ArrayMeta]) -> None:
    statement = JobOpened(
        kernel=job.kernel,
        kernel_version=job.kernel_version,
        params=job.params,
        params_digest=job.params_digest,
        inputs=tuple(inputs),
        inputs_digest=job.inputs_digest,
        outputs=tuple(Output(name=name, meta=meta) for name, meta in outputs.items()),
        units=job.units,
        hold_qu=job.cap_qu,
        rate_qu_per_h_max=job.rate_max,
        provider=job.provider,
        hands_max=job.hands_max,
        rental=str(job.rental_id) if job.rental_id is not None else None,
        has_verifier=job.settles_by_check,
        deadline_ms=job.deadline_ms,
        order=job.order_raw or b"",
        units_whole=job.units_whole,
    )
    await receipts.open_chain(tx, chain_of(desk, job.id), statement, desk.key, at_ms=desk.now_ms())


async def assigned(desk: Desk, tx: Tx, attempt: Attempt) -> None:
    statement = AttemptAssigned(
        attempt_id=str(attempt.id),
        fence=attempt.fence,
        provider=attempt.peer_id,
        device_id=attempt.device_id,
        model=attempt.model,
        backend=attempt.backend,
        rate_qu_per_h=attempt.rate_qu_per_h,
        offer_digest=bytes(attempt.offer_digest),
        fee_bps=attempt.fee_bps or 0,
        ranges=tuple(Range(*pair) for pair in attempt.ranges),
        units=attempt.units,
        forecast_ms=attempt.forecast_ms,
        time_limit_ms=attempt.time_limit_ms,
    )
    await _append(desk, tx, attempt.job_id, statement)


async def linked(desk: Desk, tx: Tx, attempt: Attempt, link: ChainLink) -> None:
    statement = LinkTaken(attempt_id=str(attempt.id), progress=link.envelope, observed_ms=link.observed_ms)
    await _append(desk, tx, attempt.job_id, statement)


async def reported(desk: Desk, tx: Tx, attempt: Attempt) -> None:
    assert attempt.report_raw is not None, "it is about a report"
    await _append(desk, tx, attempt.job_id, ReportTaken(attempt_id=str(attempt.id), report=bytes(attempt.report_raw)))


async def ended(desk: Desk, tx: Tx, attempt: Attempt) -> None:
    statement = AttemptEnded(
        attempt_id=str(attempt.id),
        reason=Reason(attempt.reason),
        detail=attempt.detail,
        links=attempt.links,
        units_done=attempt.units_done,
        head=bytes(attempt.head),
    )
    await _append(desk, tx, attempt.job_id, statement)


async def checked(desk: Desk, tx: Tx, attempt: Attempt, verdict: Verdict | None) -> None:
    carried_out = verdict is not None and verdict.carried_out
    statement = AttemptChecked(
        attempt_id=str(attempt.id),
        carried_out=carried_out,
        parts=_judged(attempt, verdict) if verdict is not None and carried_out else (),
        entropy=bytes(verdict.seed)[:64] if verdict is not None else b"",
    )
    await _append(desk, tx, attempt.job_id, statement)


async def settled(desk: Desk, tx: Tx, attempt: Attempt) -> None:
    assert attempt.settlement_raw is not None, "it is about a settlement"
    statement = AttemptSettled(attempt_id=str(attempt.id), settlement=bytes(attempt.settlement_raw))
    await _append(desk, tx, attempt.job_id, statement)


def _judged(attempt: Attempt, verdict: Verdict) -> tuple[bool, ...]:
    """A verdict that is not for each link accepts none of them (`settle.accepted_prefix`)."""
    parts = tuple(verdict.parts)
    return parts if len(parts) == attempt.links else (False,) * attempt.links


async def closed(desk: Desk, tx: Tx, job: Job) -> None:
    statement = JobClosed(
        state=JobState(job.state),
        reason=Reason(job.reason),
        detail=job.detail,
        units_accepted=job.units_accepted,
        attempts=job.fence,
        hold_qu=job.cap_qu,
        paid_qu=job.paid_qu,
        fee_qu=job.fee_qu,
        returned_qu=job.returned_qu,
    )
    await _append(desk, tx, job.id, statement)


async def _append(desk: Desk, tx: Tx, job_id: object, statement: Statement) -> None:
    await receipts.append(tx, chain_of(desk, job_id), statement, desk.key, at_ms=desk.now_ms())
