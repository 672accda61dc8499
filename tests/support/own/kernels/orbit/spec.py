# SPDX-License-Identifier: Apache-2.0
"""Long orbits of the logistic map: chaotic, so that nothing but running it again tells whether a result is right."""

from typing import Final

import numpy as np

from qubix_kernels.kernel import (
    Arrays,
    ArraySpec,
    Cost,
    Kernel,
    KernelSpec,
    Metas,
    Params,
    ParamSpec,
    ParamValue,
    no_backend,
)
from qubix_protocol.arrays import Array, ArrayMeta

SPEC: Final = KernelSpec(
    name="orbit",
    version=1,
    title="Orbits of the logistic map",
    doc="For each x, what x -> r x (1 - x) gives after so many steps; a unit is an x.",
    params=(
        ParamSpec(name="steps", kind="int", low=1, high=10_000_000, doc="steps of the map"),
        ParamSpec(name="r", kind="float", low=0.0, high=4.0, default=3.9, doc="growth"),
    ),
    inputs=(ArraySpec(name="x", dims=("n",), dtypes=("float64",), doc="where orbits start, from 0 to 1"),),
    outputs=(ArraySpec(name="y", dims=("n",), dtypes=("float64",), doc="where they end"),),
    backends=("cpu",),
    verifier=False,
)


class Orbit(Kernel):
    spec = SPEC

    def run(self, backend: str, inputs: Arrays, params: Params) -> dict[str, Array]:
        if backend != "cpu":
            raise no_backend(SPEC, backend)
        r, y = float(params["r"]), inputs["x"].copy()
        for _ in range(int(params["steps"])):
            y = r * y * (1.0 - y)
        return {"y": y}

    def cost(self, metas: Metas, params: Params, units: int) -> Cost:
        return Cost(3.0 * units * int(params["steps"]), 16.0 * units * int(params["steps"]), 24 * units)

    def check_cost(self, metas: Metas, params: Params, units: int) -> Cost:
        return Cost(0.0, 8.0 * units, 8 * units)

    def output_metas(self, metas: Metas, params: Params) -> dict[str, ArrayMeta]:
        return {"y": ArrayMeta("float64", metas["x"].shape)}

    def subproblem(self, inputs: Arrays, params: Params, start: int, stop: int) -> tuple[dict[str, Array], Params]:
        return {"x": inputs["x"][start:stop]}, params

    def example(self, rng: np.random.Generator, scale: int) -> tuple[dict[str, Array], dict[str, ParamValue]]:
        return {"x": rng.random(scale)}, {"steps": 1_000, "r": 3.9}


KERNEL: Final = Orbit()
