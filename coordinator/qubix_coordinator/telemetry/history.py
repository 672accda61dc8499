# SPDX-License-Identifier: Apache-2.0
"""What a listing was like over time: the readings of its device as the points of a chart, its price, its availability.

Points are made of samples, minutes or hours, whichever suffices. What is not summed up yet is read from what it will be
summed up from, so that a chart never waits for the roll-ups, and never differs from them.
"""

from typing import Any, Final
from uuid import UUID

from qubix_coordinator.db.database import Database, Row, Tx, rows, value
from qubix_coordinator.errors import InvalidInput, NotFound
from qubix_coordinator.telemetry import folding, rules
from qubix_coordinator.telemetry.folding import GAUGES, HOUR_S, MINUTE_S
from qubix_protocol.history import (
    HISTORY_CHANGES_MAX,
    GaugeView,
    HistoryPoint,
    HistorySource,
    HistoryView,
    ListingChange,
)
from qubix_protocol.states import Availability

# $1 device, $2 from second, $3 before second, $4 seconds of a point; of what is still to be summed up: $5 the minutes,
# $6 from and $7 before which second they are, $8 the hours, $9 from and $10 before which second.
_WITHIN: Final = "device_no = $1 AND {0} >= $2 AND {0} < $3"
_SAMPLES: Final = f"SELECT * FROM sample WHERE {_WITHIN.format('at_s')}"  # noqa: S608 - our own words, here and below
_MINUTES: Final = f"SELECT device_no, start_s, {folding.CELLS} FROM sample_minute WHERE {_WITHIN.format('start_s')}"  # noqa: S608
_HOURS: Final = f"SELECT device_no, start_s, {folding.CELLS} FROM sample_hour WHERE {_WITHIN.format('start_s')}"  # noqa: S608
_FRESH: Final = folding.of_samples(
    f"({_SAMPLES} AND at_s >= $6 AND at_s < $7 AND at_s / 60 * 60 = ANY ($5::bigint[])) AS samples", "60"
)
_ALL_MINUTES: Final = (
    f"{_MINUTES} AND start_s <> ALL ($5::bigint[]) UNION ALL"  # noqa: S608
    f" SELECT device_no, start_s, {folding.CELLS} FROM ({_FRESH}) AS fresh"
)
_FRESH_HOURS: Final = folding.of_cells(
    f"(SELECT * FROM ({_ALL_MINUTES}) AS minutes"  # noqa: S608
    " WHERE start_s >= $9 AND start_s < $10 AND start_s / 3600 * 3600 = ANY ($8::bigint[])) AS minutes",
    "3600",
)
_ALL_HOURS: Final = (
    f"{_HOURS} AND start_s <> ALL ($8::bigint[]) UNION ALL"  # noqa: S608
    f" SELECT device_no, start_s, {folding.CELLS} FROM ({_FRESH_HOURS}) AS fresh"
)
_BUCKET: Final = "$4::bigint"
_SUMMED: Final = {
    HistorySource.SAMPLE: folding.of_samples(f"({_SAMPLES}) AS samples", _BUCKET),
    HistorySource.MINUTE: folding.of_cells(f"({_MINUTES}) AS minutes", _BUCKET),
    HistorySource.HOUR: folding.of_cells(f"({_HOURS}) AS hours", _BUCKET),
}
_WITH_FRESH: Final = {
    HistorySource.MINUTE: folding.of_cells(f"({_ALL_MINUTES}) AS minutes", _BUCKET),
    HistorySource.HOUR: folding.of_cells(f"({_ALL_HOURS}) AS hours", _BUCKET),
}
_WAITING: Final = """
    SELECT DISTINCT span_s, start_s FROM sample_touched
     WHERE $1 = ANY (devices) AND start_s >= $2 AND start_s < $3
"""
_CHANGES: Final = """
    SELECT at_ms, rate_qu_per_h, availability FROM listing_change
     WHERE listing_no = $1 AND at_ms < $3 AND minute >= coalesce((SELECT max(minute) FROM listing_change
           WHERE listing_no = $1 AND at_ms <= $2), 0)
     ORDER BY minute DESC LIMIT $4
"""


