# SPDX-License-Identifier: Apache-2.0
"""How much is watched at most, and what is said when that is too little."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qubix_coordinator.errors import LimitExceeded

if TYPE_CHECKING:
    from qubix_coordinator.feed.watchers import Feed


@dataclass(frozen=True, slots=True)
class Bounds:
    queries: int = 128
    """Different ones in all. Each change of the market is looked at once for each."""
    listings_watched: int = 20_000
    """Of both, visitors begin none once half are there. Who wants the whole market finds room in any case."""
    listings: int = 10_000
    """That a feed begins with. It may grow to twice as many before its watchers are sent away."""
    slow_s: float = 20.0
    """A socket that stays full for so long is given up."""
    linger_s: float = 15.0
    """For so long the table of a query outlives its last watcher, who may only have lost the connection."""
    idle_s: float = 300.0
    """For so long the market is followed without a watcher."""


class TooSlow(LimitExceeded):
    """The client reads slower than things happen, for too long."""


def too_slow(bounds: Bounds) -> TooSlow:
    return TooSlow(
        f"nothing was read for {bounds.slow_s:g} s while more was waiting",
        remedy="Connect again with the last cursor; nothing is lost",
    )


def check_size(feed: "Feed", bounds: Bounds) -> None:
    """Raises LimitExceeded."""
    if len(feed.table.members) > bounds.listings:
        raise outgrown(feed, bounds)


def outgrown(feed: "Feed", bounds: Bounds) -> LimitExceeded:
    return LimitExceeded(
        f"{len(feed.table.members):,} offers match, and a live feed carries at most {bounds.listings:,}",
        field="subscribe",
        remedy="Narrow the query, or page through GET /api/v1/offers",
    )
