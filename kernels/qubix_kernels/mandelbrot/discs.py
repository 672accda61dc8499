# SPDX-License-Identifier: Apache-2.0
"""Orbits in float64, each with a disc around it that holds every float32 orbit of the same c, whatever the order of
its operations and whichever of them are fused. notes.md derives the radius."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from qubix_kernels.mandelbrot.orbits import STRIDE
from qubix_protocol.arrays import Array

UNIT: Final = 2.0**-24
ROUNDING: Final = 4.0
"""One step in float32 is off by at most ROUNDING · UNIT · (|z|² + |c|)."""
LOST: Final = 1.0
"""A disc of this radius tells nothing any more."""
_UNDERFLOW: Final = 1e-37
_OUT_EARLIEST: Final = 2 * (1 - 4 * UNIT)
_OUT_LATEST: Final = 2 * (1 + 4 * UNIT)

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Bytes = NDArray[np.int8]


def possible_iterations(cr: Array, ci: Array, most: int) -> tuple[Ints, Ints]:
    """The fewest and the most iterations that float32 can give for each c: the count until its disc first touches the
    outside, and until no part of it is inside any more (or `most`, once it is lost)."""
    fewest, largest = np.zeros(len(cr), np.int32), np.zeros(len(cr), np.int32)
    left = np.arange(len(cr), dtype=np.int32)
    orbits = _Orbits(cr.astype(np.float64), ci.astype(np.float64))
    with np.errstate(all="ignore"):
        for start in range(0, most, STRIDE):
            surely, maybe = orbits.steps(min(STRIDE, most - start))
            fewest[left] += surely
            largest[left] += maybe
            lost = orbits.maybe & ~(orbits.radius <= LOST)
            largest[left[lost]] = most
            stay = orbits.maybe & ~lost
            if not stay.all():
                left = left[stay]
                orbits.keep(stay)
            if not len(left):
                break
    return fewest, largest


class _Orbits:
    """`surely`: every value of every float32 orbit was in so far. `maybe`: not all of them are surely out."""

    def __init__(self, cr: Floats, ci: Floats) -> None:
        self.cr, self.ci, self.zr, self.zi = cr, ci, cr.copy(), ci.copy()
        self.size = np.sqrt(cr * cr + ci * ci)
        self.radius = np.zeros(len(cr))
        self.surely, self.maybe = np.ones(len(cr), bool), np.ones(len(cr), bool)

    def steps(self, count: int) -> tuple[Bytes, Bytes]:
        """How often each orbit was surely in, and maybe in, in so many steps."""
        surely, maybe = np.zeros(len(self.cr), np.int8), np.zeros(len(self.cr), np.int8)
        spare = tuple(np.empty_like(self.cr) for _ in range(5))
        for _ in range(count):
            self._step(*spare)
            surely += self.surely
            maybe += self.maybe
        return surely, maybe

    def _step(self, squares_r: Floats, squares_i: Floats, away: Floats, reach: Floats, spare: Floats) -> None:
        """Judges z and its disc, and moves both on. In place: this is what a check spends its time on."""
        np.multiply(self.zr, self.zr, out=squares_r)
        np.multiply(self.zi, self.zi, out=squares_i)
        np.add(squares_r, squares_i, out=away)
        np.sqrt(away, out=away)
        np.add(away, self.radius, out=reach)
        self.surely &= reach <= _OUT_EARLIEST
        np.subtract(away, self.radius, out=spare)
        self.maybe &= ~(spare > _OUT_LATEST)  # a disc that is no number any more may be anywhere
        away += reach
        self.radius *= away
        reach *= reach
        reach += self.size
        reach *= ROUNDING * UNIT
        reach += _UNDERFLOW
        self.radius += reach
        self.zi *= self.zr
        self.zi += self.zi
        self.zi += self.ci
        np.subtract(squares_r, squares_i, out=self.zr)
        self.zr += self.cr

    def keep(self, stay: NDArray[np.bool_]) -> None:
        for name in ("cr", "ci", "zr", "zi", "size", "radius", "surely", "maybe"):
            setattr(self, name, getattr(self, name)[stay])
