# SPDX-License-Identifier: Apache-2.0
"""How long a job will take on a device, and what it will cost there. Pure (docs/adr/0029-a-forecast-learns.md).

The device's own measured rates say how long the run takes; past runs say how far off that is, and how much it varies.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

from qubix_coordinator.ledger.rules import owed_qu
from qubix_coordinator.market.history import (
    NO_RUNS,
    SMALLEST_MS,
    UNKNOWN,
    Band,
    Fit,
    blend,
    moved_fit,
    near,
    pooled,
    sizes_away,
)
from qubix_protocol.charges import FORECAST_DENOMINATOR, FORECAST_NUMERATOR
from qubix_protocol.messages import KernelRate

RUN_MS_MAX: Final = 30 * 86_400_000
CORRECTION_MAX: Final = math.log(4.0)
"""A device's own history makes its forecast four times longer, or shorter, at most."""
OTHERS_MAX: Final = math.log(1.5)
"""What is known of other devices moves the forecast of one without a history by less."""
AROUND_MS: Final = 800
"""What an attempt takes beside its run, where nothing is known: the way to the node, a worker's start, the check."""
TRANSFER_BYTES_PER_MS: Final = 10_000
"""What an ordinary connection carries, 10 MB/s, where nothing is known."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be run. `moved_bytes` go to the node and back."""

    flops: float
    bytes_moved: float
    moved_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Learned:
    """What past runs say of one device and kernel: of the device itself, of others of its model, of all others."""

    own: Fit = NO_RUNS
    alike: Fit = NO_RUNS
    others: Fit = NO_RUNS
    own_around: Fit = NO_RUNS
    others_around: Fit = NO_RUNS
    lately: float = 0.0
    """How far off all of that the device is at this hour."""
    lately_around: float = 0.0

    def usual_run(self) -> Band:
        """How far off the measured rates are."""
        band = blend(blend(UNKNOWN, self.others), self.alike)
        return blend(band.within(OTHERS_MAX), self.own).within(CORRECTION_MAX)

    def usual_around(self) -> Band:
        return blend(blend(UNKNOWN, self.others_around).within(OTHERS_MAX), self.own_around).within(CORRECTION_MAX)

    def run(self) -> Band:
        return self.usual_run().moved(self.lately).within(CORRECTION_MAX)

    def around(self) -> Band:
        return self.usual_around().moved(self.lately_around).within(CORRECTION_MAX)


NOTHING_LEARNED: Final = Learned()


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a device's runs of one size. `pace` is what it claimed then."""

    listing_id: UUID
    model: str
    backend: str
    size: int
    pace: float
    run: Fit
    around: Fit


class Lately(NamedTuple):
    """How far off its history a device is now; logarithms."""

    run: float
    around: float


_AS_USUAL: Final = Lately(0.0, 0.0)


class History:
    """Of one subject, for every device that ever ran it."""

    def __init__(self, found: Iterable[Kept] = (), lately: Mapping[UUID, Lately] | None = None) -> None:
        self._lately = lately or {}
        self._own: dict[tuple[UUID, str], list[Kept]] = defaultdict(list)
        models: dict[tuple[str, str], list[Kept]] = defaultdict(list)
        backends: dict[str, list[Kept]] = defaultdict(list)
        for kept in found:
            self._own[kept.listing_id, kept.backend].append(kept)
            models[kept.model, kept.backend].append(kept)
            backends[kept.backend].append(kept)
        self._models = {key: _pool(several) for key, several in models.items()}
        self._backends = {key: _pool(several) for key, several in backends.items()}

    def of(self, listing_id: UUID, model: str, rate: KernelRate, rated_ms: float) -> Learned:
        """What is known of the device that has this rate, for work that takes it so long by that rate alone."""
        others = self._backends.get(rate.backend, _NO_POOL)
        state = self._lately.get(listing_id, _AS_USUAL)
        own = [(_away_then(one, rate, rated_ms), one) for one in self._own.get((listing_id, rate.backend), ())]
        alike = self._models.get((model, rate.backend), _NO_POOL)
        return Learned(
            own=near((away, moved_fit(one.run, one.pace, pace(rate))) for away, one in own),
            alike=_near(alike.run, rated_ms),
            others=_near(others.run, rated_ms),
            own_around=near((away, one.around) for away, one in own),
            others_around=_near(others.around, rated_ms),
            lately=state.run,
            lately_around=state.around,
        )


def _away_then(kept: Kept, rate: KernelRate, rated_ms: float) -> float:
    """By what the device claimed when it was kept: the size of work is not what a device says today."""
    then = rated_ms * pace(rate) / kept.pace if kept.pace > 0 else rated_ms
    return sizes_away(kept.size, then)


def _near(fits: Mapping[int, Fit], rated_ms: float) -> Fit:
    return near((sizes_away(size, rated_ms), fit) for size, fit in fits.items())


class _Pool(NamedTuple):
    """By size."""

    run: dict[int, Fit]
    around: dict[int, Fit]


_NO_POOL: Final = _Pool({}, {})
NO_HISTORY: Final = History()


