# SPDX-License-Identifier: Apache-2.0
"""Matrix product c = a @ b, checked by Freivalds' method. notes.md has the reasoning behind the bound."""

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
    ParamValue,
    Problem,
    Verdict,
    metas_of,
    no_backend,
)
from qubix_protocol.arrays import Array, ArrayMeta

VECTORS: Final = 10
"""Freivalds vectors: two errors that cancel each other in one row are missed with probability 2^-10."""
_NORM_VECTORS: Final = 4
_ROWS_MAX: Final = 64
"""Suspicious rows that are recomputed; when there are more, this many are drawn from them."""
_BLOCK_BYTES: Final = 64 * 1024 * 1024

_FLOATS: Final = ("float32", "float64")

SPEC: Final = KernelSpec(
    name="matmul",
    version=1,
    title="Matrix product",
    doc="c = a @ b in the precision of the inputs. A unit is a row of c.",
    inputs=(
        ArraySpec(name="a", dims=("m", "k"), dtypes=_FLOATS, doc="left matrix, finite numbers", size_max=2**20),
        ArraySpec(name="b", dims=("k", "n"), dtypes=_FLOATS, doc="right matrix, of a's dtype", size_max=2**20),
    ),
    outputs=(ArraySpec(name="c", dims=("m", "n"), dtypes=("=a",), doc="the product"),),
    backends=("cpu",),
)


class Matmul(Kernel):
    spec = SPEC

    def run(self, backend: str, inputs: Arrays, params: Params) -> dict[str, Array]:
        if backend != "cpu":
            raise no_backend(SPEC, backend)
        from qubix_kernels.matmul import cpu

        return {"c": cpu.product(inputs["a"], inputs["b"])}

    def verify(self, inputs: Arrays, params: Params, outputs: Arrays, rng: np.random.Generator) -> Verdict:
        problems = self.check_outputs(metas_of(inputs), params, outputs)
        if problems:
            return Verdict(accepted=False, reason="shape", detail=f"{problems[0].field} {problems[0].problem}")
        with np.errstate(all="ignore"):
            return _judge(inputs["a"], inputs["b"], outputs["c"], rng)

    def cost(self, metas: Metas, params: Params, units: int) -> Cost:
        k, n, item = *metas["b"].shape, np.dtype(metas["a"].dtype).itemsize
        moved = float(item) * (units * k + k * n + units * n)
        return Cost(2.0 * units * k * n, moved, int(moved))

    def check_cost(self, metas: Metas, params: Params, units: int) -> Cost:
        k, n, item = *metas["b"].shape, np.dtype(metas["a"].dtype).itemsize
        wide = VECTORS + _NORM_VECTORS
        moved = float(item) * (units * k + 2 * k * n + units * n)
        return Cost(2.0 * wide * (units * k + k * n + units * n), moved, int(moved))

    def output_metas(self, metas: Metas, params: Params) -> dict[str, ArrayMeta]:
        return {"c": ArrayMeta(metas["a"].dtype, (metas["a"].shape[0], metas["b"].shape[1]))}

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


def _judge(a: Array, b: Array, c: Array, rng: np.random.Generator) -> Verdict:
    """Rows whose residual is not within its bound are suspicious; recomputing them in float64 decides."""
    ratio = _residuals(a, b, c, rng)
    worst = float(np.max(ratio, initial=0.0))
    suspects = np.flatnonzero(~(ratio <= 1.0))  # a NaN is suspicious, too
    measured = {"worst_ratio": worst, "suspicious_rows": float(len(suspects))}
    if len(suspects) == 0:
        return Verdict(accepted=True, measured=measured)
    rows = suspects if len(suspects) <= _ROWS_MAX else rng.choice(suspects, _ROWS_MAX, replace=False)
    for row in rows:
        wrong = _wrong_in_row(a[row], b, c[row])
        if wrong:
            return Verdict(accepted=False, reason="residual", detail=f"row {row}: {wrong}", measured=measured)
    return Verdict(accepted=True, detail=f"{len(rows)} rows were recomputed in float64", measured=measured)


