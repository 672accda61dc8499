# SPDX-License-Identifier: Apache-2.0
"""Jobs, results and receipts as their owner asks for them; somebody else's job is not there."""

from uuid import UUID

import msgspec
from tortoise.expressions import Q

from qubix_coordinator.accounts.rules import Principal
from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import Conflict, InvalidInput, NotFound
from qubix_coordinator.jobs import views
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.receipt import chain_of
from qubix_coordinator.jobs.tables import Attempt, ChainLink, Job
from qubix_coordinator.receipts import service as chains
from qubix_protocol.api import JobsView, JobView, ReceiptsView, ReceiptView, ResultPart, ResultView
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.receipts import JobReceiptView
from qubix_protocol.states import DONE_JOB_STATES, REASON_TEXT, JobState, Reason

PAGE_MAX = 200


async def own_job(tx: Tx, principal: Principal, job_id: str) -> Job:
    """Raises NotFound, also for another account's job."""
    try:
        key = UUID(job_id)
    except ValueError:
        raise _unknown() from None
    job = await Job.filter(id=key, account_id=principal.account_id).using_db(tx).first()
    if job is None:
        raise _unknown()
    return job


async def state_of(tx: Tx, job_id: UUID) -> JobState:
    """Of anybody's job. Raises NotFound."""
    job = await Job.filter(id=job_id).using_db(tx).only("state").first()
    if job is None:
        raise NotFound("there is no such job", field="job_id", remedy="Check the id")
    return JobState(job.state)


def _unknown() -> NotFound:
    return NotFound("there is no such job of yours", field="job_id", remedy="List your jobs with GET /jobs")


async def get(desk: Desk, principal: Principal, job_id: str) -> JobView:
    async def step(tx: Tx) -> JobView:
        return await views.of_job(tx, await own_job(tx, principal, job_id), desk.now_ms())

    return await desk.db.run(step)


async def list_jobs(desk: Desk, principal: Principal, *, after: str | None = None, limit: int = 50) -> JobsView:
    """Newest first; `after` is the `next` of the page before."""
    before = position(after)

    async def step(tx: Tx) -> JobsView:
        found = Job.filter(account_id=principal.account_id, no__lt=before).using_db(tx)
        count = max(1, min(limit, PAGE_MAX))
        jobs = await found.order_by("-no").limit(count + 1)
        shown = [await views.of_job(tx, job, desk.now_ms()) for job in jobs[:count]]
        return JobsView(jobs=tuple(shown), next=str(jobs[count - 1].no) if len(jobs) > count else None)

    return await desk.db.run(step)


def position(after: str | None) -> int:
    """The `no` below which a page of a list goes on. Raises InvalidInput."""
    if after is None or after == "":
        return 2**62
    if not after.isdecimal() or len(after) > 18:
        raise InvalidInput("after", "it is not a position in the list", "Use the `next` of the page before")
    return int(after)


async def result(desk: Desk, principal: Principal, job_id: str) -> ResultView:
    """The parts that were checked and paid, or delivered for acceptance, in order. Raises Conflict while there are none
    to give."""

    async def step(tx: Tx) -> ResultView:
        job = await own_job(tx, principal, job_id)
        links = await ChainLink.filter(Q(paid=True) | Q(owed=True), job_no=job.no).using_db(tx).order_by("start")
        _check_ready(job, len(links))
        return ResultView(
            job_id=str(job.id),
            outputs=msgspec.convert(job.outputs, dict[str, ArrayMeta]),
            parts=tuple(_part(link) for link in links),
        )

    return await desk.db.run(step)


def _check_ready(job: Job, parts: int) -> None:
    if JobState(job.state) not in DONE_JOB_STATES:
        raise Conflict(
            f"the job is {job.state}; a result is readable once it was checked and paid, or delivered for acceptance",
            field="job_id",
            remedy="Follow the job until it is settled or delivered",
        )
    if parts == 0:
        raise Conflict(
            f"the job is {job.state} and has no result: {REASON_TEXT[Reason(job.reason)]}",
            field="job_id",
            remedy="Submit it again",
        )


def _part(link: ChainLink) -> ResultPart:
    return ResultPart(
        start=link.start, stop=link.stop, digest=bytes(link.output_digest).hex(), size_bytes=link.output_bytes
    )


async def receipts(desk: Desk, principal: Principal, job_id: str) -> ReceiptsView:
    """Both signed halves of each attempt that was settled; a provider that vanished left an empty report."""

    async def step(tx: Tx) -> ReceiptsView:
        job = await own_job(tx, principal, job_id)
        settled = Attempt.filter(job_id=job.id, settlement_raw__isnull=False).using_db(tx).order_by("fence")
        found = tuple(_receipt(desk, attempt) for attempt in await settled.limit(PAGE_MAX))
        return ReceiptsView(job_id=str(job.id), receipts=found)

    return await desk.db.run(step)


async def receipt(desk: Desk, principal: Principal, job_id: str) -> JobReceiptView:
    """The whole chain of the job as it is now, with its signed end. Raises Conflict for a job from before receipts."""

    async def step(tx: Tx) -> JobReceiptView:
        job = await own_job(tx, principal, job_id)
        file = await chains.file_of(tx, chain_of(desk, job.id), desk.key, at_ms=desk.now_ms())
        if file is None:
            raise Conflict(
                "the job was submitted before whole receipts were kept",
                field="job_id",
                remedy="GET /jobs/{id}/receipts has what was signed about each of its attempts",
            )
        return JobReceiptView(job_id=str(job.id), receipt=file.decode())

    return await desk.db.run(step, "repeatable_read")


def _receipt(desk: Desk, attempt: Attempt) -> ReceiptView:
    return ReceiptView(
        network=desk.network,
        provider=attempt.peer_id,
        coordinator_key=desk.key.public.hex(),
        report=bytes(attempt.report_raw or b"").hex(),
        settlement=bytes(attempt.settlement_raw or b"").hex(),
    )