async def history(
    db: Database,
    listing_id: UUID,
    *,
    since_ms: int,
    until_ms: int,
    points: int,
    now_ms: int,
    keep: rules.Keeping,
) -> HistoryView:
    """Until now at most. Raises NotFound, InvalidInput."""
    until_ms = min(until_ms, now_ms)
    if since_ms >= until_ms:
        raise InvalidInput("since", "it is not before `until` and before now", "Give an earlier time")
    plan = rules.plan(since_ms, until_ms, points, now_ms, keep)

    async def step(tx: Tx) -> tuple[list[Row], list[Row]]:
        number = await value(tx, "SELECT no FROM listing WHERE id = $1", listing_id)
        if number is None:
            raise NotFound("there is no such listing", field="listing_id", remedy="List the market with GET /offers")
        changes = await rows(tx, _CHANGES, number, since_ms, until_ms, HISTORY_CHANGES_MAX)
        return await _points(tx, number, plan), changes

    # One view of all tables: the roll-ups must not move on in between.
    found, changes = await db.run(step, "repeatable_read")
    return HistoryView(
        listing_id=str(listing_id),
        source=plan.source,
        bucket_ms=plan.bucket_s * 1000,
        since_ms=since_ms,
        until_ms=until_ms,
        points=tuple(_point(row) for row in found),
        changes=tuple(_change(row) for row in reversed(changes)),
    )


async def _points(tx: Tx, number: int, plan: rules.Plan) -> list[Row]:
    minutes, hours = set[int](), set[int]()
    if plan.source is not HistorySource.SAMPLE:
        for row in await rows(tx, _WAITING, number, plan.since_s - HOUR_S, plan.until_s):
            (minutes if row["span_s"] == MINUTE_S else hours).add(row["start_s"])
        hours |= {start_s // HOUR_S * HOUR_S for start_s in minutes}
    asked: list[object] = [number, plan.since_s, plan.until_s, plan.bucket_s]
    waits = hours if plan.source is HistorySource.HOUR else minutes
    if not waits:
        return await rows(tx, f"{_SUMMED[plan.source]} ORDER BY start_s", *asked)
    asked += [sorted(minutes), *_reach(minutes, MINUTE_S)]
    if plan.source is HistorySource.HOUR:
        asked += [sorted(hours), *_reach(hours, HOUR_S)]
    return await rows(tx, f"{_WITH_FRESH[plan.source]} ORDER BY start_s", *asked)


def _reach(starts: set[int], span_s: int) -> tuple[int, int]:
    """From the first until the end of the last, so that nothing else is looked through."""
    return (min(starts), max(starts) + span_s) if starts else (0, 0)


def _point(row: Row) -> HistoryPoint:
    told: dict[str, Any] = {name: _gauge(row, name) for name in GAUGES}
    return HistoryPoint(
        start_ms=row["start_s"] * 1000,
        samples=row["samples"],
        memory_total_bytes=row["memory_total_bytes"],
        throttled=row["throttled_n"] / row["throttle_n"] if row["throttle_n"] else None,
        **told,
    )


def _gauge(row: Row, name: str) -> GaugeView | None:
    count = row[f"{name}_n"]
    if not count:
        return None
    low, high = row[f"{name}_min"], row[f"{name}_max"]
    # A sum of many is rounded: the mean of what never changed is what it was.
    mean = min(max(row[f"{name}_sum"] / count, low), high)
    return GaugeView(min=low, mean=mean, max=high, last=row[f"{name}_last"])


def _change(row: Row) -> ListingChange:
    return ListingChange(
        at_ms=row["at_ms"], rate_qu_per_h=row["rate_qu_per_h"], availability=Availability(row["availability"])
    )
