# SPDX-License-Identifier: Apache-2.0
"""Jobs from estimate to receipt."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta
from quart import Response, request
from quart.wrappers import Response as QuartResponse

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.artifacts.store import ArtifactStore
from qubix_coordinator.errors import InvalidInput, NotFound
from qubix_coordinator.http import results, settling
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.downloads import FILE_HEADERS, SENT_S_PER_BYTE
from qubix_coordinator.http.openapi import Npy
from qubix_coordinator.http.routes import route
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.rentals import service as rentals
from qubix_protocol import barriers
from qubix_protocol.api import (
    EstimateBody,
    EstimateView,
    JobBody,
    JobCourseView,
    JobsView,
    JobView,
    ReceiptsView,
    ResultPart,
    ResultView,
    SettleView,
)
from qubix_protocol.arrays import npy_prefix
from qubix_protocol.barriers import Barrier
from qubix_protocol.receipts import JobReceiptView

_KEY_CHARS_MAX: Final = 200


class JobsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    after: Annotated[str, Meta(max_length=200)] | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


@route(api, "POST", "/jobs/estimate", scope="user", body=EstimateBody, answer=EstimateView, group="jobs")
async def estimate_job(who: Principal, body: EstimateBody) -> EstimateView:
    """What a job of this form would take and cost on each device that fits, and why the others do not"""
    return await jobs.estimate(here().desk, body, who.account_id)


@route(api, "POST", "/jobs", scope="user", body=JobBody, answer=JobView, status=201, group="jobs")
async def submit_job(who: Principal, body: JobBody) -> JobView:
    """Freeze the price, hold the cap, queue the job; the same Idempotency-Key gives the same job"""
    key = request.headers.get("Idempotency-Key", "")
    if not 1 <= len(key) <= _KEY_CHARS_MAX:
        raise InvalidInput(
            "Idempotency-Key",
            f"a header of 1 to {_KEY_CHARS_MAX} characters is needed",
            "Send a new random value for each job, and the same one when you repeat a request",
        )
    submit = jobs.submit if body.rental is None else rentals.submit_job
    view = await submit(here().desk, who, body, key)
    await barriers.reach(Barrier.SUBMITTED)
    return view


@route(api, "GET", "/jobs", scope="user", query=JobsQuery, answer=JobsView, group="jobs")
async def list_jobs(who: Principal, query: JobsQuery) -> JobsView:
    """Your jobs, newest first"""
    return await jobs.list_jobs(here().desk, who, after=query.after, limit=query.limit)


@route(api, "GET", "/jobs/<uuid:job_id>", scope="user", answer=JobView, group="jobs")
async def get_job(who: Principal, job_id: UUID) -> JobView:
    """One job with its attempts and its money"""
    return await jobs.get(here().desk, who, str(job_id))


@route(api, "GET", "/jobs/<uuid:job_id>/course", scope="user", answer=JobCourseView, group="jobs")
async def get_job_course(who: Principal, job_id: UUID) -> JobCourseView:
    """What happened to a job, line by line, and what each check of it said"""
    return await jobs.course(here().desk, who, str(job_id))


@route(api, "POST", "/jobs/<uuid:job_id>/cancel", scope="user", answer=JobView, group="jobs")
async def cancel_job(who: Principal, job_id: UUID) -> JobView:
    """Stop; checked chunks are paid, the rest is returned"""
    return await jobs.cancel(here().desk, who, str(job_id))


@route(api, "POST", "/jobs/<uuid:job_id>/accept", scope="user", answer=JobView, group="jobs")
async def accept_job(who: Principal, job_id: UUID) -> JobView:
    """Your word that what was delivered is right: it is paid at once. For kernels without a verifier"""
    return await jobs.accept(here().desk, who, str(job_id))


@route(api, "POST", "/jobs/<uuid:job_id>/settle", scope="user", answer=SettleView, group="jobs")
async def settle_job(who: Principal, job_id: UUID) -> SettleView:
    """Do for any job what is due by now, or say when something will be"""
    return await settling.settle(here(), job_id)


@route(api, "GET", "/jobs/<uuid:job_id>/receipts", scope="user", answer=ReceiptsView, group="jobs")
async def list_receipts(who: Principal, job_id: UUID) -> ReceiptsView:
    """What both sides signed about each attempt"""
    return await jobs.receipts(here().desk, who, str(job_id))


@route(api, "GET", "/jobs/<uuid:job_id>/receipt", scope="user", answer=JobReceiptView, group="jobs")
async def get_receipt(who: Principal, job_id: UUID) -> JobReceiptView:
    """The whole job as a chain of signed entries, as one file to keep; a job that is not over says how far it is"""
    return await jobs.receipt(here().desk, who, str(job_id))


@route(api, "GET", "/jobs/<uuid:job_id>/result", scope="user", answer=ResultView, group="jobs")
async def get_result(who: Principal, job_id: UUID) -> ResultView:
    """The parts of a paid result, each an artifact"""
    return await jobs.result(here().desk, who, str(job_id))


@route(api, "GET", "/jobs/<uuid:job_id>/result/<name>", scope="user", answer=Npy, group="jobs")
async def get_output(who: Principal, job_id: UUID, name: str) -> QuartResponse:
    """One output as a `.npy` file, joined from its parts; fewer rows than announced when the job ended early"""
    found = await jobs.result(here().desk, who, str(job_id))
    if name not in found.outputs:
        raise NotFound(
            f"the job has no output {name[:100]!r}", field="name", remedy=f"Ask for one of: {', '.join(found.outputs)}"
        )
    meta = results.form_of(found.outputs[name], sum(part.stop - part.start for part in found.parts))
    # The body is sent after the request's context has ended: what it needs is bound here.
    streams = [partial(_stream, here().uploads.store, who, part) for part in sorted(found.parts, key=_start)]
    parts = [(await _span(stream, name), stream) for stream in streams]
    prefix = npy_prefix(meta)
    answer = Response(results.join(parts, prefix), 200, content_type=Npy.media)
    answer.headers.update({**FILE_HEADERS, "Content-Disposition": f'attachment; filename="{name}.npy"'})
    answer.headers["Content-Length"] = str(len(prefix) + sum(span.stop - span.start for span, _ in parts))
    answer.timeout = 60 + meta.nbytes * SENT_S_PER_BYTE
    return answer


def _start(part: ResultPart) -> int:
    return part.start


async def _span(stream: results.Stream, name: str) -> results.Span:
    async def read(start: int, stop: int) -> bytes:
        return b"".join([piece async for piece in stream(start, stop)])

    return await results.find_array(read, name)


def _stream(store: ArtifactStore, who: Principal, part: ResultPart, start: int, stop: int) -> AsyncIterator[bytes]:
    return store.read(who.account_id, bytes.fromhex(part.digest), start, stop)
