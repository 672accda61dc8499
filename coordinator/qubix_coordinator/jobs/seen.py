# SPDX-License-Identifier: Apache-2.0
"""How fast accepted work was (trust C6): a score is the lesser of what a trial showed and what jobs show."""

from typing import Final

import msgspec

from qubix_coordinator.db.database import Tx
from qubix_coordinator.jobs.tables import Attempt, Job, JobInput
from qubix_coordinator.market import observed
from qubix_kernels import get
from qubix_protocol.arrays import ArrayMeta

_KERNEL: Final = "matmul"
"""Whose operations a score counts, in this dtype."""
_DTYPE: Final = "float32"


async def note(tx: Tx, job: Job, attempt: Attempt, *, now_ms: int) -> None:
    """Of one attempt, by its accepted units and the time that was billed for them. A node that claims less time than it
    took is paid for less."""
    if job.kernel != _KERNEL or attempt.units_accepted == 0:
        return
    inputs = await JobInput.filter(job_id=job.id).using_db(tx)
    metas = {one.name: msgspec.convert(one.meta, ArrayMeta) for one in inputs}
    if any(meta.dtype != _DTYPE for meta in metas.values()):
        return
    cost = get(_KERNEL).cost(metas, job.params, attempt.units_accepted)
    found = observed.countable(cost.flops, cost.bytes_moved, attempt.billed_ms)
    if found is not None:
        await observed.remember(tx, attempt.listing_id, attempt.id, found, now_ms=now_ms)
