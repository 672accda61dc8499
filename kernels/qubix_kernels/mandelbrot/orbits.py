# SPDX-License-Identifier: Apache-2.0
"""Orbits z → z² + c, plainly: each operation rounded once, none fused, so bit for bit the same everywhere."""

from typing import Final

import numpy as np

from qubix_protocol.arrays import Array

STRIDE: Final = 16
"""Steps between two times that orbits which are out are left behind."""


def iterations(cr: Array, ci: Array, most: int) -> Array:
    """How many of the first `most` values of each orbit (c itself is the first) come before the first one that is out,
    |z|² > 4; int32. `cr` and `ci` are vectors of one type, in which it computes."""
    counts, left = np.zeros(len(cr), np.int32), np.arange(len(cr))
    zr, zi, still = cr.copy(), ci.copy(), np.ones(len(cr), bool)
    with np.errstate(all="ignore"):  # what is out overflows until it is left behind
        for start in range(0, most, STRIDE):
            inside = np.zeros(len(left), np.int32)
            for _ in range(min(STRIDE, most - start)):
                _step(zr, zi, cr, ci, still, inside)
            counts[left] += inside
            if not still.all():
                left, zr, zi, cr, ci = left[still], zr[still], zi[still], cr[still], ci[still]
                still = np.ones(len(left), bool)
            if not len(left):
                break
    return counts


def _step(zr: Array, zi: Array, cr: Array, ci: Array, still: Array, inside: Array) -> None:
    """Counts the z that are in, and have been all along; moves all on."""
    squares_r, squares_i = zr * zr, zi * zi
    still &= squares_r + squares_i <= 4
    inside += still
    zi *= zr
    zi += zi
    zi += ci
    np.subtract(squares_r, squares_i, out=zr)
    zr += cr
