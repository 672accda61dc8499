# SPDX-License-Identifier: Apache-2.0
"""Which artifact a live attempt may read or write (trust.md D1): its job's inputs, and outputs of its own."""

from uuid import UUID

import msgspec

from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import Forbidden
from qubix_coordinator.jobs.tables import Attempt, Job, JobInput
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.messages import ArtifactRequest
from qubix_protocol.states import AttemptState

OUTPUT_OVERHEAD_BYTES = 64 * 1024
"""What packing may add to the bytes of the arrays."""


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
        _check_output(job, request)
    return job.account_id


async def _check_input(tx: Tx, job: Job, request: ArtifactRequest) -> None:
    known = JobInput.filter(job_id=job.id, digest=request.digest, size_bytes=request.size_bytes)
    if not await known.using_db(tx).exists():
        raise Forbidden("this is not an input of the job", field="digest", remedy="Read the inputs of the assignment")


def _check_output(job: Job, request: ArtifactRequest) -> None:
    outputs = msgspec.convert(job.outputs, dict[str, ArrayMeta])
    limit = sum(meta.nbytes for meta in outputs.values()) + OUTPUT_OVERHEAD_BYTES
    if request.size_bytes > limit:
        raise Forbidden(
            f"{request.size_bytes} bytes are more than the job's whole output ({limit})",
            field="size_bytes",
            remedy="Upload the packed output of one chunk",
        )
