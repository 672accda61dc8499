# SPDX-License-Identifier: Apache-2.0
"""Keeps samples: many nodes' in one COPY, each once however often it comes; gives a device's series for charts."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from qubix_coordinator.db.database import Database, Tx, execute, rows
from qubix_coordinator.telemetry import copying, partitions, rollups, rules
from qubix_coordinator.telemetry.copying import Cells
from qubix_coordinator.telemetry.folding import MINUTE_S
from qubix_coordinator.telemetry.partitions import SAMPLES
from qubix_coordinator.telemetry.rules import Once, Said
from qubix_protocol.messages import Sample
from qubix_protocol.units import READINGS_MAX

COLUMNS: Final = {
    "at_ms": "bigint",
    "utilisation_pct": "real",
    "memory_used_bytes": "bigint",
    "memory_total_bytes": "bigint",
    "temperature_c": "real",
    "power_mw": "bigint",
    "clock_mhz": "bigint",
    "memory_busy_pct": "real",
    "memory_clock_mhz": "bigint",
    "power_limit_mw": "bigint",
    "fan_pct": "real",
    "throttle": "text",
    "pcie_rx_bytes_per_s": "bigint",
    "pcie_tx_bytes_per_s": "bigint",
    "processes": "bigint",
    "foreign_processes": "bigint",
    "foreign_memory_bytes": "bigint",
    "ecc_errors": "bigint",
    "retired_pages": "bigint",
    "xid": "bigint",
}
"""Every field of a sample, in their order, and its type in the table, under the same name."""
_NAMES: Final = ", ".join(COLUMNS)
_SAMPLE: Final = operator.attrgetter("sample")
_ROWS: Final = copying.Rows({"device_no": "bigint", "at_s": "bigint", "received_ms": "bigint", **COLUMNS})
_OWN_NUMBER: Final = "(SELECT no FROM listing WHERE peer_id = $1 AND device_id = $2)"
# One sample, the newest, of each stretch of $4 ms; the newest stretches when there are too many.
_SERIES: Final = (
    f"SELECT * FROM (SELECT DISTINCT ON (at_ms / $4::bigint) {_NAMES} FROM sample"  # noqa: S608 - names from above alone
    f" WHERE device_no = {_OWN_NUMBER} AND at_s >= $3::bigint / 1000 AND at_ms >= $3::bigint"
    " ORDER BY at_ms / $4::bigint DESC, at_ms DESC LIMIT $5) AS newest ORDER BY at_ms"
)


Numbered = dict[tuple[str, str], int]
"""The number of each device of each node, by peer and device id."""


class Known(NamedTuple):
    """What need not be asked again, once the transaction that told it is committed: devices, and days that have a
    partition."""

    numbers: Numbered
    days: set[int]


class Kept(NamedTuple):
    """Of a batch, `heard` samples are of devices that are in the market, and `kept` of those were not there before.
    `newest` has the last one of each device, by peer and device id."""

    heard: int
    kept: int
    newest: dict[tuple[str, str], Said]
    known: Known


async def keep(tx: Tx, known: Known, batch: Sequence[Said], *, again: bool = False) -> Kept:
    """One COPY for all of them. `known` need not be complete.

    Raises UniqueViolationError when one of them is there already, and the transaction cannot go on: COPY cannot leave
    it out. `again` can, and costs twice as much.
    """
    found, numbers = _found(known.numbers, batch), Numbered()
    if rules.NOBODY in found:
        strange = {one.peer_id for number, one in zip(found, batch, strict=True) if number == rules.NOBODY}
        numbers = await _numbers(tx, sorted(strange))
        found = [number or new for number, new in zip(found, _found(numbers, batch), strict=True)]
    once = rules.once(found, batch)
    if not once.said:
        return Kept(0, 0, {}, Known(numbers, set()))
    minutes = rules.by_minute(once)
    days = {SAMPLES.number(start_s) for start_s in minutes}
    if days - known.days:
        await partitions.make(tx, SAMPLES, days)
    kept = await (_insert if again else _copy)(tx, once, minutes)
    return Kept(len(batch) - found.count(rules.NOBODY), kept, rules.newest(once), Known(numbers, days))


def _found(numbers: Numbered, batch: Sequence[Said]) -> list[int]:
    return [numbers.get((one.peer_id, one.device_id), rules.NOBODY) for one in batch]


async def _numbers(tx: Tx, peers: Sequence[str]) -> Numbered:
    """Of the devices that these nodes ever had in the market: what they say of others is nobody's business, and would
    fill the table."""
    listed = await rows(tx, "SELECT peer_id, device_id, no FROM listing WHERE peer_id = ANY($1::text[])", peers)
    await execute(
        tx,
        "INSERT INTO sample_device (no) SELECT unnest($1::bigint[]) ON CONFLICT DO NOTHING",
        sorted(row["no"] for row in listed),
    )
    return {(row["peer_id"], row["device_id"]): row["no"] for row in listed}


def _cells(once: Once, some: slice) -> Sequence[Cells]:
    """The columns of some rows. In one order everywhere, so that two replicas that write the same wait for each other
    once."""
    said = once.said[some]
    told = zip(*map(msgspec.structs.astuple, map(_SAMPLE, said)), strict=True)
    return (once.numbers[some], once.seconds[some], [one.received_ms for one in said], *told)


async def _copy(tx: Tx, once: Once, minutes: Mapping[int, Iterable[int]]) -> int:
    """Of a single day, straight into its partition, which refuses whatever is not of that day."""
    days = {SAMPLES.number(at_s) for at_s in (int(once.seconds.min()), int(once.seconds.max()))}
    table = "sample" if len(days) > 1 else SAMPLES.name(*days)
    count, touch = len(once.said), rollups.touch(tx, MINUTE_S, minutes)
    await _ROWS.copy(tx, table, count, lambda some: _cells(once, some), touch)
    return count


async def _insert(tx: Tx, once: Once, minutes: Mapping[int, Iterable[int]]) -> int:
    """By a table of this connection's own; how many were new."""
    await execute(tx, "CREATE TEMP TABLE IF NOT EXISTS sample_again (LIKE sample) ON COMMIT DELETE ROWS")
    await _ROWS.copy(tx, "sample_again", len(once.said), lambda some: _cells(once, some))
    names = ", ".join(_ROWS.names)
    new = await rows(
        tx,
        f"WITH new AS (INSERT INTO sample ({names}) SELECT {names} FROM sample_again"  # noqa: S608 - names from above
        " ORDER BY device_no, at_s ON CONFLICT DO NOTHING RETURNING 1) SELECT count(*) AS new FROM new",
    )
    kept = int(new[0]["new"])
    if kept:
        await rollups.touch(tx, MINUTE_S, minutes)
    return kept


