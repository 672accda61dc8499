# SPDX-License-Identifier: Apache-2.0
"""The CPU back end: NumPy in float32, on blocks of pixels."""

from typing import Final

import numpy as np

from qubix_kernels.mandelbrot.orbits import iterations
from qubix_kernels.mandelbrot.window import Window, imaginary, real
from qubix_protocol.arrays import Array

_BLOCK: Final = 65_536
"""Large enough that those of its pixels which stay to the end are still many at a time."""


def image(window: Window) -> Array:
    """Iterations of each pixel, int32 of shape (height, width)."""
    x, y = real(window), imaginary(window)
    counts = np.empty((window.height, window.width), np.int32)
    flat = counts.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        row, column = np.divmod(np.arange(start, min(start + _BLOCK, flat.size)), window.width)
        flat[start : start + _BLOCK] = iterations(x[column], y[row], window.max_iterations)
    return counts
