# SPDX-License-Identifier: Apache-2.0
"""What the conformance suite asks of a kernel's module."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qubix_kernels import Kernel, Verdict, get
from qubix_kernels.kernel import metas_of

Array = NDArray[Any]
Outputs = dict[str, Array]
Rng = np.random.Generator


@dataclass(frozen=True)
class Job:
    """One job of a kernel, with its inputs and complete parameters."""

    kernel: Kernel
    inputs: Mapping[str, Array]
    params: Mapping[str, Any]

    @classmethod
    def of(cls, kernel: str, inputs: Mapping[str, Array] | None = None, **params: object) -> "Job":
        known, given = get(kernel), dict(inputs or {})
        assert known.check(metas_of(given), params) == (), "a job of the suite must have its right form"
        return cls(known, given, known.normalise(params))

    @property
    def units(self) -> int:
        return self.kernel.units(metas_of(self.inputs), self.params)

    @property
    def backends(self) -> tuple[str, ...]:
        return self.kernel.runs_on(metas_of(self.inputs), self.params)

    def run(self) -> Outputs:
        return self.kernel.run("cpu", self.inputs, self.params)

    def part(self, start: int, stop: int) -> "Job":
        return Job(self.kernel, *self.kernel.subproblem(self.inputs, self.params, start, stop))

    def verdict(self, outputs: Outputs, seed: int = 0) -> Verdict:
        return self.kernel.verify(self.inputs, self.params, outputs, np.random.default_rng(seed))


Cheat = Callable[[Job, Outputs, Rng], Outputs]
"""What a liar delivers, of the honest outputs (its own to change)."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """`edges` are small jobs of odd sizes, with what bad scaling there is; the simulator runs them too, so of a few
    hundred threads. `random` makes any honest job. `wrong` compares outputs with a float64 reference of its own, and is
    "" when they agree. `elsewhere` are other honest ways to the same outputs.

    `trial` is a job on which the check draws a sample, `complete` one of which it sees everything: `cheats` are tried
    on the first, and `small_cheats`, of a single element or row, on the second.
    """

    edges: Sequence[Callable[[], Job]]
    random: Callable[[Rng], Job]
    wrong: Callable[[Job, Outputs], str]
    elsewhere: Sequence[Callable[[Job], Outputs]]
    trial: Callable[[], Job]
    complete: Callable[[], Job]
    cheats: Mapping[str, Cheat]
    small_cheats: Mapping[str, Cheat]
    exact: frozenset[str] = frozenset()
    """Back ends whose chunks are bit for bit those of the whole."""
    simulated: bool = True
    """Whether the CUDA back end runs in Numba's simulator."""
    not_harmful: Mapping[str, str] = field(default_factory=dict)
    """Cheats of every kernel that change nothing here, and why."""
