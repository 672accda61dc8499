# SPDX-License-Identifier: Apache-2.0
"""The catalogue: one folder per kernel, found by looking. `get(name)` loads one, `names()` lists all."""

import functools
import importlib
from pathlib import Path

from qubix_kernels.kernel import ArraySpec, Cost, Kernel, KernelSpec, ParamSpec, Problem, UnknownKernel, Verdict

__all__ = [
    "ArraySpec",
    "Cost",
    "Kernel",
    "KernelSpec",
    "ParamSpec",
    "Problem",
    "UnknownKernel",
    "Verdict",
    "get",
    "names",
]


@functools.cache
def names() -> tuple[str, ...]:
    return tuple(sorted(spec.parent.name for folder in __path__ for spec in Path(folder).glob("*/spec.py")))


@functools.cache
def get(name: str) -> Kernel:
    """Raises `UnknownKernel`, which names the ones there are."""
    if name not in names():
        raise UnknownKernel(name, names())
    kernel: Kernel = importlib.import_module(f"{__name__}.{name}.spec").KERNEL
    return kernel
