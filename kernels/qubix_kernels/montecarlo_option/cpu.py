# SPDX-License-Identifier: Apache-2.0
"""The CPU back end: NumPy in float32 on blocks of lanes that stay in the cache; sums in float64."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from qubix_kernels.montecarlo_option.draws import PATHS_PER_COUNTER, of_lanes, turned, uniform
from qubix_kernels.montecarlo_option.model import Option
from qubix_kernels.montecarlo_option.polynomials import COSINE, SINE
from qubix_protocol.arrays import Array

_BLOCK_COUNTERS: Final = 16_384
_F32: Final = np.float32


def simulate(option: Option, first: int, lanes: int, paths: int, seed: int) -> tuple[Array, Array]:
    """For each lane the sum of its discounted payoffs and of their squares, float32 of shape (lanes,)."""
    sums, squares = np.empty(lanes, _F32), np.empty(lanes, _F32)
    counters = -(-paths // PATHS_PER_COUNTER)
    step = max(1, _BLOCK_COUNTERS // counters)
    for start in range(0, lanes, step):
        stop = min(lanes, start + step)
        found = payoffs(option, of_lanes(first + start, stop - start, counters, seed))[:, :paths]
        sums[start:stop] = found.sum(axis=1, dtype=np.float64)
        found *= found
        squares[start:stop] = found.sum(axis=1, dtype=np.float64)
    return sums, squares


def payoffs(option: Option, draws: list[tuple[Array, Array]]) -> Array:
    """Of each path, in the order of paths: float32 of shape (lanes, paths)."""
    normal = np.stack([part for pair in draws for part in _normals(*pair)], axis=2)
    made = normal.reshape(len(normal), -1)
    made *= _F32(option.spread)
    np.exp(made, out=made)
    made *= _F32(option.sign * option.start)
    made -= _F32(option.sign * option.strike)
    np.maximum(made, _F32(0), out=made)
    return made


def _normals(first: Array, second: Array) -> Iterator[Array]:
    """Two independent standard normals of two words (Box and Muller, 1958)."""
    radius = np.log(uniform(first, _F32))
    radius *= _F32(-2)
    np.sqrt(radius, out=radius)
    quarter, rest = turned(second, _F32)
    square = rest * rest
    cosine, sine = _polynomial(COSINE, square) * radius, _polynomial(SINE, square) * rest * radius
    odd, negative = (quarter & 1).astype(bool), (quarter & 2).astype(bool)
    across, up = np.where(odd, -sine, cosine), np.where(odd, cosine, sine)
    yield np.where(negative, -across, across)
    yield np.where(negative, -up, up)


def _polynomial(coefficients: tuple[Any, ...], x: Array) -> Array:
    total = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total *= x
        total += coefficient
    return total
