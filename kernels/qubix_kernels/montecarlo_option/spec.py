# SPDX-License-Identifier: Apache-2.0
"""The price of a European option by Monte Carlo, in lanes that anybody can replay. notes.md has the reasoning."""

import math
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
    Problem,
    Verdict,
    metas_of,
    no_backend,
)
from qubix_kernels.montecarlo_option.model import Option
from qubix_kernels.montecarlo_option.verify import lanes_sampled, verify
from qubix_protocol.arrays import Array, ArrayMeta

FLOPS: Final = 64.0
"""Of one path: the words, a normal number, an exponential, two sums. Integer operations count as others do."""
_CHECK_FLOPS: Final = 2 * FLOPS
_WORKSPACE_BYTES: Final = 16 * 1024 * 1024
_SPREAD_MAX: Final = 3.0
_LANES_MAX: Final = 2**32
_PATHS_MAX: Final = 2**14
_LARGE, _EXAMPLE_PATHS = 2048, 4096
"""From so many lanes on an example has the longest ones, or a card would hardly notice it."""

SPEC: Final = KernelSpec(
    name="montecarlo_option",
    version=1,
    title="Option price by Monte Carlo",
    doc="Discounted payoffs of a European option over random paths of the Black-Scholes model. A unit is a lane of "
    "paths, with the sum of its payoffs and of their squares; the price is sum(sums) / (lanes · paths_per_lane).",
    params=(
        ParamSpec(name="spot", kind="float", low=1e-3, high=1e6, doc="price of the underlying now"),
        ParamSpec(name="strike", kind="float", low=1e-3, high=1e6, doc="agreed price"),
        ParamSpec(name="rate", kind="float", default=0.0, low=-0.5, high=1, doc="interest a year, continuous"),
        ParamSpec(name="volatility", kind="float", low=1e-3, high=10, doc="standard deviation of a year's log return"),
        ParamSpec(name="maturity", kind="float", low=1e-4, high=50, doc="years to the end"),
        ParamSpec(name="kind", kind="str", default="call", choices=("call", "put"), doc="right to buy, or to sell"),
        ParamSpec(name="lanes", kind="int", low=1, high=2**24, doc="lanes to simulate"),
        ParamSpec(name="paths_per_lane", kind="int", default=4096, low=1, high=_PATHS_MAX, doc="paths in each lane"),
        ParamSpec(name="seed", kind="int", default=0, low=0, high=2**53 - 1, doc="of the random numbers"),
        ParamSpec(name="first_lane", kind="int", default=0, low=0, high=_LANES_MAX - 1, doc="lanes before these"),
    ),
    inputs=(),
    outputs=(
        ArraySpec(name="sums", dims=("lanes",), dtypes=("float32",), doc="of each lane's discounted payoffs"),
        ArraySpec(name="squares", dims=("lanes",), dtypes=("float32",), doc="of the squares of the same"),
    ),
    backends=("cpu", "cuda", "webgpu"),
)


class MonteCarloOption(Kernel):
    spec = SPEC

    def run(self, backend: str, inputs: Arrays, params: Params) -> dict[str, Array]:
        if backend == "cpu":
            from qubix_kernels.montecarlo_option.cpu import simulate
        elif backend == "cuda":
            from qubix_kernels.montecarlo_option.cuda import simulate
        elif backend == "webgpu":
            from qubix_kernels.montecarlo_option.webgpu import simulate
        else:
            raise no_backend(SPEC, backend)

        first, lanes, paths, seed = (int(params[name]) for name in ("first_lane", "lanes", "paths_per_lane", "seed"))
        sums, squares = simulate(Option.of(params), first, lanes, paths, seed)
        return {"sums": sums, "squares": squares}

    def warm_up(self, backend: str, metas: Metas, params: Params) -> None:
        if backend == "cuda":
            from qubix_kernels.montecarlo_option.cuda import warm_up_all

            warm_up_all()
        elif backend == "webgpu":
            from qubix_kernels.montecarlo_option.webgpu import warm_up_all

            warm_up_all()

    def verify(self, inputs: Arrays, params: Params, outputs: Arrays, rng: np.random.Generator) -> Verdict:
        problems = self.check_outputs(metas_of(inputs), params, outputs)
        if problems:
            return Verdict(accepted=False, reason="shape", detail=f"{problems[0].field} {problems[0].problem}")
        first, paths, seed = (int(params[name]) for name in ("first_lane", "paths_per_lane", "seed"))
        with np.errstate(all="ignore"):
            return verify(Option.of(params), first, paths, seed, outputs["sums"], outputs["squares"], rng)

    def cost(self, metas: Metas, params: Params, units: int) -> Cost:
        return Cost(FLOPS * units * float(params["paths_per_lane"]), 8.0 * units, 8 * units + _WORKSPACE_BYTES)

    def check_cost(self, metas: Metas, params: Params, units: int) -> Cost:
        replayed = _CHECK_FLOPS * lanes_sampled(units) * float(params["paths_per_lane"])
        return Cost(replayed + 8.0 * units, 24.0 * units, 24 * units + _WORKSPACE_BYTES)

    def output_metas(self, metas: Metas, params: Params) -> dict[str, ArrayMeta]:
        return {name: ArrayMeta("float32", (int(params["lanes"]),)) for name in ("sums", "squares")}

    def subproblem(self, inputs: Arrays, params: Params, start: int, stop: int) -> tuple[dict[str, Array], Params]:
        return {}, {**params, "first_lane": int(params["first_lane"]) + start, "lanes": stop - start}

    def example(self, rng: np.random.Generator, scale: int) -> tuple[dict[str, Array], dict[str, ParamValue]]:
        market = {"spot": 100.0, "strike": float(rng.uniform(80, 120)), "volatility": float(rng.uniform(0.1, 0.5))}
        terms = {"maturity": 1.0, "rate": 0.03, "seed": int(rng.integers(2**53))}
        paths = min(_EXAMPLE_PATHS, 16 * scale) if scale < _LARGE else _PATHS_MAX
        return {}, self.normalise({**market, **terms, "lanes": scale, "paths_per_lane": paths})

    def problems_of(self, metas: Metas, params: Params) -> tuple[Problem, ...]:
        spread = float(params["volatility"]) * math.sqrt(float(params["maturity"]))
        if spread > _SPREAD_MAX:
            remedy = f"volatility · √maturity may be {_SPREAD_MAX:g} at most"
            return (Problem("params.volatility", f"is {params['volatility']:g}", remedy),)
        first, lanes = int(params["first_lane"]), int(params["lanes"])
        if first + lanes > _LANES_MAX:
            return (Problem("params.first_lane", f"is {first}", "there are 2^32 lanes: begin earlier"),)
        return ()


KERNEL: Final = MonteCarloOption()
