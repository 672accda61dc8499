# SPDX-License-Identifier: Apache-2.0
"""cos and sin of up to half a quarter turn, as polynomials of the square of the angle in quarter turns: Taylor's, cut
off where the next term is below 2^-29. For back ends whose own functions are slow or loose."""

import math
from typing import Final

import numpy as np


def _term(power: int) -> np.float32:
    return np.float32((-1) ** (power // 2) * (math.pi / 2) ** power / math.factorial(power))


COSINE: Final = tuple(_term(power) for power in (0, 2, 4, 6, 8, 10))
"""cos(π/2 · x) = Σ COSINE[i] x^(2 i)"""
SINE: Final = tuple(_term(power) for power in (1, 3, 5, 7, 9))
"""sin(π/2 · x) = x Σ SINE[i] x^(2 i)"""