def _pool(several: Iterable[Kept]) -> _Pool:
    sizes: dict[int, list[Kept]] = defaultdict(list)
    for kept in several:
        sizes[kept.size].append(kept)
    return _Pool(
        {size: pooled(one.run for one in found) for size, found in sizes.items()},
        {size: pooled(one.around for one in found) for size, found in sizes.items()},
    )


@dataclass(frozen=True, slots=True)
class Forecast:
    """Milliseconds and QU. `run_ms` is what is paid for; `around_ms` is what else passes until the checked result.

    `agreed_ms` is frozen with an attempt: the bill is at most `FORECAST_NUMERATOR / FORECAST_DENOMINATOR` times it
    (trust.md M2), which is `cost_high_qu`. `rated_ms` is the run's time by the measured rates alone: what is learned
    from, like `around_plain_ms`.
    """

    run_ms: int
    run_low_ms: int
    run_high_ms: int
    around_ms: int
    around_low_ms: int
    around_high_ms: int
    agreed_ms: int
    rated_ms: float
    around_plain_ms: float
    usual_ms: float
    usual_around_ms: float
    pace: float
    own_runs: float
    """Past runs of the device's own that it rests on."""
    cost_low_qu: int
    cost_qu: int
    cost_high_qu: int

    @property
    def total_ms(self) -> int:
        """From its assignment to its checked result."""
        return self.run_ms + self.around_ms

    @property
    def total_low_ms(self) -> int:
        return self.run_low_ms + self.around_low_ms

    @property
    def total_high_ms(self) -> int:
        return self.run_high_ms + self.around_high_ms


def rated_ms(rate: KernelRate, work: Work) -> float | None:
    """Roofline, the slower of computing and moving, and what every run takes besides. None when the device measured
    neither."""
    times = []
    if rate.flops_per_s > 0:
        times.append(work.flops / rate.flops_per_s)
    if rate.bytes_per_s > 0:
        times.append(work.bytes_moved / rate.bytes_per_s)
    if not times:
        return None
    # Bounded before anything is made of it: a node may claim to be so slow that the time is no finite number.
    return min((rate.overhead_s + max(times)) * 1000, RUN_MS_MAX)


def pace(rate: KernelRate) -> float:
    """What a device claims, as one number: history is kept beside it, so that another claim changes no forecast."""
    return rate.flops_per_s or rate.bytes_per_s


def forecast(
    rate: KernelRate, work: Work, rate_qu_per_h: int, learned: Learned = NOTHING_LEARNED, bytes_per_ms: float = 0.0
) -> Forecast | None:
    """None when the device has measured nothing to forecast by. `bytes_per_ms`: its connection; 0 when unknown."""
    rated = rated_ms(rate, work)
    if rated is None:
        return None
    around = AROUND_MS + work.moved_bytes / (bytes_per_ms or TRANSFER_BYTES_PER_MS)
    run = Times.of(rated, learned.run())
    beside = Times.of(min(around, RUN_MS_MAX), learned.around())
    agreed_ms = agreed(run.mid_ms, rated)
    return Forecast(
        run_ms=run.mid_ms,
        run_low_ms=run.low_ms,
        run_high_ms=run.high_ms,
        around_ms=beside.mid_ms,
        around_low_ms=beside.low_ms,
        around_high_ms=beside.high_ms,
        agreed_ms=agreed_ms,
        rated_ms=rated,
        around_plain_ms=around,
        usual_ms=moved_ms(rated, learned.usual_run().mid),
        usual_around_ms=moved_ms(around, learned.usual_around().mid),
        pace=pace(rate),
        own_runs=learned.own.runs,
        cost_low_qu=max(1, owed_qu(rate_qu_per_h, run.low_ms)),
        cost_qu=max(1, owed_qu(rate_qu_per_h, run.mid_ms)),
        cost_high_qu=max(1, owed_qu(rate_qu_per_h, -(-agreed_ms * FORECAST_NUMERATOR // FORECAST_DENOMINATOR))),
    )


def agreed(run_ms: int, rated: float) -> int:
    """What the bill is bounded by. However short past runs were, whatever the device's own measurement says can be
    paid: nobody lowers a provider's pay below it by sending work that is quicker than it looks."""
    return max(run_ms, math.ceil(rated * FORECAST_DENOMINATOR / FORECAST_NUMERATOR))


def moved_ms(plain_ms: float, by: float) -> float:
    """The other way round of `history.ratio`. Never negative."""
    return max(0.0, min((plain_ms + SMALLEST_MS) * math.exp(by) - SMALLEST_MS, float(RUN_MS_MAX)))


@dataclass(frozen=True, slots=True)
class Times:
    low_ms: int
    mid_ms: int
    high_ms: int

    @classmethod
    def of(cls, plain_ms: float, band: Band) -> "Times":
        """`plain_ms`, corrected, with its band; whole milliseconds in which the expected time is never outside."""
        mid_ms = max(1, math.ceil(moved_ms(plain_ms, band.mid)))
        return cls(
            low_ms=max(1, min(mid_ms, math.floor(moved_ms(plain_ms, band.low)))),
            mid_ms=mid_ms,
            high_ms=max(mid_ms, math.ceil(moved_ms(plain_ms, band.high))),
        )
