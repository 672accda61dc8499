# SPDX-License-Identifier: Apache-2.0
"""Judges an image by some of its rows and a few pixels of every row: each count must be one that float32 can give.

Near the boundary rounding decides, and any later count is possible; there the counts as a whole must be those of
float32 arithmetic. notes.md has the reasoning and the shares measured.
"""

from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qubix_kernels.kernel import Verdict
from qubix_kernels.mandelbrot.discs import possible_iterations
from qubix_kernels.mandelbrot.orbits import iterations
from qubix_kernels.mandelbrot.window import Window, imaginary, real
from qubix_protocol.arrays import Array

PIXELS_IN_ROW: Final = 4
STEADY_MIN: Final = 64
DIFFERENT_MAX: Final = 0.35
"""Of the uncertain pixels where float32 and float64 agree, so many may differ: of honest ones up to 0.14 did."""
_ROWS_MIN: Final = 4
_ROWS_SHARE: Final = 256
_BLOCK: Final = 16_384

Places = NDArray[np.intp]


def rows_sampled(height: int) -> int:
    return min(height, max(_ROWS_MIN, height // _ROWS_SHARE))


def verify(window: Window, counts: Array, rng: Generator) -> Verdict:
    """`counts` has its right form."""
    if counts.min() < 0 or counts.max() > window.max_iterations:
        return Verdict(accepted=False, reason="range", detail=f"a count is not from 0 to {window.max_iterations}")
    row, column = _sample(window, rng)
    x, y, claimed = real(window)[column], imaginary(window)[row], counts[row, column]
    steady = different = uncertain = 0
    for start in range(0, len(row), _BLOCK):
        part = slice(start, start + _BLOCK)
        fewest, most = possible_iterations(x[part], y[part], window.max_iterations)
        wrong = np.flatnonzero((claimed[part] < fewest) | (claimed[part] > most))
        if wrong.size:
            at = int(wrong[0])
            return _impossible(row[part][at], column[part][at], claimed[part][at], fewest[at], most[at])
        open_ = np.flatnonzero(fewest != most) + start
        firm = _firm(x[open_], y[open_], claimed[open_], window.max_iterations)
        uncertain, steady, different = uncertain + open_.size, steady + firm[0], different + firm[1]
    measured = {"pixels": row.size, "uncertain": uncertain, "steady": steady, "different": different}
    return _whole({name: float(value) for name, value in measured.items()})


def _sample(window: Window, rng: Generator) -> tuple[Places, Places]:
    """Rows and columns of the pixels to look at: whole rows, and a few pixels of every row."""
    whole = rng.choice(window.height, rows_sampled(window.height), replace=False)
    every = np.repeat(np.arange(window.height), PIXELS_IN_ROW)
    row = np.concatenate([np.repeat(whole, window.width), every])
    column = np.concatenate([np.tile(np.arange(window.width), whole.size), rng.integers(window.width, size=every.size)])
    return row, column


def _firm(x: Array, y: Array, claimed: Array, most: int) -> tuple[int, int]:
    """How many of these pixels come out alike in float32 and float64, and how many of those are claimed otherwise."""
    narrow = iterations(x, y, most)
    steady = narrow == iterations(x.astype(np.float64), y.astype(np.float64), most)
    return int(np.count_nonzero(steady)), int(np.count_nonzero(steady & (claimed != narrow)))


def _impossible(row: int, column: int, claimed: int, fewest: int, most: int) -> Verdict:
    possible = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    detail = f"row {row}, column {column} took {claimed} iterations; float32 can give {possible}"
    return Verdict(accepted=False, reason="iterations", detail=detail)


def _whole(measured: dict[str, float]) -> Verdict:
    if measured["steady"] < STEADY_MIN or measured["different"] <= DIFFERENT_MAX * measured["steady"]:
        return Verdict(accepted=True, measured=measured)
    detail = f"{measured['different']:g} of {measured['steady']:g} uncertain pixels are not as float32 gives them"
    return Verdict(accepted=False, reason="uncertain", detail=detail, measured=measured)
