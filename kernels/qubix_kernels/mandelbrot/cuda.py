# SPDX-License-Identifier: Apache-2.0
"""The CUDA back end: a thread for each pixel; a warp has 8 × 4 neighbours, which mostly take equally long.

Steps go eight at a time, with one look at the farthest value of them all; where that was far, they are done again one
by one, for the first.
"""

from typing import Any, Final

import numpy as np

from qubix_kernels.cuda import DeviceKernel, blocks_for, cuda, device, empty, fetch, float32, int32, send, warm_up
from qubix_kernels.mandelbrot.window import Window, imaginary, real
from qubix_protocol.arrays import Array

_ACROSS, _DOWN = 8, 16
_FAR: Final = np.float32(4)
_AT_ONCE: Final = 8


def _escape(x: Any, y: Any, most: Any, counts: Any) -> None:
    """counts[row, column] for c = x[column] + i y[row]. Products and sums may be fused: the check allows for it.

    What is no number any more was infinite before, so that `max`, which leaves it out, misses nothing.
    """
    column = cuda.blockIdx.y * _ACROSS + cuda.threadIdx.x
    row = cuda.blockIdx.x * _DOWN + cuda.threadIdx.y
    if row < counts.shape[0] and column < counts.shape[1]:
        cr, ci = x[column], y[row]
        zr, zi, found, done = cr, ci, most, int32(0)
        while done + int32(_AT_ONCE) <= most:
            kept_r, kept_i, farthest = zr, zi, float32(0)
            for _ in range(_AT_ONCE):
                squares_r, squares_i = zr * zr, zi * zi
                farthest = max(farthest, squares_r + squares_i)
                zi = (zr + zr) * zi + ci
                zr = squares_r - squares_i + cr
            if farthest > _FAR:
                zr, zi = kept_r, kept_i
                break
            done += int32(_AT_ONCE)
        for step in range(done, most):
            squares_r, squares_i = zr * zr, zi * zi
            if squares_r + squares_i > _FAR:
                found = step
                break
            zi = (zr + zr) * zi + ci
            zr = squares_r - squares_i + cr
        counts[row, column] = found


ESCAPE: Final = DeviceKernel(
    name="escape",
    function=_escape,
    signature="void(float32[::1], float32[::1], int32, int32[:, ::1])",
    block=(_ACROSS, _DOWN),
    blocks_per_sm=8,
    registers_max=40,
)
DEVICE_KERNELS: Final = (ESCAPE,)


def warm_up_all() -> None:
    warm_up(DEVICE_KERNELS)


def image(window: Window) -> Array:
    """Iterations of each pixel, int32 of shape (height, width). Coordinates come from the host, as everywhere."""
    with device():
        counts = empty((window.height, window.width), np.int32)
        start(send(real(window)), send(imaginary(window)), window.max_iterations, counts)
        return fetch(counts)


def start(x: Any, y: Any, most: int, counts: Any) -> None:
    """Of arrays on the device; does not wait."""
    grid = (blocks_for(counts.shape[0], _DOWN), blocks_for(counts.shape[1], _ACROSS))
    ESCAPE.launch(grid, x, y, most, counts)
