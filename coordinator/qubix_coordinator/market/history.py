# SPDX-License-Identifier: Apache-2.0
"""What past runs say of the next one. Pure; everything is the natural logarithm of actual over forecast time.

Runs are kept by the size of the work: small work is slower for each operation. A time between two sizes goes by both.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

RUNS_KEPT: Final = 32
"""The newest of a device, kernel, back end and size: what was long ago does not hold for ever."""
SIZE_MAX: Final = 16
RATIO_MAX: Final = math.log(100.0)
SMALLEST_MS: Final = 1.0
"""Times are told in whole milliseconds: below this, how far off a forecast was says nothing."""
LOW: Final = 0.1
HIGH: Final = 0.9
FLOOR: Final = math.log(1.05)
"""A band is never narrower than this on either side."""
DOUBT_RUNS: Final = 0.5
"""So many runs weigh as much as what was believed of the middle before them."""
DOUBT_WIDTH_RUNS: Final = 3.0
"""And so many as what was believed of the band: how much runs vary is known later than how long they take."""
LATELY_RUNS: Final = 5
LATELY_HALF_MS: Final = 600_000
"""What was so ten minutes ago counts for half."""
LATELY_KEPT_MS: Final = 6 * LATELY_HALF_MS
LATELY_MAX: Final = math.log(3.0)
POOL_RUNS_MAX: Final = 8
"""What many other devices say weighs no more than so many runs."""
_NEAR: Final = 0.05
_FAR_SIZES: Final = 2.5


@dataclass(frozen=True, slots=True)
class Fit:
    """The median, and the 10 and 90 % quantiles, of so many runs. `runs` may be a fraction: runs of other sizes count
    for less."""

    runs: float
    mid: float
    low: float
    high: float


NO_RUNS: Final = Fit(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Band:
    mid: float
    low: float
    high: float

    def moved(self, by: float) -> "Band":
        return Band(self.mid + by, self.low + by, self.high + by)

    def within(self, most: float) -> "Band":
        """The middle moved to what is allowed, and the band with it."""
        return self.moved(min(max(self.mid, -most), most) - self.mid)


UNKNOWN: Final = Band(0.0, -math.log(1.5), math.log(1.5))
"""Before any run: from a third less to half as much again."""


def size_of(plain_ms: float) -> int:
    """The class of work that is forecast to take so long, by the device's rates alone: each is four times the last."""
    return min(SIZE_MAX, max(0, round(_place(plain_ms))))


def _place(plain_ms: float) -> float:
    return math.log(max(plain_ms, 1.0), 4.0)


def ratio(actual_ms: float, plain_ms: float) -> float:
    """What is learned from one run."""
    return math.log((max(actual_ms, 0.0) + SMALLEST_MS) / (max(plain_ms, 0.0) + SMALLEST_MS))


def moved(ratios: Sequence[float], claimed_then: float, claimed_now: float) -> list[float]:
    """Runs that were kept beside another claim: a device that now claims twice the pace is twice as far off."""
    by = _claimed(claimed_then, claimed_now)
    return [one + by for one in ratios]


def moved_fit(fit: Fit, claimed_then: float, claimed_now: float) -> Fit:
    by = _claimed(claimed_then, claimed_now)
    return replace(fit, mid=fit.mid + by, low=fit.low + by, high=fit.high + by)


def _claimed(then: float, now: float) -> float:
    return math.log(now) - math.log(then) if then > 0 and now > 0 else 0.0


def remember(kept: Sequence[float], ratio: float) -> list[float]:
    return [*kept, min(max(ratio, -RATIO_MAX), RATIO_MAX)][-RUNS_KEPT:]


def lately(ratios: Sequence[float], age_ms: int) -> float:
    """How far off the history a device is now, by its newest runs of whatever kernel: another load, heat. It fades."""
    if not ratios:
        return 0.0
    trust = len(ratios) / (len(ratios) + 1)
    fresh = math.exp2(-max(0, age_ms) / LATELY_HALF_MS)
    return min(max(quantile(sorted(ratios), 0.5) * trust * fresh, -LATELY_MAX), LATELY_MAX)


def remember_lately(kept: Sequence[float], ratio: float) -> list[float]:
    return remember(kept, ratio)[-LATELY_RUNS:]


def fit_of(ratios: Sequence[float]) -> Fit:
    if not ratios:
        return NO_RUNS
    ordered = sorted(ratios)
    return Fit(len(ordered), quantile(ordered, 0.5), quantile(ordered, LOW), quantile(ordered, HIGH))


def quantile(ordered: Sequence[float], part: float) -> float:
    """Between the two nearest of them."""
    at = part * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


def pooled(fits: Iterable[Fit]) -> Fit:
    """Of several devices, each with one voice however much it ran."""
    found = [one for one in fits if one.runs >= 1]
    if not found:
        return NO_RUNS
    return Fit(
        runs=min(len(found), POOL_RUNS_MAX),
        mid=quantile(sorted(one.mid for one in found), 0.5),
        low=quantile(sorted(one.low for one in found), LOW),
        high=quantile(sorted(one.high for one in found), HIGH),
    )


def sizes_away(size: int, plain_ms: float) -> float:
    return abs(min(max(_place(plain_ms), 0.0), float(SIZE_MAX)) - size)


def near(fits: Iterable[tuple[float, Fit]]) -> Fit:
    """For work so many sizes away from each of them: the nearer, the more its runs count."""
    runs = weights = mid = low = high = 0.0
    for away, fit in fits:
        share = _share(away)
        weight = share * fit.runs / (fit.runs + 1)
        runs, weights = runs + share * fit.runs, weights + weight
        mid, low, high = mid + weight * fit.mid, low + weight * fit.low, high + weight * fit.high
    if weights == 0:
        return NO_RUNS
    return Fit(runs, mid / weights, low / weights, high / weights)


def _share(away: float) -> float:
    return max(1.0 - away, _NEAR if away <= _FAR_SIZES else 0.0)


def blend(before: Band, found: Fit) -> Band:
    """What was believed, moved by what was found as far as there was enough of it: few runs leave it wide."""
    if found.runs <= 0:
        return before
    trust = found.runs / (found.runs + DOUBT_RUNS)
    mid = before.mid + trust * (found.mid - before.mid)
    trust = found.runs / (found.runs + DOUBT_WIDTH_RUNS)
    few = 1 + 1 / max(found.runs, 1.0)  # the quantiles of few runs lie too near to each other
    below = (1 - trust) * (before.mid - before.low) + trust * few * (found.mid - found.low)
    above = (1 - trust) * (before.high - before.mid) + trust * few * (found.high - found.mid)
    return Band(mid, mid - max(below, FLOOR), mid + max(above, FLOOR))
