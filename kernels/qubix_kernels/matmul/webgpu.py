# SPDX-License-Identifier: Apache-2.0
"""The WebGPU back end: 8 × 8 elements of c for each invocation. Matrices larger than a binding go in panels."""

import struct
from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from qubix_kernels.kernel import BadInput
from qubix_kernels.matmul.norms import Vector, column_norms, refusal, row_norms, widened
from qubix_kernels.resident import Resident
from qubix_kernels.webgpu import LOOP_MAX, Bound, Device, Pace, Shader, Storage, blocks_for, working
from qubix_protocol.arrays import Array

SHADER: Final = Shader(kernel="matmul", entries=("product",), storage=("read", "read", "write"))
_PARAMS: Final = struct.Struct("<8I")
_FOUR: Final = 4
_WIDE, _TALL = 16, 32
"""Fours of columns and rows that a workgroup computes."""
_FOURS_MAX: Final = 16_384
_FOURS_MIN: Final = 256
_FIRST_FLOPS: Final = 2.0**27
assert _FOURS_MAX <= LOOP_MAX


def warm_up_all() -> None:
    """Some drivers compile at the first dispatch only."""
    product(np.ones((64, 64), np.float32), np.ones((64, 64), np.float32))


def product(a: Array, b: Array, on: Device | None = None) -> Array:
    """a @ b, float32 of shape (m, n), of float32 or float16. Raises `BadInput` for what the CPU back end refuses."""
    with working(on) as gpu, np.errstate(all="ignore"):
        norms, panels = gpu.kept.setdefault(SHADER, Resident(partial(_load_right, gpu))).get(b)
        wide = widened(a)
        refused = refusal(row_norms(wide), norms, wide.dtype)
        if refused:
            raise BadInput(refused)
        c = np.empty((a.shape[0], b.shape[1]), np.float32)
        left = _filled(wide, wide.shape[0], _up(wide.shape[1]))
        for first, width, panel in panels:
            rows = max(1, gpu.binding_bytes // (_FOUR * max(left.shape[1], _up(width))))
            for start in range(0, len(left), rows):
                made = _panel(gpu, left[start : start + rows], panel, width)
                c[start : start + rows, first : first + width] = made[:, :width]
        return c


def _load_right(gpu: Device, b: Array) -> tuple[Vector, list[tuple[int, int, Storage]]]:
    """Norms of its columns, and panels of columns on the device: (first column, columns, buffer)."""
    wide = widened(b)
    depth, n = _up(len(wide)), wide.shape[1]
    width = max(_FOUR, gpu.binding_bytes // (4 * depth) // _FOUR * _FOUR)
    parts = [(first, wide[:, first : first + width]) for first in range(0, n, width)]
    panels = [(first, part.shape[1], gpu.send(_filled(part, depth, _up(part.shape[1])))) for first, part in parts]
    return column_norms(wide), panels


def _panel(gpu: Device, left: Array, right: Storage, width: int) -> Array:
    rows, depth, columns = len(left), left.shape[1] // _FOUR, _up(width) // _FOUR
    a, c = gpu.send(left), gpu.empty(16 * rows * columns)
    bound, pace = gpu.bind(SHADER, _PARAMS.size, (a, right, c)), gpu.pace(SHADER, _FIRST_FLOPS)
    row = 0
    while row < rows:
        taken = min(rows - row, max(_TALL, int(pace.work / _flops(1, columns, depth)) // _TALL * _TALL))
        for first, stop in _steps(pace, taken, columns, depth):
            seconds = _multiply(bound, taken, columns, depth, first, stop, row)
            pace.learn(_flops(taken, columns, stop - first), seconds)
        row += taken
    made = gpu.fetch(c, np.float32).reshape(rows, _FOUR * columns)
    a.give_back()
    c.give_back()
    return made


def _steps(pace: Pace, rows: int, columns: int, depth: int) -> Iterator[tuple[int, int]]:
    """Ranges of k, in fours: more than one where k is too long for a loop, or the rows too much for a dispatch."""
    first = 0
    while first < depth:
        fours = int(pace.work / _flops(rows, columns, 1)) // _FOURS_MIN * _FOURS_MIN
        stop = min(depth, first + min(_FOURS_MAX, max(_FOURS_MIN, fours)))
        yield first, stop
        first = stop


def _multiply(bound: Bound, rows: int, columns: int, depth: int, first: int, stop: int, row: int) -> float:
    params = _PARAMS.pack(rows, columns, depth, first, stop, row, int(first > 0), 0)
    groups = blocks_for(columns, _WIDE), blocks_for(rows, _TALL)
    return bound.run(params, ("product", groups))


def _flops(rows: int, columns: int, depth: int) -> float:
    """With columns and depth in fours."""
    return 32.0 * rows * columns * depth


def _filled(matrix: Array, rows: int, columns: int) -> Array:
    """Float32 with zeros after the last row and column; itself where nothing is missing."""
    if matrix.shape == (rows, columns):
        return matrix
    made = np.zeros((rows, columns), np.float32)
    made[: matrix.shape[0], : matrix.shape[1]] = matrix
    return made


def _up(size: int) -> int:
    """To whole fours."""
    return -(-size // _FOUR) * _FOUR
