# SPDX-License-Identifier: Apache-2.0
"""Which number each pixel stands for, and how much work a window is. The same in every back end, bit for bit."""

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np

from qubix_kernels.kernel import Params
from qubix_protocol.arrays import Array

_GRID: Final = 24
_LOOK_AHEAD: Final = 192


@dataclass(frozen=True, slots=True)
class Window:
    """Rows [first_row, first_row + height) of an image whose upper left corner is at (left, top). `pixel` is a side."""

    left: float
    top: float
    pixel: float
    width: int
    first_row: int
    height: int
    max_iterations: int

    @classmethod
    def of(cls, params: Params) -> "Window":
        return cls(
            left=float(params["left"]),
            top=float(params["top"]),
            pixel=float(params["pixel"]),
            width=int(params["width"]),
            first_row=int(params["first_row"]),
            height=int(params["height"]),
            max_iterations=int(params["max_iterations"]),
        )

    @property
    def farthest(self) -> float:
        """The largest coordinate of an edge."""
        right, bottom = self.left + self.width * self.pixel, self.top - (self.first_row + self.height) * self.pixel
        return max(abs(self.left), abs(self.top), abs(right), abs(bottom))


def real(window: Window) -> Array:
    """The real part of each column's pixels: computed in float64, rounded once to float32."""
    return (window.left + (np.arange(window.width) + 0.5) * window.pixel).astype(np.float32)


def imaginary(window: Window) -> Array:
    """The imaginary part of each row's pixels, by the row's number in the whole image."""
    rows = np.arange(window.first_row, window.first_row + window.height)
    return (window.top - (rows + 0.5) * window.pixel).astype(np.float32)


@functools.lru_cache(maxsize=256)
def mean_iterations(window: Window) -> float:
    """About how many iterations a pixel takes, from a coarse grid. What is not out after a short look counts as
    never out, so that it is rather too many than too few. Milliseconds; kept, since a job is priced again and again."""
    x, y = real(window), imaginary(window)
    columns, rows = (np.linspace(0, len(axis) - 1, min(_GRID, len(axis))).astype(np.intp) for axis in (x, y))
    c = (x[columns].astype(np.float64) + 1j * y[rows, None].astype(np.float64)).ravel()
    total, spent, z = len(c), 0, c.copy()
    for done in range(min(_LOOK_AHEAD, window.max_iterations)):
        inside = z.real * z.real + z.imag * z.imag <= 4
        spent += (done + 1) * int(np.count_nonzero(~inside))
        z, c = z[inside], c[inside]
        if not len(z):
            break
        z = z * z + c
    return (spent + len(z) * window.max_iterations) / total
