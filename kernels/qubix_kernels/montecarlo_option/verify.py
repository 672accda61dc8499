# SPDX-License-Identifier: Apache-2.0
"""Judges lanes in three ways: every lane's sum and their total beside the closed form, and a sample of lanes replayed
in float64. notes.md derives what float32 may be off by, and what chance may be."""

import math
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qubix_kernels.kernel import Verdict
from qubix_kernels.montecarlo_option.draws import PATHS_PER_COUNTER, of_lane_numbers, turned, uniform
from qubix_kernels.montecarlo_option.model import Option
from qubix_protocol.arrays import Array

UNIT: Final = 2.0**-24
PATH_ROUNDINGS: Final = 8.0
"""In units of UNIT: of a price, and of the exponent for each unit of spread and radius."""
SUM_ROUNDINGS: Final = 16.0
"""Of a lane's sum, relative, beside what its paths are off by."""
FALSE_ALARM: Final = 1e-12
"""How likely chance alone makes a check against the closed form fail."""
_LANES_MIN: Final = 32
_LANES_SHARE: Final = 32
_BLOCK_COUNTERS: Final = 8192

Floats = NDArray[np.float64]


def lanes_sampled(lanes: int) -> int:
    return min(lanes, max(_LANES_MIN, lanes // _LANES_SHARE))


def verify(option: Option, first: int, paths: int, seed: int, sums: Array, squares: Array, rng: Generator) -> Verdict:
    """`sums` and `squares` have their right form."""
    total, square = sums.astype(np.float64), squares.astype(np.float64)
    if not (np.isfinite(total).all() and np.isfinite(square).all() and (total >= 0).all() and (square >= 0).all()):
        return Verdict(accepted=False, reason="non_finite", detail="a sum of payoffs is negative or not a number")
    measured = _beside_closed_form(option, paths, total)
    if not all(ratio <= 1 for ratio in measured.values()):
        detail = "sums of payoffs are farther from the closed form than chance allows"
        return Verdict(accepted=False, reason="closed_form", detail=detail, measured=measured)
    chosen = np.sort(rng.choice(len(total), lanes_sampled(len(total)), replace=False))
    ratio = _replayed(option, first + chosen, paths, seed, total[chosen], square[chosen])
    worst = int(np.argmax(ratio))
    measured |= {"replayed": float(len(chosen)), "error_over_tolerance": float(ratio[worst])}
    if ratio[worst] <= 1:
        return Verdict(accepted=True, measured=measured)
    detail = f"lane {first + chosen[worst]} is {ratio[worst]:.3g} times farther from its replay than rounding allows"
    return Verdict(accepted=False, reason="replay", detail=detail, measured=measured)


def _beside_closed_form(option: Option, paths: int, total: Floats) -> dict[str, float]:
    """Distances of the total and of the worst lane from their expectation, over what chance and rounding allow."""
    mean, variance = option.moments()
    slack = UNIT * 64 * (option.start * math.exp(option.spread**2 / 2) * (1 + option.spread) + option.strike)
    lanes = len(total)
    whole = abs(float(total.sum()) / (paths * lanes) - mean)
    worst = float(np.abs(total / paths - mean).max())
    return {
        "total_over_chance": whole / (deviation(option.payoff_max, variance, paths * lanes, FALSE_ALARM) + slack),
        "lane_over_chance": worst / (deviation(option.payoff_max, variance, paths, FALSE_ALARM / lanes) + slack),
    }


def deviation(largest: float, variance: float, count: int, chance: float) -> float:
    """How far the mean of so many independent payoffs from 0 to `largest` strays with less than this chance, by
    Bernstein's inequality, which holds for any distribution and any count."""
    log = math.log(2 / chance)
    third = largest * log / (3 * count)
    return third + math.sqrt(third * third + 2 * variance * log / count)


def _replayed(option: Option, lane: NDArray[np.intp], paths: int, seed: int, total: Floats, square: Floats) -> Floats:
    """Per lane, the larger error of its two sums over what rounding allows."""
    ratio, counters = np.empty(len(lane)), -(-paths // PATHS_PER_COUNTER)
    step = max(1, _BLOCK_COUNTERS // counters)
    for start in range(0, len(lane), step):
        part = slice(start, start + step)
        payoff, slack = _paths(option, lane[part].astype(np.uint32)[:, None], counters, seed)
        payoff, slack = payoff[:, :paths], slack[:, :paths]
        ratio[part] = np.maximum(
            _over(total[part], payoff, slack), _over(square[part], payoff**2, (2 * payoff + slack) * slack)
        )
    return ratio


def _over(claimed: Floats, terms: Floats, slack: Floats) -> Floats:
    exact = terms.sum(axis=1)
    allowed = slack.sum(axis=1) + SUM_ROUNDINGS * UNIT * exact
    fallback = np.where(claimed == exact, 0.0, np.inf)
    ratio: Floats = np.divide(np.abs(claimed - exact), allowed, where=allowed > 0, out=fallback)
    return ratio


def _paths(option: Option, lane: Array, counters: int, seed: int) -> tuple[Floats, Floats]:
    """Payoffs in float64, and how far float32 may be off; both of shape (lanes, paths)."""
    radii, normals = [], []
    for first, second in of_lane_numbers(lane, counters, seed):
        radius = np.sqrt(-2 * np.log(uniform(first, np.float64)))
        quarter, rest = turned(second, np.float64)
        angle = (quarter + rest) * (math.pi / 2)
        radii += [radius, radius]
        normals += [radius * np.cos(angle), radius * np.sin(angle)]
    radius, normal = (np.stack(parts, axis=2).reshape(len(lane), -1) for parts in (radii, normals))
    price = option.start * np.exp(option.spread * normal)
    off = PATH_ROUNDINGS * UNIT * price * (1 + option.spread * radius) + 2 * UNIT * option.strike
    gain = option.sign * (price - option.strike)
    return np.maximum(gain, 0), np.where(gain > -off, off, 0)
