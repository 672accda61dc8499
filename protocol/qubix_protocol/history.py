# SPDX-License-Identifier: Apache-2.0
"""Bodies of the API about what a listing was like over time. Times are milliseconds by the coordinator's clock."""

from enum import StrEnum
from typing import Final

from qubix_protocol.api import View
from qubix_protocol.messages import Id
from qubix_protocol.states import Availability

HISTORY_POINTS_MAX: Final = 1_000
HISTORY_CHANGES_MAX: Final = 1_000


class HistorySource(StrEnum):
    """What the points are made of."""

    SAMPLE = "sample"
    MINUTE = "minute"
    HOUR = "hour"


class GaugeView(View, frozen=True, kw_only=True):
    """Of the readings that told this gauge."""

    min: float
    mean: float
    max: float
    last: float


class HistoryPoint(View, frozen=True, kw_only=True):
    """What was read in `bucket_ms` from `start_ms` on. A time without a reading has no point: nothing is made up."""

    start_ms: int
    samples: int
    utilisation_pct: GaugeView | None
    temperature_c: GaugeView | None
    memory_used_bytes: GaugeView | None
    power_mw: GaugeView | None
    clock_mhz: GaugeView | None
    memory_total_bytes: int | None
    throttled: float | None
    """Share of the readings in which something but idleness lowered the clock; None: the card does not tell."""


class ListingChange(View, frozen=True, kw_only=True):
    """Price and availability from `at_ms` on, until the next change. Of several in one minute, the last."""

    at_ms: int
    rate_qu_per_h: int
    availability: Availability


class HistoryView(View, frozen=True, kw_only=True):
    """`GET /offers/{listing_id}/history?since=&until=&points=`: readings and changes, oldest first, in at most `points`
    points. The first change is the one that held at `since`, where one is known; of many, the newest."""

    listing_id: Id
    source: HistorySource
    bucket_ms: int
    since_ms: int
    until_ms: int
    points: tuple[HistoryPoint, ...]
    changes: tuple[ListingChange, ...]
