# SPDX-License-Identifier: Apache-2.0
"""Euclidean norms of rows and columns, block by block, right for any finite scale.

A first try sums squares in the matrix's own precision, which is as fast as memory; where that over- or underflowed, a
second scales by a power of two and sums in float64. Both are exact enough for bounds (a relative 1e-3), and a NaN or an
infinity in the matrix always gives a norm that is not finite.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qubix_protocol.arrays import Array

Vector = NDArray[np.float64]

BLOCK_ENTRIES: Final = 1 << 20
_NORM_MAX: Final = float(np.finfo(np.float64).max) / 2.0**40
_SAFE_SQUARES: Final = {"float32": (1e-24, 1e36), "float64": (1e-270, 1e300)}


def row_blocks(matrix: Array, entries: int = BLOCK_ENTRIES) -> Iterator[slice]:
    rows = max(1, entries // matrix.shape[1])
    for start in range(0, matrix.shape[0], rows):
        yield slice(start, start + rows)


def row_norms(matrix: Array) -> Vector:
    squares = np.empty(matrix.shape[0])
    for block in row_blocks(matrix):
        squares[block] = np.einsum("ij,ij->i", matrix[block], matrix[block])
    return np.sqrt(squares) if safe(squares, matrix) else _scaled_row_norms(matrix)


def column_norms(matrix: Array) -> Vector:
    squares = np.zeros(matrix.shape[1])
    for block in row_blocks(matrix):
        squares += np.einsum("ij,ij->j", matrix[block], matrix[block])
    return np.sqrt(squares) if safe(squares, matrix) else _scaled_column_norms(matrix)


def summed_in(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What products of such numbers are summed in. Those of two float16 are exact in float32."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def widened(matrix: Array) -> Array:
    """In the type that its products are summed in; itself where it is in that already."""
    return matrix.astype(summed_in(matrix.dtype), copy=False)


def safe(squares: Vector, matrix: Array) -> bool:
    """Whether sums of squares in the matrix's own precision lost nothing; NaN is not safe."""
    low, high = _SAFE_SQUARES[matrix.dtype.name]
    return bool(squares.min() >= low and squares.max() <= high)


def _scaled_row_norms(matrix: Array) -> Vector:
    norms = np.empty(matrix.shape[0])
    for block in row_blocks(matrix):
        wide = matrix[block].astype(np.float64)
        exponent = np.frexp(np.abs(wide).max(axis=1))[1]
        np.ldexp(wide, -exponent[:, None], out=wide)
        norms[block] = np.ldexp(np.sqrt(np.einsum("ij,ij->i", wide, wide)), exponent)
    return norms


def _scaled_column_norms(matrix: Array) -> Vector:
    largest = np.zeros(matrix.shape[1])
    for block in row_blocks(matrix):
        np.maximum(largest, np.abs(matrix[block]).max(axis=0), out=largest)
    exponent = np.frexp(largest)[1]
    squares = np.zeros(matrix.shape[1])
    for block in row_blocks(matrix):
        wide = np.ldexp(matrix[block].astype(np.float64), -exponent)
        squares += np.einsum("ij,ij->j", wide, wide)
    return np.ldexp(np.sqrt(squares), exponent)


def refusal(rows: Vector, columns: Vector, dtype: np.dtype[Any]) -> str:
    """Why `a` (with these norms of rows) times `b` (of columns) is refused; "" when it is not.

    |c_ij| and all partial sums in any order are at most |a_i| |b_j|, so what passes here cannot overflow.
    """
    for name, norms in (("a", rows), ("b", columns)):
        if not norms.max() <= _NORM_MAX:
            return f"{name} contains NaN, infinity or numbers too large; give finite numbers only"
    if not rows.max() * columns.max() <= float(np.finfo(dtype).max) / 16:
        return f"products of a and b could overflow {dtype}; scale them down, or use float64"
    return ""
