# SPDX-License-Identifier: Apache-2.0
"""Whether suspicious rows of a product are within what honest rounding gives.

The tolerance is measured, not modelled: on the row's own numbers, sums in the claimed precision are played through in
the orders that real back ends use (forwards, backwards, in lanes), and the error each builds up on its way is
compared with a wider type. Random signs give a tight tolerance, one huge term or equal terms a loose one, as they
do on real machines.
"""

from typing import Any, Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qubix_kernels.matmul.norms import Vector, row_blocks
from qubix_protocol.arrays import Array

FLOOR: Final = 4.0
MARGIN: Final = 8.0
_LANES: Final = 16
_COLUMNS: Final = 128
_ENTRIES: Final = 1 << 22

Wide = NDArray[Any]


def worst_error(
    a: Array, b: Array, c: Array, chosen: NDArray[np.intp], rows: Vector, columns: Vector, rng: Generator
) -> tuple[int, float]:
    """The row that is worst, and its largest error over the tolerance. `rows` are the norms of the chosen rows."""
    left = a[chosen]
    error = _errors(left, b, c[chosen])
    limits, k = np.finfo(a.dtype), b.shape[0]
    unit, lost = float(limits.eps) / 2, k * float(limits.tiny)
    worst_row, worst = int(chosen[0]), 0.0
    for i, row in enumerate(chosen):
        size = rows[i] * columns
        tolerance = FLOOR * unit * size + lost
        if np.any(error[i] > tolerance):
            gain = min(MARGIN * _rounding(left[i], b, error[i], size, lost, rng), 1.01 * (k + 2) * unit)
            np.maximum(tolerance, gain * size + lost, out=tolerance)
        # Both are zero in a column or row of zeros.
        ratio = float(np.divide(error[i], tolerance, where=tolerance > 0, out=np.zeros_like(size)).max())
        if not ratio <= worst:
            worst_row, worst = int(row), ratio
    return worst_row, worst


def wider(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64) if dtype == np.float32 else np.dtype(np.longdouble)


def _errors(left: Array, b: Array, claimed: Array) -> Vector:
    wide = wider(b.dtype)
    exact = np.zeros(claimed.shape, dtype=wide)
    tall = left.astype(wide)
    for block in row_blocks(b):
        exact += tall[:, block] @ b[block].astype(wide)
    error: Vector = np.abs(claimed - exact).astype(np.float64)
    return error


def _rounding(row: Array, b: Array, error: Vector, size: Vector, lost: float, rng: Generator) -> float:
    """The largest error that summing builds up in some columns, in units of `size`."""
    columns = _chosen_columns(error, size, b.shape[0], rng)
    columns = columns[size[columns] > lost]
    if not columns.size:
        return 0.0
    right = b[:, columns]
    narrow, exact = row[:, None] * right, row.astype(wider(b.dtype))[:, None] * right
    drift = np.maximum(_drift(narrow, exact), _drift(narrow[::-1], exact[::-1]))
    drift = np.maximum(drift, _lane_drift(narrow, exact))
    return float((drift / size[columns]).max())


def _chosen_columns(error: Vector, size: Vector, k: int, rng: Generator) -> NDArray[np.intp]:
    """The most suspicious columns, and as many drawn at random; fewer where columns are long."""
    count = min(max(4, min(_COLUMNS, _ENTRIES // k)), len(size))
    relative = np.divide(error, size, where=size > 0, out=np.zeros_like(size))
    worst = np.argpartition(-relative, min(count // 4, len(size) - 1))[: count // 4 + 1]
    return np.unique(np.concatenate([worst, rng.choice(len(size), count, replace=False)]))


def _drift(narrow: Array, exact: Wide) -> Vector:
    """Per column, the largest error of any partial sum. Its final error alone could be small by luck."""
    return np.asarray(np.abs(np.cumsum(narrow, axis=0) - np.cumsum(exact, axis=0)).max(axis=0), dtype=np.float64)


def _lane_drift(narrow: Array, exact: Wide) -> Vector:
    lanes = range(min(_LANES, len(narrow)))
    return np.sum([_drift(narrow[lane::_LANES], exact[lane::_LANES]) for lane in lanes], axis=0)  # type: ignore[no-any-return]
