# SPDX-License-Identifier: Apache-2.0
"""The CUDA back end: register-blocked tiles in double-buffered shared memory. notes.md has the arithmetic behind it.

Indices are masked (`& 31`) where that changes nothing: it shows the compiler that they are not negative, so it can
read four numbers at a time and keeps everything in registers. Numba's own checks for negative indices cost both.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from qubix_kernels.cuda import (
    ALIGNED,
    DeviceKernel,
    blocks_for,
    cuda,
    device,
    empty,
    fetch,
    float32,
    float64,
    multiprocessors,
    send,
    uint32,
    warm_up,
)
from qubix_kernels.kernel import BadInput
from qubix_kernels.matmul.norms import Vector, column_norms, refusal, row_norms, safe, summed_in
from qubix_kernels.resident import Resident
from qubix_protocol.arrays import Array

_DEPTH: Final = 8
"""Columns of `a` that a step multiplies: one 32-byte sector of each row, in float32."""
_ACROSS, _DOWN = 32, 4
STRIPES: Final = 64


def _tiled(number: Any, tile: int, each: int) -> Callable[..., None]:
    """c = a @ b by square tiles: each thread sums `each` × `each` elements of c, in the type `number`.

    A thread's elements lie in quads that are `tile / quads` apart, so that neighbours read neighbouring quads. Outside
    the matrices, rows and columns are read at the edge (and their sums dropped), and `a` counts as zero beyond its
    last column, which is enough since b is finite.
    """
    side = tile // each
    threads, quads, apart = side * side, each // 4, 4 * side
    loads, row_step, line_step = tile * _DEPTH // threads, threads // _DEPTH, threads // tile
    left_shape = (2, _DEPTH, tile + 4)  # 4 more: the stores of a warp meet no bank twice
    right_shape = (2, _DEPTH, tile)
    sums_shape, edge_shape = (each, each), (2, each)

    def product(a: Any, b: Any, c: Any) -> None:
        left = cuda.shared.array(left_shape, number, ALIGNED)
        right = cuda.shared.array(right_shape, number, ALIGNED)
        sums = cuda.local.array(sums_shape, number)
        rows = cuda.local.array(edge_shape, number)
        columns = cuda.local.array(edge_shape, number)
        next_a = cuda.local.array(loads, number)
        next_b = cuda.local.array(loads, number)
        t = cuda.threadIdx.x
        own_row, own_column = (t // side & side - 1) * 4, (t & side - 1) * 4
        first_row, first_column = cuda.blockIdx.y * tile, cuda.blockIdx.x * tile
        m, n, last = c.shape[0], c.shape[1], a.shape[1] - 1
        a_depth, a_row = t & _DEPTH - 1, t // _DEPTH & tile - 1
        b_depth, b_across = t // tile & _DEPTH - 1, t & tile - 1
        b_column = uint32(min(first_column + b_across, n - 1))
        for i in range(each):
            for j in range(each):
                sums[i, j] = number(0)

        for i in range(loads):
            row = min(first_row + a_row + i * row_step, m - 1)
            left[0, a_depth, a_row + i * row_step] = number(a[row, a_depth]) if a_depth <= last else number(0)
            right[0, b_depth + i * line_step, b_across] = number(b[min(b_depth + i * line_step, last), b_column])
        cuda.syncthreads()

        for step in range(1, last // _DEPTH + 2):
            at, spare = step * _DEPTH, step & 1
            now = spare ^ 1
            a_column = uint32(at + a_depth)
            for i in range(loads):
                row = uint32(min(first_row + a_row + i * row_step, m - 1))
                line = uint32(min(at + b_depth + i * line_step, last))
                next_a[i] = number(a[row, a_column]) if at + a_depth <= last else number(0)
                next_b[i] = number(b[line, b_column])
            for k in range(0, _DEPTH, 2):
                deep = k & _DEPTH - 2
                for q in range(quads):
                    for i in range(4):
                        rows[0, q * 4 + i] = left[now, deep, q * apart + own_row + i]
                        columns[0, q * 4 + i] = right[now, deep, q * apart + own_column + i]
                        rows[1, q * 4 + i] = left[now, deep + 1, q * apart + own_row + i]
                        columns[1, q * 4 + i] = right[now, deep + 1, q * apart + own_column + i]
                for i in range(each):
                    for j in range(each):
                        sums[i, j] += rows[0, i] * columns[0, j]
                        sums[i, j] += rows[1, i] * columns[1, j]
            for i in range(loads):
                left[spare, a_depth, a_row + i * row_step] = next_a[i]
                right[spare, b_depth + i * line_step, b_across] = next_b[i]
            cuda.syncthreads()

        for i in range(each):
            row = first_row + i // 4 * apart + own_row + i % 4
            if row < m:
                for j in range(each):
                    column = first_column + j // 4 * apart + own_column + j % 4
                    if column < n:
                        c[row, column] = sums[i, j]

    return product


def _row_squares(matrix: Any, squares: Any) -> None:
    """The sum of squares of each row, in float64, in which those of float32 neither over- nor underflow."""
    parts = cuda.shared.array((_DOWN, _ACROSS), float64)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    row = cuda.blockIdx.x * _DOWN + y
    total = float64(0)
    if row < matrix.shape[0]:
        for column in range(x, matrix.shape[1], _ACROSS):
            value = float64(matrix[uint32(row), uint32(column)])
            total += value * value
    parts[y, x] = total
    cuda.syncthreads()
    step = _ACROSS // 2
    while step > 0:
        if x < step:
            parts[y, x] += parts[y, x + step]
        cuda.syncthreads()
        step //= 2
    if x == 0 and row < matrix.shape[0]:
        squares[row] = parts[y, 0]


def _column_squares(matrix: Any, squares: Any) -> None:
    """Of each column and stripe of rows: the row y of `squares` belongs to the blocks with that y."""
    parts = cuda.shared.array((_DOWN, _ACROSS), float64)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    column = cuda.blockIdx.x * _ACROSS + x
    total = float64(0)
    if column < matrix.shape[1]:
        for row in range(cuda.blockIdx.y * _DOWN + y, matrix.shape[0], _DOWN * cuda.gridDim.y):
            value = float64(matrix[uint32(row), uint32(column)])
            total += value * value
    parts[y, x] = total
    cuda.syncthreads()
    if y == 0 and column < matrix.shape[1]:
        for other in range(1, _DOWN):
            total += parts[other, x]
        squares[cuda.blockIdx.y, column] = total


def _product(dtype: str, tile: int, each: int, blocks_per_sm: int) -> DeviceKernel:
    sums = summed_in(np.dtype(dtype)).name
    number = float64 if sums == "float64" else float32
    return DeviceKernel(
        name=f"product_{dtype}_{tile}",
        function=_tiled(number, tile, each),
        signature=f"void({dtype}[:, ::1], {dtype}[:, ::1], {sums}[:, ::1])",
        block=((tile // each) ** 2,),
        blocks_per_sm=blocks_per_sm,
        registers_max=128,
    )


def _squares(function: Callable[..., None], dtype: str, result: str) -> DeviceKernel:
    return DeviceKernel(
        name=f"{function.__name__.strip('_')}_{dtype}",
        function=function,
        signature=f"void({dtype}[:, ::1], float64{result})",
        block=(_ACROSS, _DOWN),
        blocks_per_sm=8,
        registers_max=64,
    )


_LARGE: Final = {"float16": 128, "float32": 128, "float64": 64}
_SMALL: Final = {"float16": 32, "float32": 32, "float64": 64}
"""float64 has one tile only: cards for homes have a 64th of the float32 rate, whatever the tile."""
PRODUCTS: Final = {
    (dtype, tile): _product(dtype, tile, 8 if tile == 128 else 4, {128: 2, 64: 2, 32: 8}[tile])
    for dtype in _LARGE
    for tile in (_LARGE[dtype], _SMALL[dtype])
}
ROW_SQUARES: Final = {dtype: _squares(_row_squares, dtype, "[::1]") for dtype in _LARGE}
COLUMN_SQUARES: Final = {dtype: _squares(_column_squares, dtype, "[:, ::1]") for dtype in _LARGE}
DEVICE_KERNELS: Final = (*PRODUCTS.values(), *ROW_SQUARES.values(), *COLUMN_SQUARES.values())


def warm_up_for(dtype: str) -> None:
    """Both tiles: chunks may differ in which one suits them."""
    tiles = [kernel for (of, _), kernel in PRODUCTS.items() if of == dtype]
    warm_up([*tiles, ROW_SQUARES[dtype], COLUMN_SQUARES[dtype]])


def product(a: Array, b: Array) -> Array:
    """a @ b, shape (m, n), in the type of its sums. Raises `BadInput` for what the CPU back end refuses."""
    with device():
        right, columns = _right.get(b)
        left = send(a)
        refused = refusal(_row_norms(a, left), columns, summed_in(a.dtype))
        if refused:
            raise BadInput(refused)
        c = empty((a.shape[0], b.shape[1]), summed_in(a.dtype))
        launch(left, right, c)
        return fetch(c)


def launch(left: Any, right: Any, c: Any) -> None:
    """Starts the product of arrays on the device: large tiles when they are enough to keep the whole of it busy."""
    (m, n), dtype = c.shape, left.dtype.name
    large = _LARGE[dtype]
    many = blocks_for(m, large) * blocks_for(n, large) >= multiprocessors()
    tile = large if many else _SMALL[dtype]
    PRODUCTS[dtype, tile].launch((blocks_for(n, tile), blocks_for(m, tile)), left, right, c)


def start_row_squares(sent: Any, squares: Any) -> None:
    ROW_SQUARES[sent.dtype.name].launch((blocks_for(sent.shape[0], _DOWN),), sent, squares)


def start_column_squares(sent: Any, squares: Any) -> None:
    """`squares` has a row for each stripe of rows of the matrix."""
    grid = blocks_for(sent.shape[1], _ACROSS), squares.shape[0]
    COLUMN_SQUARES[sent.dtype.name].launch(grid, sent, squares)


def _load_right(b: Array) -> tuple[Any, Vector]:
    right = send(b)
    return right, _column_norms(b, right)


_right: Final = Resident(_load_right)


def _row_norms(matrix: Array, sent: Any) -> Vector:
    squares = empty(matrix.shape[:1], np.float64)
    start_row_squares(sent, squares)
    return _roots(fetch(squares), matrix, row_norms)


def _column_norms(matrix: Array, sent: Any) -> Vector:
    stripes = min(STRIPES, blocks_for(matrix.shape[0], _DOWN))
    squares = empty((stripes, matrix.shape[1]), np.float64)
    start_column_squares(sent, squares)
    return _roots(fetch(squares).sum(axis=0), matrix, column_norms)


def _roots(squares: Vector, matrix: Array, on_host: Callable[[Array], Vector]) -> Vector:
    """Norms of the squares; computed anew on the host, which scales them, where float64 inputs are beyond them."""
    if matrix.dtype == np.float64 and not safe(squares, matrix):
        with np.errstate(all="ignore"):
            return on_host(matrix)
    return np.sqrt(squares)
