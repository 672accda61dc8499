# SPDX-License-Identifier: Apache-2.0
"""The CUDA back end: a thread for each pixel; a warp has 8 × 4 neighbours, which mostly take equally long."""

from typing import Any, Final

import numpy as np

from qubix_kernels.cuda import DeviceKernel, blocks_for, cuda, device, empty, fetch, send, warm_up
from qubix_kernels.mandelbrot.window import Window, imaginary, real
from qubix_protocol.arrays import Array

_ACROSS, _DOWN = 8, 16
_FAR: Final = np.float32(4)


def _escape(x: Any, y: Any, most: Any, counts: Any) -> None:
    """counts[row, column] for c = x[column] + i y[row]. Products and sums may be fused: the check allows for it."""
    column = cuda.blockIdx.y * _ACROSS + cuda.threadIdx.x
    row = cuda.blockIdx.x * _DOWN + cuda.threadIdx.y
    if row < counts.shape[0] and column < counts.shape[1]:
        cr, ci = x[column], y[row]
        zr, zi, found = cr, ci, most
        for step in range(most):
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
        grid = (blocks_for(window.height, _DOWN), blocks_for(window.width, _ACROSS))
        ESCAPE.launch(grid, send(real(window)), send(imaginary(window)), window.max_iterations, counts)
        return fetch(counts)
