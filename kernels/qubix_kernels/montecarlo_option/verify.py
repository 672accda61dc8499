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
SUSPECTS_MAX: Final = 32
_LANES_MIN: Final = 32
_LANES_SHARE: Final = 32
_BLOCK_COUNTERS: Final = 8192

Floats = NDArray[np.float64]


def lanes_sampled(lanes: int) -> int:
    return min(lanes, max(_LANES_MIN, lanes // _LANES_SHARE))


def verify(
    option: Option,
    first: int,
    paths: int,
    seed: int,
    sums: Array,
    squares: Array,
    rng: Generator,
    false_alarm: float = FALSE_ALARM,
) -> Verdict:
    """`sums` and `squares` have their right form. Whoever orders a job chooses its seed, and may have looked for one
    with an unlikely lane: so what is far from the closed form is suspected, and the replay decides."""
    total, square = sums.astype(np.float64), squares.astype(np.float64)
    if not (np.isfinite(total).all() and np.isfinite(square).all() and (total >= 0).all() and (square >= 0).all()):
        return _rejected("non_finite", "a sum of payoffs is negative or not a number", {})
    whole, single = beside_closed_form(option, paths, total, false_alarm)
    suspects = np.flatnonzero(~(single <= 1))
    measured = {"total_over_chance": whole, "lane_over_chance": float(single.max()), "suspects": float(suspects.size)}
    if suspects.size > SUSPECTS_MAX:
        return _rejected("closed_form", f"{suspects.size} lanes are farther from it than chance allows", measured)
    drawn = rng.choice(len(total), lanes_sampled(len(total)), replace=False)
    chosen = np.union1d(drawn, suspects)
    ratio = _replayed(option, first + chosen, paths, seed, total[chosen], square[chosen])
    worst = int(np.argmax(ratio))
    measured |= {"replayed": float(len(chosen)), "error_over_tolerance": float(ratio[worst])}
    if not ratio[worst] <= 1:
        off = f"is {ratio[worst]:.3g} times farther from its replay than rounding allows"
        return _rejected("replay", f"lane {first + chosen[worst]} {off}", measured)
    if not whole <= 1 and len(chosen) < len(total):
        return _rejected("closed_form", "all lanes together are farther from it than chance allows", measured)
    return Verdict(accepted=True, measured=measured)


def _rejected(reason: str, detail: str, measured: dict[str, float]) -> Verdict:
    return Verdict(accepted=False, reason=reason, detail=detail, measured=measured)


def beside_closed_form(option: Option, paths: int, total: Floats, false_alarm: float) -> tuple[float, Floats]:
    """Distances of the total and of each lane from their expectation, over what chance and rounding allow."""
    mean, variance = option.moments()
    slack = UNIT * 64 * (option.start * math.exp(option.spread**2 / 2) * (1 + option.spread) + option.strike)
    lanes = len(total)
    whole = deviation(option.payoff_max, variance, paths * lanes, false_alarm) + slack
    single = deviation(option.payoff_max, variance, paths, false_alarm / lanes) + slack
    return abs(float(total.sum()) / (paths * lanes) - mean) / whole, np.abs(total / paths - mean) / single


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
