# SPDX-License-Identifier: Apache-2.0
"""Running some units of a job again, for somebody else's money, and having a verifier look at them a second time.

A re-run is a job like any other: chosen provider, hold, links, check. It reads the first job's data and belongs to
whoever pays for it, so that the first job's owner neither sees nor stops it.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec

from qubix_coordinator.db.database import Tx, execute, one, value
from qubix_coordinator.jobs import accept, flow, money, receipt
from qubix_coordinator.jobs.assign import input_ref
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.rules import JobEvent
from qubix_coordinator.jobs.tables import Job, JobInput
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.messages import Range
from qubix_protocol.states import DONE_JOB_STATES, FINAL_JOB_STATES, JobState, Reason


@dataclass(frozen=True, slots=True)
class SecondLook:
    """`accepted` None while nobody has looked; `carried_out` False: nothing was found out."""

    carried_out: bool | None
    accepted: bool | None
    reason: str
    detail: str


async def submit(
    desk: Desk, tx: Tx, first: Job, ranges: Sequence[Range], *, payer: UUID, cap_qu: int, provider: str, key: str
) -> Job:
    """Raises NotEnoughBalance."""
    now_ms, units = desk.now_ms(), sum(one.units for one in ranges)
    job = Job(
        id=uuid.uuid4(),
        no=await value(tx, "SELECT nextval('job_no')"),
        account_id=payer,
        data_account_id=first.data_owner,
        idempotency_key=key,
        body_digest=first.body_digest,
        state=JobState.QUEUED.value,
        reason=Reason.WAITING_FOR_PROVIDER.value,
        detail="",
        revision=0,
        kernel=first.kernel,
        kernel_version=first.kernel_version,
        params=first.params,
        params_digest=first.params_digest,
        inputs_digest=first.inputs_digest,
        outputs=first.outputs,
        units=units,
        units_waiting=units,
        units_whole=first.units_whole or first.units,
        only_units=[[one.start, one.stop] for one in ranges],
        has_verifier=first.has_verifier,
        spread=1,
        hands_max=1,
        cap_qu=cap_qu,
        provider=provider,
        created_ms=now_ms,
        queued_ms=now_ms,
        match_ms=now_ms,
        deadline_ms=now_ms + round(desk.settings.dispute_rerun_s * 1000) // 4,
    )
    await job.save(using_db=tx, force_create=True)
    refs = []
    for given in await JobInput.filter(job_id=first.id).using_db(tx).order_by("name"):
        refs.append(input_ref(given))
        copy = JobInput(
            job_id=job.id, name=given.name, digest=given.digest, size_bytes=given.size_bytes, meta=given.meta
        )
        await copy.save(using_db=tx, force_create=True)
    await receipt.opened(desk, tx, job, refs, msgspec.convert(first.outputs, dict[str, ArrayMeta]))
    await money.hold(tx, job)
    await flow.save_job(tx, job, now_ms)
    return job


async def finished(desk: Desk, tx: Tx, job_id: UUID) -> Job | None:
    """The re-run, paid, once nobody works on it any more; None before. Its price is owed whatever it shows."""
    job = await flow.lock_job(tx, job_id)
    if JobState(job.state) not in DONE_JOB_STATES:
        return None
    if JobState(job.state) not in FINAL_JOB_STATES:
        await accept.close(desk, tx, job, JobEvent.ACCEPT)
    return job


async def stop(desk: Desk, tx: Tx, job_id: UUID) -> Job:
    """Ends it as far as that goes at once: what was made is checked and paid, the rest returns as soon as it is."""
    job = await flow.lock_job(tx, job_id)
    if JobState(job.state) not in DONE_JOB_STATES:
        await flow.step_job(desk, tx, job, JobEvent.CANCEL)
    return job


async def ask_second_look(
    tx: Tx,
    look_id: UUID,
    attempt_id: UUID,
    *,
    good: bool,
    other_job_id: UUID | None,
    due_ms: int,
    part: Range | None = None,
) -> None:
    """Asking twice is asking once. `part`: at these links alone."""
    await execute(
        tx,
        "INSERT INTO second_look (id, attempt_id, good, other_job_id, due_ms, start, stop)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO NOTHING",
        look_id,
        attempt_id,
        good,
        other_job_id,
        due_ms,
        part.start if part else None,
        part.stop if part else None,
    )


async def second_look(tx: Tx, look_id: UUID) -> SecondLook | None:
    found = await one(tx, "SELECT carried_out, accepted, reason, detail FROM second_look WHERE id = $1", look_id)
    return None if found is None else SecondLook(**found)
