# SPDX-License-Identifier: Apache-2.0
"""What a job asks of a provider, by its kernel's own specification. No database below `of_job`; no data at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import InvalidInput
from qubix_coordinator.jobs import billing
from qubix_coordinator.jobs.tables import Attempt, Job, JobInput
from qubix_coordinator.market.rules import Need
from qubix_kernels import KernelError, get, names
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.errors import Malformed
from qubix_protocol.messages import ParamValue, Range
from qubix_protocol.states import AttemptState

MEMORY_BASE_BYTES = 256 * 1024**2
"""What an interpreter with its libraries takes beside the arrays."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked request: parameters in their normal form, and what running all of it takes."""

    kernel: str
    kernel_version: int
    backends: tuple[str, ...]
    params: dict[str, ParamValue]
    outputs: dict[str, ArrayMeta]
    units: int
    flops: float
    bytes_moved: float
    memory_bytes: int

    def need(self) -> Need:
        return Need(
            kernel=self.kernel,
            backends=self.backends,
            flops=self.flops,
            bytes_moved=self.bytes_moved,
            memory_bytes=self.memory_bytes,
        )


def plan_of(kernel_name: str, params: Mapping[str, ParamValue], metas: Mapping[str, ArrayMeta]) -> Plan:
    """Raises InvalidInput that names the field and the remedy."""
    if kernel_name not in names():
        raise InvalidInput("kernel", f"there is no kernel {kernel_name!r}", f"Use one of: {', '.join(sorted(names()))}")
    kernel = get(kernel_name)
    try:
        for name, meta in metas.items():
            _check_form(name, meta)
        normal = kernel.normalise(params)
        kernel.check(metas, normal)
    except KernelError as problem:
        raise InvalidInput(problem.field, str(problem), problem.remedy) from problem
    outputs = dict(kernel.output_metas(metas, normal))
    cost = kernel.cost(metas, normal)
    return Plan(
        kernel=kernel_name,
        kernel_version=kernel.spec.version,
        backends=tuple(kernel.spec.backends),
        params=dict(normal),
        outputs=outputs,
        units=kernel.units(metas, normal),
        flops=cost.flops,
        bytes_moved=cost.bytes,
        memory_bytes=MEMORY_BASE_BYTES + sum(meta.nbytes for meta in (*metas.values(), *outputs.values())),
    )


def _check_form(name: str, meta: ArrayMeta) -> None:
    try:
        meta.check()
    except Malformed as problem:
        raise InvalidInput(f"inputs.{name}.meta", str(problem), "Send a dtype and shape within the limits") from problem


async def of_job(tx: Tx, job: Job, left: Sequence[Range]) -> Need:
    """What is left of the job: the share of the whole that its uncovered units are."""
    inputs = await JobInput.filter(job_id=job.id).using_db(tx)
    plan = plan_of(job.kernel, job.params, {one.name: msgspec.convert(one.meta, ArrayMeta) for one in inputs})
    share = billing.total(left) / job.units
    wrong = Attempt.filter(job_id=job.id, state=AttemptState.REJECTED.value).using_db(tx)
    excluded = frozenset([row.peer_id for row in await wrong.only("peer_id")])
    return Need(
        kernel=plan.kernel,
        backends=plan.backends,
        flops=plan.flops * share,
        bytes_moved=plan.bytes_moved * share,
        memory_bytes=plan.memory_bytes,
        hold_left_qu=job.hold_left_qu,
        rate_qu_per_h_max=job.rate_max,
        provider=job.provider,
        excluded=excluded,
    )