def _residuals(a: Array, b: Array, c: Array, rng: np.random.Generator) -> Array:
    """For each row of c, the worst |c x - a (b x)| over the vectors x, in units of its bound. Shape (m,), float64.

    In the inputs' own precision: each matrix is read once, which is what a check costs. When that overflows, in
    float64.
    """
    ratio = _residuals_in(a, b, c, rng, a.dtype.type)
    if np.isfinite(ratio).all() or a.dtype == np.float64:
        return ratio
    return _residuals_in(a, b, c, rng, np.float64)


def _residuals_in(a: Array, b: Array, c: Array, rng: np.random.Generator, kind: type[np.floating]) -> Array:
    (k, n), eps = b.shape, float(np.finfo(a.dtype).eps)
    scale = _column_scales(_product(_signs(rng, (_NORM_VECTORS, k), kind), b, kind))
    x = (_signs(rng, (n, VECTORS), np.float64) * scale[:, None]).astype(kind)
    right = np.concatenate([_product(b, x, kind), _signs(rng, (k, _NORM_VECTORS), kind)], axis=1)
    found = _product(a, right, kind).astype(np.float64)
    claimed = _product(c, x, kind).astype(np.float64)
    row_norm, claimed_norm = _rms(found[:, VECTORS:]), _rms(claimed)
    bound = 4 * eps * np.sqrt(k) * (row_norm * np.sqrt(n / k) + claimed_norm) + n * float(np.finfo(a.dtype).tiny) * 4
    residual: Array = np.abs(claimed - found[:, :VECTORS]).max(axis=1) / bound
    return residual


def _signs(rng: np.random.Generator, shape: tuple[int, int], kind: type[np.floating]) -> Array:
    return (rng.integers(0, 2, size=shape, dtype=np.int8) * 2 - 1).astype(kind)


def _rms(values: Array) -> Array:
    """Over the last axis: with ±1 vectors, an estimate of the 2-norm of what they were multiplied with."""
    found: Array = np.sqrt(np.mean(np.square(values.astype(np.float64)), axis=-1))
    return found


def _column_scales(sketch: Array) -> Array:
    """Powers of two (exact in any precision) that bring each column of b to a norm of about one; 1 for a zero column.

    Without them one huge column hides zeros elsewhere (trust C2).
    """
    norm = _rms(sketch.T)
    usable = np.isfinite(norm) & (norm > 0)
    exponent = np.where(usable, -np.ceil(np.log2(np.where(usable, norm, 1.0))), 0.0)
    scales: Array = np.exp2(np.clip(exponent, -120, 120))
    return scales


def _product(left: Array, right: Array, kind: type[np.floating]) -> Array:
    """`left @ right` in `kind`; a large operand of another type is converted block by block."""
    if left.dtype == kind and right.dtype == kind:
        plain: Array = left @ right
        return plain
    if left.shape[0] <= right.shape[1]:
        return _product(right.T, left.T, kind).T
    step = max(1, _BLOCK_BYTES // max(1, left.shape[1] * 8))
    narrow = right.astype(kind)
    blocks = [left[i : i + step].astype(kind) @ narrow for i in range(0, left.shape[0], step)]
    return np.concatenate(blocks)


def _wrong_in_row(a_row: Array, b: Array, c_row: Array) -> str:
    """What is wrong with one row of c, by float64; "" when every element is as good as honest arithmetic gives."""
    eps, largest = float(np.finfo(c_row.dtype).eps), float(np.finfo(c_row.dtype).max)
    exact = _product(a_row[None, :], b, np.float64)[0]
    size = np.sqrt(np.square(a_row.astype(np.float64)).sum()) * _column_norms(b)
    allowed = 16 * eps * size + 4 * eps * np.sqrt(len(a_row)) * np.abs(exact) + float(np.finfo(c_row.dtype).tiny)
    off = np.abs(c_row.astype(np.float64) - exact)
    fine = (off <= allowed) | ((np.abs(exact) >= largest) & (c_row == np.sign(exact) * np.inf))
    if fine.all():
        return ""
    at = int(np.flatnonzero(~fine)[0])
    return f"c[{at}] is {c_row[at]:.6g}, it should be {exact[at]:.6g}"


def _column_norms(b: Array) -> Array:
    total = np.zeros(b.shape[1])
    step = max(1, _BLOCK_BYTES // max(1, b.shape[1] * 8))
    for i in range(0, b.shape[0], step):
        total += np.square(b[i : i + step].astype(np.float64)).sum(axis=0)
    found: Array = np.sqrt(total)
    return found


KERNEL: Final = Matmul()
