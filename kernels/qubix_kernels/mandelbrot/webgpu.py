# SPDX-License-Identifier: Apache-2.0
"""The WebGPU back end: an invocation for each pixel, in blocks that even the slowest pixels cannot make long."""

import struct
from typing import Final

import numpy as np

from qubix_kernels.mandelbrot.window import Window, imaginary, real
from qubix_kernels.webgpu import GROUPS_MAX, TARGET_S, Bound, Device, Shader, Storage, blocks_for, working
from qubix_protocol.arrays import Array

SHADER: Final = Shader(kernel="mandelbrot", entries=("escape",), storage=("read", "read", "write"))
_PARAMS: Final = struct.Struct("<8I")
_SIDE: Final = 8
_ROWS_MAX: Final = GROUPS_MAX * _SIDE
_PROBE_PIXELS, _PROBE_ITERATIONS, _PROBE_S = 64, 1024, 0.01


def warm_up_all() -> None:
    """Some drivers compile at the first dispatch only."""
    with working() as gpu:
        _iterations_per_s(gpu)


def image(window: Window, on: Device | None = None) -> Array:
    """Iterations of each pixel, int32 of shape (height, width). Coordinates come from the host, as everywhere."""
    with working(on) as gpu:
        x, y = gpu.send(real(window)), imaginary(window)
        counts = np.empty((window.height, window.width), np.int32)
        most = max(1, int(_iterations_per_s(gpu) * TARGET_S / window.max_iterations))
        rows = max(1, min(gpu.binding_bytes // (4 * window.width), window.height))
        for start in range(0, window.height, rows):
            part = y[start : start + rows]
            counts[start : start + rows] = _panel(gpu, x, part, window.width, window.max_iterations, most)
        x.give_back()
        return counts


def _panel(gpu: Device, x: Storage, y: Array, width: int, iterations: int, pixels: int) -> Array:
    """Some rows, in blocks of about so many pixels."""
    height = len(y)
    lines, out = gpu.send(y), gpu.empty(4 * width * height)
    bound = gpu.bind(SHADER, _PARAMS.size, (x, lines, out))
    columns, rows = _block(width, height, pixels)
    for row in range(0, height, rows):
        for column in range(0, width, columns):
            size = min(columns, width - column), min(rows, height - row)
            _escape(bound, width, height, iterations, (column, row), size)
    made = gpu.fetch(out, np.int32).reshape(height, width)
    lines.give_back()
    out.give_back()
    return made


def _block(width: int, height: int, pixels: int) -> tuple[int, int]:
    """Columns and rows of a block of about so many pixels: as wide as it can be, in whole workgroups."""
    columns = min(width, max(_SIDE, pixels // _SIDE // _SIDE * _SIDE))
    rows = max(_SIDE, pixels // columns // _SIDE * _SIDE)
    return columns, min(height, rows, _ROWS_MAX)


def _escape(bound: Bound, width: int, height: int, most: int, first: tuple[int, int], size: tuple[int, int]) -> float:
    params = _PARAMS.pack(width, height, most, *first, *size, 0)
    return bound.run(params, ("escape", (blocks_for(size[0], _SIDE), blocks_for(size[1], _SIDE))))


def _iterations_per_s(gpu: Device) -> float:
    """Measured once on pixels that never leave, since no other dispatch tells: its pixels may have left early."""
    if SHADER not in gpu.speeds:
        gpu.speeds[SHADER] = _probe(gpu)
    return gpu.speeds[SHADER]


def _probe(gpu: Device) -> float:
    side = _PROBE_PIXELS
    while True:
        zeros, out = gpu.send(np.zeros(side, np.float32)), gpu.empty(4 * side * side)
        bound = gpu.bind(SHADER, _PARAMS.size, (zeros, zeros, out))
        seconds = min(_escape(bound, side, side, _PROBE_ITERATIONS, (0, 0), (side, side)) for _ in range(2))
        zeros.give_back()
        out.give_back()
        if seconds >= _PROBE_S or side >= 4096:
            return side * side * _PROBE_ITERATIONS / seconds
        side *= 2
