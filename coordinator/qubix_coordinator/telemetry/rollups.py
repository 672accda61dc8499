# SPDX-License-Identifier: Apache-2.0
"""Sums readings up by the minute and by the hour, by one replica at a time.

A minute is made anew from all its samples whenever one of them came, so that nothing is counted twice however often and
by whomever it is done; an hour is made anew from its minutes. What is still to be done stands in `sample_touched`.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from qubix_coordinator.db.database import Database, Tx, execute, rows, value
from qubix_coordinator.telemetry import folding, partitions
from qubix_coordinator.telemetry.folding import HOUR_S, MINUTE_S
from qubix_coordinator.telemetry.partitions import HOURS, MINUTES, SAMPLES

log = logging.getLogger(__name__)
SETTLE_S: Final = 5
"""So long after its end a minute waits for what is on its way; an hour, for its last minute."""
AT_ONCE: Final = 200
_LOCK: Final = 0x726F6C6C
_DUE: Final = """
    DELETE FROM sample_touched WHERE id IN
        (SELECT id FROM sample_touched WHERE span_s = $1 AND start_s <= $2 ORDER BY start_s, id LIMIT $3)
    RETURNING start_s, devices
"""
_PAIRS: Final = "unnest($1::bigint[], $2::bigint[]) AS due (no, begin_s)"
_WRITE_MINUTES: Final = folding.write(
    "sample_minute",
    folding.of_samples(
        f"(SELECT s.* FROM {_PAIRS} JOIN sample s ON s.device_no = due.no"  # noqa: S608 - our own words
        " AND s.at_s >= due.begin_s AND s.at_s < due.begin_s + 60 WHERE s.at_s >= $3 AND s.at_s < $4) AS samples",
        "60",
    ),
)
_WRITE_HOURS: Final = folding.write(
    "sample_hour",
    folding.of_cells(
        f"(SELECT m.* FROM {_PAIRS} JOIN sample_minute m ON m.device_no = due.no"  # noqa: S608 - our own words
        " AND m.start_s >= due.begin_s AND m.start_s < due.begin_s + 3600 WHERE m.start_s >= $3 AND m.start_s < $4)"
        " AS minutes",
        "3600",
    ),
)


async def touch(tx: Tx, span_s: int, devices: Mapping[int, Iterable[int]]) -> None:
    """These devices' stretches of `span_s`, by the second in which each begins, are to be summed up."""
    if devices:
        await execute(
            tx,
            "INSERT INTO sample_touched (span_s, start_s, devices)"
            " SELECT $1, start_s, devices::bigint[] FROM unnest($2::bigint[], $3::text[]) AS t (start_s, devices)",
            span_s,
            list(devices),
            ["{" + ",".join(map(str, sorted(set(numbers)))) + "}" for numbers in devices.values()],
        )


async def roll(db: Database, *, now_ms: int) -> None:
    """All that is due; nothing while another replica is at it."""
    now_s = now_ms // 1000
    while await db.run(lambda tx: _minutes(tx, now_s)):
        pass
    while await db.run(lambda tx: _hours(tx, now_s)):
        pass


async def _minutes(tx: Tx, now_s: int) -> int:
    due = await _due(tx, MINUTE_S, now_s - MINUTE_S - SETTLE_S)
    if due:
        await _make(tx, MINUTES, due, MINUTE_S, _WRITE_MINUTES)
        hours: dict[int, set[int]] = defaultdict(set)
        for start_s, numbers in due.items():
            hours[start_s // HOUR_S * HOUR_S] |= numbers
        await touch(tx, HOUR_S, hours)
    return len(due)


async def _hours(tx: Tx, now_s: int) -> int:
    due = await _due(tx, HOUR_S, now_s - HOUR_S - MINUTE_S - 2 * SETTLE_S)
    if due:
        await _make(tx, HOURS, due, HOUR_S, _WRITE_HOURS)
    return len(due)


async def _due(tx: Tx, span_s: int, until_s: int) -> dict[int, set[int]]:
    """Devices by the second in which their stretch begins; taken off the list, in the transaction that does them."""
    if not await value(tx, "SELECT pg_try_advisory_xact_lock($1)", _LOCK):
        return {}
    found: dict[int, set[int]] = defaultdict(set)
    for row in await rows(tx, _DUE, span_s, until_s, AT_ONCE):
        found[row["start_s"]].update(row["devices"])
    return found


async def _make(tx: Tx, table: partitions.Partitioned, due: Mapping[int, set[int]], span_s: int, sql: str) -> None:
    await partitions.make(tx, table, {table.number(start_s) for start_s in due})
    pairs = sorted((number, start_s) for start_s, numbers in due.items() for number in numbers)
    await execute(tx, sql, [no for no, _ in pairs], [start for _, start in pairs], min(due), max(due) + span_s)


async def tend(db: Database, *, minute_keep_s: int, hour_keep_s: int, sample_keep_s: int, now_ms: int) -> list[str]:
    """Makes the partitions of now and next, and drops those past keeping; gives the dropped ones. What is not summed up
    yet is kept for longer."""
    now_s = now_ms // 1000
    for table in (SAMPLES, MINUTES, HOURS):
        number = table.number(now_s)
        await db.run(lambda tx, t=table, n=number: partitions.make(tx, t, (n, n + 1)))  # type: ignore[misc]
    waits = await db.fetch("SELECT span_s, min(start_s) AS first FROM sample_touched GROUP BY span_s")
    first = {row["span_s"]: row["first"] for row in waits}
    limits = {
        SAMPLES: min(now_s - sample_keep_s, first.get(MINUTE_S, now_s)),
        MINUTES: min(now_s - minute_keep_s, first.get(HOUR_S, now_s), first.get(MINUTE_S, now_s)),
        HOURS: now_s - hour_keep_s,
    }
    dropped: list[str] = []
    for table, limit_s in limits.items():
        dropped += await db.run(lambda tx, t=table, s=limit_s: partitions.drop_before(tx, t, s))  # type: ignore[misc]
    await db.run(lambda tx: _forget_changes(tx, now_ms - hour_keep_s * 1000))
    if dropped:
        log.info("telemetry.dropped", extra={"partitions": dropped})
    return dropped


async def _forget_changes(tx: Tx, limit_ms: int) -> None:
    """All but the one that held at the limit."""
    await execute(
        tx,
        "DELETE FROM listing_change c USING listing_change later WHERE later.listing_no = c.listing_no"
        " AND later.minute > c.minute AND later.at_ms <= $1 AND c.at_ms < $1",
        limit_ms,
    )
