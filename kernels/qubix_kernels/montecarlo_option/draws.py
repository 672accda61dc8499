# SPDX-License-Identifier: Apache-2.0
"""From a lane's place in the stream to the numbers it draws: which words, and what they stand for. All exact.

Counter `b` of a lane is (b, lane, 0, 0), the key is the seed; its four words give the paths 4 b to 4 b + 3. Of a word
the upper 23 bits count: with half a step added, both uniforms below are exact in float32 and never 0 or 1.
"""

from typing import Any, Final

import numpy as np

from qubix_kernels.montecarlo_option.model import UNIFORM_STEP
from qubix_kernels.montecarlo_option.philox import words
from qubix_protocol.arrays import Array

PATHS_PER_COUNTER: Final = 4
_DROPPED: Final = np.uint32(9)
_QUARTER: Final = np.uint32(21)
_WITHIN: Final = np.uint32(2**21 - 1)
_QUARTER_STEP: Final = 2.0**-21


def of_lanes(first: int, lanes: int, counters: int, seed: int) -> list[tuple[Array, Array]]:
    """Two pairs of words, (for the radius, for the angle), each of shape (lanes, counters)."""
    lane = np.arange(first, first + lanes, dtype=np.uint32)[:, None]
    return of_lane_numbers(lane, counters, seed)


def of_lane_numbers(lane: Array, counters: int, seed: int) -> list[tuple[Array, Array]]:
    block, zero = np.arange(counters, dtype=np.uint32)[None, :], np.zeros((1, 1), np.uint32)
    w0, w1, w2, w3 = words((block, lane, zero, zero), (seed & 0xFFFFFFFF, seed >> 32))
    return [(w0, w1), (w2, w3)]


def uniform(word: Array, dtype: Any) -> Array:
    """In (0, 1), in steps of 2^-23."""
    number = (word >> _DROPPED).astype(dtype)
    number += dtype(0.5)
    number *= dtype(UNIFORM_STEP)
    return number


def turned(word: Array, dtype: Any) -> tuple[Array, Array]:
    """Which quarter turn (0 to 3), and the rest of the angle beside its middle, in quarter turns from -0.5 to 0.5."""
    kept = word >> _DROPPED
    within = (kept & _WITHIN).astype(dtype)
    within += dtype(0.5)
    within *= dtype(_QUARTER_STEP)
    within -= dtype(0.5)
    return kept >> _QUARTER, within
