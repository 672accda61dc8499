# SPDX-License-Identifier: Apache-2.0
"""Which of those that fit and are free gets the work: a rule, not an auction. Pure; `luck` is the only chance in it.

    expected cost = forecast cost × tries × (1.2 when it is in another region than was asked for)
    tries         = 1 / ((0.5 + 0.5 × reliability) × 0.8 ^ failures in a row)

The least expected cost is the best. Those that ask at most 5 % more than it and need at most a fifth more tries are
alike; of them, those that take at most a quarter longer than the fastest; of them, the provider that has least to do
now; of those, luck. One draw in ten goes to those who ask no more than the alike and are less proven, where they are
not much slower and little is at stake: so who begins rises by work, who failed comes back, and no record keeps
everybody else out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

UNKNOWN: Final = 0.5
"""The chance that is assumed of somebody without a record: it costs twice what it asks, until it has one."""
FAILED_LATELY: Final = 0.8
FAILURES_MAX: Final = 16
OTHER_REGION: Final = 1.2
PRICE_ALIKE: Final = 1.05
TRIES_ALIKE: Final = 1.2
AS_FAST: Final = 1.25
NEWCOMERS_SHARE: Final = 0.1
NEWCOMERS_QU_MAX: Final = 1_000
NEWCOMERS_SLOWER_MAX: Final = 2.0


@dataclass(frozen=True, slots=True)
class Bid:
    """What it would be to give the work to one device. `failures`: in a row, lately."""

    key: str
    provider: str
    cost_qu: int
    run_ms: int
    reliability: float = 0.0
    failures: int = 0
    elsewhere: bool = False
    """In another region than was asked for."""
    occupied: bool = False
    """By its own word, which may be about the job that has just ended."""
    load: int = 0
    """What its provider is doing for the market now."""


def tries(reliability: float, failures: int) -> float:
    """How often the work would have to be given to the likes of it until it is done."""
    chance = (UNKNOWN + (1.0 - UNKNOWN) * reliability) * FAILED_LATELY ** min(failures, FAILURES_MAX)
    return 1.0 / chance


def price_qu(bid: Bid) -> float:
    """What it asks, as far as the consumer would rather have it elsewhere more than that."""
    return bid.cost_qu * (OTHER_REGION if bid.elsewhere else 1.0)


def expected_qu(bid: Bid) -> float:
    return price_qu(bid) * tries(bid.reliability, bid.failures)


def order(bid: Bid) -> tuple[bool, float, int, str]:
    """Lower is better; the key breaks ties."""
    return bid.occupied, expected_qu(bid), bid.run_ms, bid.key


def pick(bids: Sequence[Bid], luck: float) -> Bid:
    """`luck` in [0, 1), drawn anew for each choice. There must be a bid."""
    best = min(bids, key=order)
    near = [one for one in bids if one.occupied == best.occupied and price_qu(one) <= price_qu(best) * PRICE_ALIKE]
    new = _less_proven(near, best)
    if not new:
        return _spread(_alike(near, best), luck)
    if luck < NEWCOMERS_SHARE:
        return _spread(new, luck / NEWCOMERS_SHARE)
    return _spread(_alike(near, best), (luck - NEWCOMERS_SHARE) / (1.0 - NEWCOMERS_SHARE))


def _is_alike(one: Bid, best: Bid) -> bool:
    return tries(one.reliability, one.failures) <= tries(best.reliability, best.failures) * TRIES_ALIKE


def _alike(near: Sequence[Bid], best: Bid) -> list[Bid]:
    alike = [one for one in near if _is_alike(one, best)]
    fast = min(one.run_ms for one in alike) * AS_FAST
    return [one for one in alike if one.run_ms <= fast]


def _less_proven(near: Sequence[Bid], best: Bid) -> list[Bid]:
    return [
        one
        for one in near
        if not _is_alike(one, best)
        and one.cost_qu <= NEWCOMERS_QU_MAX
        and one.run_ms <= best.run_ms * NEWCOMERS_SLOWER_MAX
    ]


def _spread(bids: Sequence[Bid], luck: float) -> Bid:
    """A provider that has least to do, by luck, and its best device: who has many devices is not drawn more often."""
    least = min(one.load for one in bids)
    free = [one for one in bids if one.load == least]
    providers = sorted({one.provider for one in free})
    drawn = providers[min(len(providers) - 1, math.floor(luck * len(providers)))]
    return min((one for one in free if one.provider == drawn), key=order)
