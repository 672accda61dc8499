# SPDX-License-Identifier: Apache-2.0
"""What a job asks of a provider, by its kernel's own specification. No database below `of_job`; no data at all."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import InvalidInput
from qubix_coordinator.jobs.tables import Attempt, Job, JobInput
from qubix_coordinator.market import learned, wanted
from qubix_coordinator.market.learned import Fits
from qubix_coordinator.market.rules import Need
from qubix_kernels import Kernel, UnknownKernel, get
from qubix_protocol import digests
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.errors import Malformed
from qubix_protocol.messages import ParamValue
from qubix_protocol.states import AttemptState

MEMORY_BASE_BYTES = 256 * 1024**2
"""What an interpreter with its libraries takes beside the arrays."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked request: parameters in their normal form, and what all of it gives."""

    kernel: Kernel
    metas: dict[str, ArrayMeta]
    params: dict[str, ParamValue]
    outputs: dict[str, ArrayMeta]
    units: int

    @property
    def flops(self) -> float:
        return self.kernel.cost(self.metas, self.params, self.units).flops

    @property
    def check_flops(self) -> float:
        return self.kernel.check_cost(self.metas, self.params, self.units).flops

    def need(self, units: int | None = None) -> Need:
        """Of running so many units, all of them by default, whoever may do it at whatever price."""
        units = self.units if units is None else units
        cost = self.kernel.cost(self.metas, self.params, units)
        whole = sum(meta.nbytes for meta in (*self.metas.values(), *self.outputs.values()))
        return Need(
            kernel=self.kernel.spec.name,
            backends=self.kernel.runs_on(self.metas, self.params),
            flops=cost.flops,
            bytes_moved=cost.bytes_moved,
            memory_bytes=MEMORY_BASE_BYTES + max(cost.memory_bytes, whole),
            moved_bytes=self._moved_bytes(units),
            browsers=self.kernel.spec.verifier and not self.kernel.spec.open,
        )

    def _moved_bytes(self, units: int) -> int:
        """Every hand fetches all of the inputs, and gives its own part of the outputs."""
        given = sum(meta.nbytes for meta in self.outputs.values()) * units // max(1, self.units)
        return sum(meta.nbytes for meta in self.metas.values()) + given

    @property
    def subject(self) -> str:
        return subject_of(self.kernel, self.params)


def subject_of(kernel: Kernel, params: Mapping[str, ParamValue]) -> str:
    """What past runs must have in common; `params` in their normal form. Where each job describes its own work, only
    jobs of the very same description say anything of each other: else one could be described so that the others are
    forecast wrongly."""
    name = kernel.spec.name
    return f"{name}:{digests.of_params(params).hex()[:32]}" if kernel.spec.open else name


def plan_of(kernel_name: str, params: Mapping[str, ParamValue], metas: Mapping[str, ArrayMeta]) -> Plan:
    """Raises InvalidInput that names the first field that is wrong, and the remedy."""
    try:
        kernel = get(kernel_name)
    except UnknownKernel as problem:
        raise InvalidInput("kernel", str(problem), "Use one of them: GET /kernels describes each") from problem
    for name, meta in metas.items():
        _check_form(name, meta)
    for wrong in kernel.check(metas, params):
        raise InvalidInput(wrong.field, f"{wrong.field} {wrong.problem}", wrong.remedy)
    normal = kernel.normalise(params)
    return Plan(
        kernel=kernel,
        metas=dict(metas),
        params=normal,
        outputs=kernel.output_metas(metas, normal),
        units=kernel.units(metas, normal),
    )


def _check_form(name: str, meta: ArrayMeta) -> None:
    try:
        meta.check()
    except Malformed as problem:
        raise InvalidInput(f"inputs.{name}.meta", str(problem), "Send a dtype and shape within the limits") from problem


@dataclass(frozen=True, slots=True)
class Asked:
    """What a job still asks, for whom, at what price, and until when; `of` any number of its units."""

    plan: Plan
    limits: Need
    input_bytes: int

    def of(self, units: int) -> Need:
        work = self.plan.need(units)
        return dataclasses.replace(
            self.limits, flops=work.flops, bytes_moved=work.bytes_moved, moved_bytes=work.moved_bytes
        )


async def of_job(tx: Tx, job: Job, hold_free_qu: int, now_ms: int, fits: Fits) -> Asked:
    """`hold_free_qu`: what is left of the hold beside what open attempts may still cost. `fits`: this round's."""
    inputs = await JobInput.filter(job_id=job.id).using_db(tx)
    plan = plan_of(job.kernel, job.params, {one.name: msgspec.convert(one.meta, ArrayMeta) for one in inputs})
    history = await learned.once(tx, plan.subject, fits, now_ms=now_ms)
    need = dataclasses.replace(plan.need(), history=history)
    if job.rental_id is not None:
        # It cannot go elsewhere, and is paid for by its time.
        left_ms = max(0, job.deadline_ms - now_ms)
        return Asked(plan, dataclasses.replace(need, time_left_ms=left_ms), sum(one.size_bytes for one in inputs))
    wrong = Attempt.filter(job_id=job.id, state=AttemptState.REJECTED.value).using_db(tx)
    limits = dataclasses.replace(
        need,
        hold_left_qu=hold_free_qu,
        rate_qu_per_h_max=job.rate_max,
        provider=job.provider,
        region=job.region,
        wanted=await wanted.now(tx, job.wanted, now_ms=now_ms),
        time_left_ms=max(0, job.deadline_ms - now_ms),
        excluded=frozenset([row.peer_id for row in await wrong.only("peer_id")]),
    )
    return Asked(plan, limits, sum(one.size_bytes for one in inputs))
