# SPDX-License-Identifier: Apache-2.0
"""The kernels this SDK knows: what they take, what is wrong with a job, how its parts are joined."""

from collections.abc import Mapping, Sequence
from typing import Any

from qubix import models
from qubix.errors import BadUsage
from qubix.inputs import sort_out
from qubix.orders import Work
from qubix_kernels import Kernel, UnknownKernel, get
from qubix_protocol.arrays import Array, ArrayMeta
from qubix_protocol.messages import ParamValue


def work_of(kernel: str, given: Mapping[str, Any], forms: Mapping[str, ArrayMeta] | None = None) -> Work:
    """`given` sorted into arrays and parameters, and checked as a whole; `forms` are arrays known by form alone.

    Raises `BadUsage` naming the first thing that is wrong: the coordinator would refuse it too, after the upload.
    """
    known, forms = _known(kernel), forms or {}
    params = frozenset(spec.name for spec in known.spec.params)
    arrays = frozenset(spec.name for spec in known.spec.inputs)
    if known.spec.open:
        given, forms = models.prepared(given, forms)
        arrays = frozenset((*given, *forms)) - params
    sources, values = sort_out(kernel, arrays, params, given, frozenset(forms))
    problems = known.check({name: source.meta for name, source in sources.items()} | dict(forms), values)
    if problems:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise BadUsage(first.field, f"{first.field}: {first.problem}{more}", first.remedy)
    return Work(kernel=kernel, params=known.normalise(values), sources=sources, forms=forms)


def join(kernel: str, parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return _known(kernel).join(parts)


def own_names(kernel: str, params: Mapping[str, ParamValue]) -> dict[str, str]:
    """What the outputs are called by whoever submitted the job, where that is something else."""
    return _known(kernel).own_names(params)


def _known(kernel: str) -> Kernel:
    try:
        return get(kernel)
    except UnknownKernel as error:
        raise BadUsage("kernel", str(error), "Use one of these, or a newer QUBIX that knows it") from None
