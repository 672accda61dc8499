# SPDX-License-Identifier: Apache-2.0
"""Which artifact a live attempt may read or write (trust.md D1): its job's inputs, and outputs of its own."""

from uuid import UUID

import msgspec

from qubix_coordinator.artifacts import service as artifacts
from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import Forbidden
from qubix_coordinator.jobs.tables import Attempt, Job, JobInput
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.messages import ArtifactRequest
from qubix_protocol.states import AttemptState
from qubix_protocol.units import CHUNKS_MAX

OUTPUT_OVERHEAD_BYTES = 4 * 1024
"""What packing may add to the bytes of one chunk's arrays: a head of at most a hundred bytes for each."""


async def may_access(tx: Tx, peer_id: str, request: ArtifactRequest) -> UUID:
    """The account whose data it is. Raises Forbidden; the permission dies with the attempt."""
    attempt = await Attempt.filter(id=UUID(request.attempt_id)).using_db(tx).first()
    live = attempt is not None and attempt.state in (AttemptState.OFFERED.value, AttemptState.RUNNING.value)
    if attempt is None or not live or (attempt.peer_id, attempt.fence) != (peer_id, request.fence):
        raise Forbidden("this is not a live attempt of yours", field="attempt_id", remedy="Stop working on it")
    job = await Job.filter(id=attempt.job_id).using_db(tx).get()
    if request.method == "GET":
        await _check_input(tx, job, request)
    else:
        await _check_output(tx, job, request)
    return job.data_owner


async def _check_input(tx: Tx, job: Job, request: ArtifactRequest) -> None:
    known = JobInput.filter(job_id=job.id, digest=request.digest, size_bytes=request.size_bytes)
    if not await known.using_db(tx).exists():
        raise Forbidden("this is not an input of the job", field="digest", remedy="Read the inputs of the assignment")


async def _check_output(tx: Tx, job: Job, request: ArtifactRequest) -> None:
    """All that an attempt announces together is no more than the job's whole output, packed in chunks."""
    outputs = msgspec.convert(job.outputs, dict[str, ArrayMeta])
    whole = sum(meta.nbytes for meta in outputs.values())
    count, size_bytes = await artifacts.announced_by(tx, job.data_owner, request.attempt_id, but=request.digest)
    limit = whole + OUTPUT_OVERHEAD_BYTES * (count + 1)
    if size_bytes + request.size_bytes > limit or count >= CHUNKS_MAX:
        raise Forbidden(
            f"{count} outputs of {size_bytes} bytes and this one of {request.size_bytes} are more than the job's"
            f" whole output ({whole} bytes, in {CHUNKS_MAX} chunks at most)",
            field="size_bytes",
            remedy="Upload the packed output of each chunk once",
        )
