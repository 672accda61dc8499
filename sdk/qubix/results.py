# SPDX-License-Identifier: Apache-2.0
"""A job's result: parts by digest, checked and joined; or the error that the job ended with."""

import hashlib

from qubix import catalogue
from qubix.errors import JobCancelled, JobEnded, JobFailed, NotGenuine
from qubix.session import API, Session
from qubix.transport import Call
from qubix_protocol.api import JobView, ResultPart, ResultView
from qubix_protocol.arrays import Array, ArrayMeta, unpack_arrays
from qubix_protocol.errors import Malformed
from qubix_protocol.states import JobState, Reason


async def fetch(session: Session, view: JobView) -> dict[str, Array]:
    """Raises `NotGenuine` when what came is not what was announced."""
    found = await session.get(f"/jobs/{view.job_id}/result", ResultView)
    outputs = [await _part(session, part) for part in in_order(found, view.units)]
    joined: dict[str, Array] = await session.port.aside(lambda: catalogue.join(view.kernel, outputs))
    metas = {name: ArrayMeta.of(array) for name, array in joined.items()}
    if metas != found.outputs:
        raise NotGenuine(f"the parts of job {view.job_id} make {metas}, announced was {found.outputs}")
    try:
        own = catalogue.own_names(view.kernel, view.params)
    except (KeyError, ValueError) as error:
        raise NotGenuine(f"the parameters of job {view.job_id} are not those of {view.kernel}: {error}") from error
    return {own.get(name, name): array for name, array in joined.items()}


def in_order(result: ResultView, units: int) -> list[ResultPart]:
    """The parts by their units; `NotGenuine` when they leave a gap or overlap."""
    parts = sorted(result.parts, key=lambda part: part.start)
    edges = [0, *(part.stop for part in parts)]
    if [part.start for part in parts] != edges[:-1] or edges[-1] != units:
        raise NotGenuine(f"the parts of job {result.job_id} do not make up its {units} units")
    return parts


async def _part(session: Session, part: ResultPart) -> dict[str, Array]:
    call = Call(method="GET", path=f"{API}/artifacts/{part.digest}", limit_bytes=part.size_bytes)
    content = (await session.send(call)).content
    digest = await session.port.aside(lambda: hashlib.sha256(content).hexdigest())
    if digest != part.digest:
        raise NotGenuine(
            f"units {part.start} to {part.stop} came as {digest}, announced was {part.digest}",
            remedy="Ask for the result again; if it stays, tell the coordinator's operator.",
        )
    try:
        return unpack_arrays(content)
    except Malformed as error:
        raise NotGenuine(f"units {part.start} to {part.stop} cannot be read: {error}") from error


def error_of(view: JobView) -> JobEnded | None:
    """The error of a job that ended without its result; None for one that did not."""
    partial = (
        view.state in (JobState.DELIVERED, JobState.DISPUTED, JobState.RESOLVED) and view.units_accepted < view.units
    )
    if view.state not in (JobState.FAILED, JobState.CANCELLED) and not partial:
        return None
    kind = JobCancelled if view.reason is Reason.CANCELLED_BY_CONSUMER else JobFailed
    said = f": {view.detail}" if view.detail else ""
    return kind(
        f"job {view.job_id} {view.state}: {view.reason_text or view.reason}{said}",
        job_id=view.job_id,
        reason=view.reason,
        detail=view.detail,
        remedy=f"`qubix job show {view.job_id}` shows its attempts; {view.returned_qu:,} QU were returned.",
    )
