# SPDX-License-Identifier: Apache-2.0
"""Freivalds' check of a matrix product: `c x` beside `a (b x)` for random x; suspicious rows are then recomputed.

The screening alone decides "clean", and never "wrong": a row over its bound is only suspected. notes.md derives the
bound.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qubix_kernels.kernel import Verdict
from qubix_kernels.matmul.norms import Vector, column_norms, refusal, row_blocks, row_norms
from qubix_kernels.matmul.recompute import worst_error
from qubix_protocol.arrays import Array

VECTORS: Final = 10
"""Errors that cancel each other in one vector with probability 1/2 escape all of them with 1/1024."""
GAIN: Final = 4.0
WORST_ROWS: Final = 16
RANDOM_ROWS: Final = 8
_ORDER_BITS: Final = 10
"""Columns whose norms are within this many powers of two are of one order of magnitude."""
_UNEXCUSED: Final = 1 << 20
_Product = Callable[[Array, Vector], Vector]
_NARROW_COLUMNS: Final = 512
_NARROW_NORMS: Final = (1e-15, 1e15)


def verify(a: Array, b: Array, c: Array, rng: Generator) -> Verdict:
    rows, columns = row_norms(a), column_norms(b)
    refused = refusal(rows, columns, a.dtype)
    if refused:
        return _rejected("bad_input", refused)
    if _nonzero_where(c, columns == 0):
        return _rejected("residual", "a column of c is not zero where the column of b is")
    screen = _screened(a, b, c, rows, columns, rng)
    if not screen.suspects.size:
        return Verdict(accepted=True, measured={"residual_over_bound": screen.worst, "suspicious_rows": 0.0})
    return _recomputed(a, b, c, rows, columns, screen, rng)


@dataclass(frozen=True)
class _Screen:
    """`suspects` are row numbers, the worst first; `worst` is the largest residual over its bound."""

    suspects: NDArray[np.intp]
    worst: float


def _screened(a: Array, b: Array, c: Array, rows: Vector, columns: Vector, rng: Generator) -> _Screen:
    """Each group of columns by itself: a row is as suspicious as it is in its worst group."""
    ratio = np.zeros(len(rows))
    for group in _groups(rows, columns, b.shape[0], a.dtype):
        np.maximum(ratio, _ratios(a, b[:, group], c[:, group], rows, columns[group], rng), out=ratio)
    suspects = np.flatnonzero(ratio > 1)
    return _Screen(suspects[np.argsort(-ratio[suspects], kind="stable")], float(ratio.max()))


def _groups(rows: Vector, columns: Vector, k: int, dtype: np.dtype[Any]) -> list[Any]:
    """Indices of columns that can be screened together. What underflow may lose in one product is allowed for by the
    column's scale; where that is no longer small beside rounding, columns of other orders of magnitude would be
    excused with it, so those stand in groups of their own order."""
    limits, n = np.finfo(dtype), len(columns)
    least = float(np.min(rows, where=rows > 0, initial=np.inf))
    excused = (columns > 0) & (columns * (float(limits.eps) / 2 * np.sqrt(n) * least) < n * k * float(limits.tiny))
    if not excused.any():
        return [slice(None)]
    order = np.where(excused, np.frexp(columns)[1] // _ORDER_BITS, _UNEXCUSED)
    return [np.flatnonzero(order == one) for one in np.unique(order)]


def _ratios(a: Array, b: Array, c: Array, rows: Vector, columns: Vector, rng: Generator) -> Vector:
    """Per row, the residual over its bound, twice where rounding of the quick way itself looks suspicious."""
    scale = np.divide(
        1.0, np.maximum(columns, np.finfo(np.float64).tiny), where=columns > 0, out=np.zeros_like(columns)
    )
    x = np.where(rng.random((len(columns), VECTORS)) < 0.5, -scale[:, None], scale[:, None])
    if a.dtype == np.float32 and _all_narrow(rows) and _all_narrow(columns):
        x = x.astype(np.float32).astype(np.float64)
        ratio = _judged(a, b, c, x, rows, _narrow)
        if np.count_nonzero(ratio > 1) <= WORST_ROWS:
            return ratio
    return _judged(a, b, c, x, rows, _wide)


def _all_narrow(norms: Vector) -> bool:
    low, high = _NARROW_NORMS
    return bool(np.all((norms == 0) | ((norms >= low) & (norms <= high))))


def _narrow(matrix: Array, x: Vector) -> Vector:
    """`matrix @ x` for float32, in float32 within blocks of columns, added up in float64: as fast as memory."""
    thin, total = x.astype(np.float32), np.zeros((matrix.shape[0], x.shape[1]))
    for start in range(0, matrix.shape[1], _NARROW_COLUMNS):
        block = slice(start, start + _NARROW_COLUMNS)
        total += matrix[:, block] @ thin[block]
    return total


def _wide(matrix: Array, x: Vector) -> Vector:
    """`matrix @ x` in float64, converting a bounded block of rows at a time."""
    total = np.empty((matrix.shape[0], x.shape[1]))
    for block in row_blocks(matrix):
        total[block] = matrix[block].astype(np.float64, copy=False) @ x
    return total


def _judged(a: Array, b: Array, c: Array, x: Vector, rows: Vector, product: _Product) -> Vector:
    """Per row of c, the largest |c x - a (b x)| over the vectors, beside its bound. Only `<=` is clean: NaN is not."""
    expected = product(a, product(b, x))
    residual = np.abs(product(c, x) - expected).max(axis=1)
    bound = _bound(a, b, x, rows, expected)
    ratio = np.divide(residual, bound, where=bound > 0, out=np.where(residual == 0, 0.0, np.inf))
    return np.where(np.isnan(ratio), np.inf, ratio)


def _bound(a: Array, b: Array, x: Vector, rows: Vector, expected: Vector) -> Vector:
    """Per row: rounding grows with |a_i| sqrt(n) where signs are mixed and with sqrt(k) |c x| where they are not;
    underflow may lose `tiny` in each of k products of each column. In float64 the check rounds as much as the run."""
    (k, n), limits = b.shape, np.finfo(a.dtype)
    spread = np.sqrt(n) * rows + np.sqrt(k) * np.sqrt(np.mean(np.square(expected), axis=1))
    own = (np.sqrt(k) + np.sqrt(n)) * np.sqrt(n) * rows if a.dtype == np.float64 else 0.0
    lost = k * float(limits.tiny) * np.abs(x[:, 0]).sum()
    bound: Vector = float(limits.eps) / 2 * (GAIN * spread + own) + lost
    return bound


def _recomputed(
    a: Array, b: Array, c: Array, rows: Vector, columns: Vector, screen: _Screen, rng: Generator
) -> Verdict:
    """The worst suspects, and some of the others, computed anew in higher precision."""
    others = screen.suspects[WORST_ROWS:]
    drawn = rng.choice(others, min(RANDOM_ROWS, others.size), replace=False)
    chosen = np.concatenate([screen.suspects[:WORST_ROWS], drawn])
    measured = {"residual_over_bound": screen.worst, "suspicious_rows": float(screen.suspects.size)}
    if not np.isfinite(c[chosen]).all():
        return _rejected("non_finite", "c holds NaN or infinity, which finite inputs cannot give", **measured)
    row, ratio = worst_error(a, b, c, chosen, rows[chosen], columns, rng)
    measured |= {"recomputed_rows": float(chosen.size), "error_over_tolerance": ratio}
    if ratio <= 1:
        return Verdict(accepted=True, detail=f"{chosen.size} rows were recomputed", measured=measured)
    return _rejected(
        "residual", f"row {row} is {ratio:.3g} times farther from the product than rounding allows", **measured
    )


def _rejected(reason: str, detail: str, **measured: float) -> Verdict:
    return Verdict(accepted=False, reason=reason, detail=detail, measured=measured)


def _nonzero_where(c: Array, columns: NDArray[np.bool_]) -> bool:
    return bool(columns.any()) and any(np.any(c[block][:, columns] != 0) for block in row_blocks(c))