class Use(NamedTuple):
    """How many readings there were, and the mean of those that told the use."""

    readings: int
    mean_pct: float | None


async def use_between(tx: Tx, peer_id: str, device_id: str, since_ms: int, until_ms: int) -> Use:
    """Both ends are part of it."""
    found = await rows(
        tx,
        "SELECT count(*) AS n, avg(utilisation_pct)::float8 AS mean FROM sample"  # noqa: S608 - our own words
        f" WHERE device_no = {_OWN_NUMBER} AND at_s BETWEEN $3::bigint / 1000 AND $4::bigint / 1000"
        " AND at_ms BETWEEN $3::bigint AND $4::bigint",
        peer_id,
        device_id,
        since_ms,
        until_ms,
    )
    return Use(found[0]["n"], found[0]["mean"])


async def series(db: Database, peer_id: str, device_id: str, *, since_ms: int, now_ms: int) -> list[Sample]:
    """A device's samples since then, oldest first, thinned to at most `READINGS_MAX`."""
    stretch_ms = rules.stretch_ms(now_ms - since_ms, READINGS_MAX)
    found = await db.run(lambda tx: rows(tx, _SERIES, peer_id, device_id, since_ms, stretch_ms, READINGS_MAX))
    return [_sample(dict(row)) for row in found]


def _sample(row: dict[str, Any]) -> Sample:
    words = row.pop("throttle")
    return Sample(**row, throttle=None if words is None else tuple(filter(None, words.split(","))))
