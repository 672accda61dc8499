# SPDX-License-Identifier: Apache-2.0
"""Philox4x32-10, a counter-based generator of 32-bit words: the words of any place in the stream come out of its
counter and key alone, by 32-bit operations alone.

J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Where there is no 64-bit
product, `high_word` builds its upper half from 16-bit halves.
"""

from typing import Final

import numpy as np

from qubix_protocol.arrays import Array

ROUNDS: Final = 10
MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS: Final = (0x9E3779B9, 0xBB67AE85)
_WORD: Final = 0xFFFFFFFF
_HALF: Final = np.uint32(0xFFFF)
_SHIFT: Final = np.uint32(16)


def words(counter: tuple[Array, Array, Array, Array], key: tuple[int, int]) -> tuple[Array, Array, Array, Array]:
    """Four words for each counter of four words (arrays of uint32 that broadcast)."""
    x0, x1, x2, x3 = counter
    for turn in range(ROUNDS):
        k0, k1 = (np.uint32((word + turn * step) & _WORD) for word, step in zip(key, KEY_STEPS, strict=True))
        high0, low0 = product(x0, MULTIPLIERS[0])
        high1, low1 = product(x2, MULTIPLIERS[1])
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
    return x0, x1, x2, x3


def product(x: Array, multiplier: int) -> tuple[Array, Array]:
    """The upper and the lower word of the product: of 64 bits here, which is fastest."""
    wide = x.astype(np.uint64) * np.uint64(multiplier)
    return (wide >> np.uint64(32)).astype(np.uint32), wide.astype(np.uint32)


def high_word(x: Array, multiplier: int) -> Array:
    """The upper word of the product by 32-bit operations, none of which overflows: for languages without 64 bits."""
    m1, m0 = np.uint32(multiplier >> 16), np.uint32(multiplier & 0xFFFF)
    x1, x0 = x >> _SHIFT, x & _HALF
    middle = x1 * m0 + (x0 * m0 >> _SHIFT)
    other = x0 * m1 + (middle & _HALF)
    high: Array = x1 * m1 + (middle >> _SHIFT) + (other >> _SHIFT)
    return high
