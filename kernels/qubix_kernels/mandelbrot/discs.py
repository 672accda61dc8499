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


def possible_iterations(cr: Array, ci: Array, most: int) -> tuple[Ints, Ints]:
    """The fewest and the most iterations that float32 can give for each c: the count until its disc first touches the
    outside, and until no part of it is inside any more (or `most`, once it is lost)."""
    fewest, largest, left = (np.zeros(len(cr), np.int32) for _ in range(3))
    left = np.arange(len(cr), dtype=np.int32)
    orbits = _Orbits(cr.astype(np.float64), ci.astype(np.float64))
    with np.errstate(all="ignore"):
        for start in range(0, most, STRIDE):
            steps = min(STRIDE, most - start)
            surely, maybe = orbits.steps(steps)
            fewest[left] += surely
            largest[left] += maybe
            largest[left[orbits.lost]] = most
            left = left[orbits.keep()]
            if not len(left):
                break
    return fewest, largest


class _Orbits:
    """`surely`: every value of every float32 orbit was in so far. `maybe`: not all of them are surely out. `lost`: the
    disc has grown too large to tell."""

    def __init__(self, cr: Floats, ci: Floats) -> None:
        self.cr, self.ci, self.zr, self.zi = cr, ci, cr.copy(), ci.copy()
        self.size = np.sqrt(cr * cr + ci * ci)
        self.radius = np.zeros(len(cr))
        self.surely, self.maybe, self.lost = np.ones(len(cr), bool), np.ones(len(cr), bool), np.zeros(len(cr), bool)

    def steps(self, count: int) -> tuple[Ints, Ints]:
        """How often each orbit was surely in, and maybe in, in so many steps."""
        surely, maybe = np.zeros(len(self.cr), np.int32), np.zeros(len(self.cr), np.int32)
        for _ in range(count):
            self._judge()
            surely += self.surely
            maybe += self.maybe
            self._move()
        return surely, maybe

    def _judge(self) -> None:
        away = np.sqrt(self.zr * self.zr + self.zi * self.zi)
        self.lost |= ~(self.radius <= LOST) & self.maybe
        self.surely &= (away + self.radius <= _OUT_EARLIEST) & ~self.lost
        self.maybe &= (away - self.radius <= _OUT_LATEST) | self.lost
        self._away = away

    def _move(self) -> None:
        rounding = self._away + self.radius
        rounding *= rounding
        rounding += self.size
        rounding *= ROUNDING * UNIT
        rounding += _UNDERFLOW
        self.radius *= 2 * self._away + self.radius
        self.radius += rounding
        turned = 2 * self.zr * self.zi + self.ci
        self.zr = self.zr * self.zr - self.zi * self.zi + self.cr
        self.zi = turned

    def keep(self) -> NDArray[np.bool_]:
        """Leaves behind what is decided; which orbits stay."""
        stay: NDArray[np.bool_] = self.maybe & ~self.lost
        for name in ("cr", "ci", "zr", "zi", "size", "radius", "surely", "maybe", "lost"):
            setattr(self, name, getattr(self, name)[stay])
        return stay
