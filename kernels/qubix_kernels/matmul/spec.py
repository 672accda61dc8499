# SPDX-License-Identifier: Apache-2.0
"""Matrix product c = a @ b, checked by Freivalds' method. notes.md has the reasoning behind the bound."""

from typing import Final

import numpy as np

from qubix_kernels.kernel import (
    Arrays,
    ArraySpec,
    BadInput,
    Cost,
    Kernel,
    KernelSpec,
    Metas,
    Params,
    ParamValue,
    Problem,
    Verdict,
    metas_of,
    no_backend,
)
from qubix_kernels.matmul.norms import summed_in, widened
from qubix_kernels.matmul.verify import VECTORS, verify
from qubix_protocol.arrays import Array, ArrayMeta

_WORKSPACE_BYTES: Final = 64 * 1024 * 1024
_FLOATS: Final = ("float16", "float32", "float64")

NO_FLOAT64: Final = "float64 cannot be computed through WebGPU: use float32, or another back end"

SPEC: Final = KernelSpec(
    name="matmul",
    version=1,
    title="Matrix product",
    doc="c = a @ b, summed in the precision of the inputs, or in float32 where they are float16, in any order. A unit "
    "is a row of c. NaN, infinity and products that could overflow are refused.",
    inputs=(
        ArraySpec(name="a", dims=("m", "k"), dtypes=_FLOATS, doc="left matrix, finite numbers", size_max=2**18),
        ArraySpec(name="b", dims=("k", "n"), dtypes=_FLOATS, doc="right matrix, of a's dtype", size_max=2**18),
    ),
    outputs=(
        ArraySpec(name="c", dims=("m", "n"), dtypes=("float32", "float64"), doc="the product, in the type of its sums"),
    ),
    backends=("cpu", "cuda", "webgpu"),
)


class Matmul(Kernel):
    spec = SPEC

    def run(self, backend: str, inputs: Arrays, params: Params) -> dict[str, Array]:
        if said := self.beyond(backend, metas_of(inputs), params):
            raise BadInput(said)
        if backend == "cpu":
            from qubix_kernels.matmul.cpu import product
        elif backend == "cuda":
            from qubix_kernels.matmul.cuda import product
        elif backend == "webgpu":
            from qubix_kernels.matmul.webgpu import product
        else:
            raise no_backend(SPEC, backend)
        return {"c": product(inputs["a"], inputs["b"])}

    def warm_up(self, backend: str, metas: Metas, params: Params) -> None:
        if backend == "cuda":
            from qubix_kernels.matmul.cuda import warm_up_for

            warm_up_for(metas["a"].dtype)
        elif backend == "webgpu":
            from qubix_kernels.matmul.webgpu import warm_up_all

            warm_up_all()

    def beyond(self, backend: str, metas: Metas, params: Params) -> str:
        wide = any(meta.dtype == "float64" for meta in metas.values())
        return NO_FLOAT64 if wide and backend == "webgpu" else ""

    def verify(self, inputs: Arrays, params: Params, outputs: Arrays, rng: np.random.Generator) -> Verdict:
        problems = self.check_outputs(metas_of(inputs), params, outputs)
        if problems:
            return Verdict(accepted=False, reason="shape", detail=f"{problems[0].field} {problems[0].problem}")
        with np.errstate(all="ignore"):
            return verify(widened(inputs["a"]), widened(inputs["b"]), outputs["c"], rng)

    def cost(self, metas: Metas, params: Params, units: int) -> Cost:
        (k, n), item, wide = metas["b"].shape, *_items(metas)
        entries = units * k + k * n
        moved = float(item) * entries + wide * units * n
        return Cost(2.0 * units * k * n, moved, int(moved) + _copies(entries, item, wide))

    def check_cost(self, metas: Metas, params: Params, units: int) -> Cost:
        (k, n), item, wide = metas["b"].shape, *_items(metas)
        given, claimed = units * k + k * n, units * n
        moved = float(item) * 2 * given + wide * claimed  # a and b are read once more, for their norms
        thin = 8 * VECTORS * (2 * units + k + 3 * n)
        memory = item * given + _copies(given, item, wide) + wide * claimed + thin + _WORKSPACE_BYTES
        return Cost(2.0 * (VECTORS * (given + claimed) + given), moved, memory)

    def output_metas(self, metas: Metas, params: Params) -> dict[str, ArrayMeta]:
        dtype = summed_in(np.dtype(metas["a"].dtype)).name
        return {"c": ArrayMeta(dtype, (metas["a"].shape[0], metas["b"].shape[1]))}

    def subproblem(self, inputs: Arrays, params: Params, start: int, stop: int) -> tuple[dict[str, Array], Params]:
        return {"a": inputs["a"][start:stop], "b": inputs["b"]}, params

    def example(self, rng: np.random.Generator, scale: int) -> tuple[dict[str, Array], dict[str, ParamValue]]:
        a, b = (rng.standard_normal((scale, scale), dtype=np.float32) for _ in range(2))
        return {"a": a, "b": b}, {}

    def problems_of(self, metas: Metas, params: Params) -> tuple[Problem, ...]:
        if metas["a"].dtype == metas["b"].dtype:
            return ()
        remedy = f"convert it to {metas['a'].dtype}, the dtype of a"
        return (Problem("inputs.b.dtype", f"is {metas['b'].dtype}", remedy),)


def _items(metas: Metas) -> tuple[int, int]:
    """Bytes of a number of the inputs, and of the product."""
    dtype = np.dtype(metas["a"].dtype)
    return dtype.itemsize, summed_in(dtype).itemsize


def _copies(entries: int, item: int, wide: int) -> int:
    """Bytes that widening the inputs takes."""
    return wide * entries if wide > item else 0


KERNEL: Final = Matmul()
