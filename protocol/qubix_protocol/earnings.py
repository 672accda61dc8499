# SPDX-License-Identifier: Apache-2.0
"""Bodies of the API about what a provider earned. As in `api`: JSON, whole QU, milliseconds."""

from enum import StrEnum

from qubix_protocol.api import View
from qubix_protocol.messages import Id, Peer


class Period(StrEnum):
    """By the calendar of the time zone that is asked for; weeks are ISO weeks and begin on Monday."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class WorkKind(StrEnum):
    JOB = "job"
    RENTAL = "rental"


class Sums(View, frozen=True, kw_only=True):
    """`net_qu = earned_qu + awarded_qu - taken_back_qu`: what the account's balance gained by work."""

    earned_qu: int
    """Settled to the provider, after the fee."""
    fee_qu: int
    """What the market kept of the same settlements; never a part of `earned_qu`."""
    awarded_qu: int
    """Won in disputes that the provider opened."""
    taken_back_qu: int
    """Given back to consumers by decisions."""
    net_qu: int
    settlements: int


class EarningsPeriod(Sums, frozen=True, kw_only=True):
    """One day, week or month in which something moved. `first_day` is its first day, as 2026-11-23."""

    first_day: str
    since_ms: int
    until_ms: int


class EarningsListing(Sums, frozen=True, kw_only=True):
    """One device's part of the whole; no listing: what belongs to none."""

    listing_id: Id | None
    provider: Peer | None
    model: str


class EarningsView(View, frozen=True, kw_only=True):
    """`GET /account/earnings?by=&since=&until=&tz=`: from `since` until before `until`, both optional, in milliseconds.
    Periods oldest first; of more than `EARNINGS_PERIODS_MAX` the newest. `whole` and `listings` are about all of it."""

    by: Period
    tz: str
    whole: Sums
    periods: tuple[EarningsPeriod, ...]
    listings: tuple[EarningsListing, ...]


class WorkView(View, frozen=True, kw_only=True):
    """One attempt at a job, or one rental, on a device of the account's nodes. What an attempt on a rented device earns
    is the rental's."""

    kind: WorkKind
    work_id: Id
    """The attempt's or the rental's."""
    job_id: Id | None
    rental_id: Id | None
    listing_id: Id
    provider: Peer
    model: str
    kernel: str
    state: str
    reason: str
    reason_text: str
    created_ms: int
    started_ms: int | None
    ended_ms: int | None
    billed_ms: int
    rate_qu_per_h: int
    paid_qu: int
    fee_qu: int
    owed_qu: int
    """For delivered work that waits for its acceptance."""
    taken_back_qu: int


class WorksView(View, frozen=True, kw_only=True):
    """`GET /account/work`: newest first."""

    work: tuple[WorkView, ...]
    next: str | None = None
