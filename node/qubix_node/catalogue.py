# SPDX-License-Identifier: Apache-2.0
"""What the node knows of kernels: their specifications, never their code (that runs in workers)."""

import functools
from collections.abc import Mapping

from qubix_kernels import get, names
from qubix_protocol.messages import Assign

_OVERHEAD_BYTES = 4096
"""Of one chunk's file beside its arrays."""


@functools.cache
def kernels() -> Mapping[str, tuple[int, tuple[str, ...]]]:
    """Name → (version, back ends)."""
    return {name: (get(name).spec.version, get(name).spec.backends) for name in names()}


def cuda_backends() -> tuple[str, ...]:
    """What a card can be offered with: nothing as long as no kernel has a CUDA back end."""
    return ("cuda",) if any("cuda" in backends for _, backends in kernels().values()) else ()


def webgpu_backends() -> tuple[str, ...]:
    """Likewise, a card of others than NVIDIA."""
    return ("webgpu",) if any("webgpu" in backends for _, backends in kernels().values()) else ()


def problems(assign: Assign) -> str:
    """Why the kernel cannot run this, on the back end that is asked for; "" when it can. Judged by the forms alone."""
    kernel, metas = get(assign.kernel), {ref.name: ref.meta for ref in assign.inputs}
    found = kernel.check(metas, assign.params)
    if found:
        return f"{found[0].field} {found[0].problem}"
    return kernel.beyond(assign.backend, metas, kernel.normalise(assign.params))


def disk_bytes(assign: Assign) -> int:
    """The most that this attempt has on disk at a time: its inputs and all its outputs.

    For a job that the kernel would refuse, the inputs alone.
    """
    inputs = sum(ref.size_bytes for ref in assign.inputs)
    if assign.kernel not in kernels() or problems(assign):
        return inputs
    metas = get(assign.kernel).output_metas({ref.name: ref.meta for ref in assign.inputs}, assign.params)
    share = sum(part.units for part in assign.ranges) / max(1, assign.units_total)
    return inputs + int(share * sum(meta.nbytes for meta in metas.values())) + _OVERHEAD_BYTES * len(assign.ranges)


def memory_bytes(assign: Assign) -> int:
    """What the kernel needs at once for the first chunk: the least with which it can begin. 0 for a job that the
    kernel would refuse."""
    if assign.kernel not in kernels() or problems(assign):
        return 0
    units = max(1, min(assign.chunk_units, max(part.units for part in assign.ranges)))
    return get(assign.kernel).cost({ref.name: ref.meta for ref in assign.inputs}, assign.params, units).memory_bytes
