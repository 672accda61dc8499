# SPDX-License-Identifier: Apache-2.0
"""Keeps samples: many nodes' in one COPY, each once however often it comes; gives a device's series for charts."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from asyncpg import UniqueViolationError

from qubix_coordinator.db.database import Database, Tx, execute, rows
from qubix_coordinator.telemetry import partitions, rollups, rules
from qubix_coordinator.telemetry.folding import MINUTE_S
from qubix_coordinator.telemetry.partitions import SAMPLES
from qubix_coordinator.telemetry.rules import Said
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
"""Every field of a sample and its type in the table, under the same name."""
_NAMES: Final = ", ".join(COLUMNS)
_WRITTEN: Final = ("device_no", "at_s", "received_ms", *COLUMNS)
_OWN_NUMBER: Final = "(SELECT no FROM listing WHERE peer_id = $1 AND device_id = $2)"
# One sample, the newest, of each stretch of $4 ms; the newest stretches when there are too many.
_SERIES: Final = (
    f"SELECT * FROM (SELECT DISTINCT ON (at_ms / $4::bigint) {_NAMES} FROM sample"  # noqa: S608 - names from above alone
    f" WHERE device_no = {_OWN_NUMBER} AND at_s >= $3::bigint / 1000 AND at_ms >= $3::bigint"
    " ORDER BY at_ms / $4::bigint DESC, at_ms DESC LIMIT $5) AS newest ORDER BY at_ms"
)


Numbered = dict[tuple[str, str], int]
"""The number of each device of each node, by peer and device id."""


class Kept(NamedTuple):
    """`heard` are the samples of devices that are in the market; `kept` of them were not known before. `numbers` are
    theirs, to be known once this is committed."""

    heard: list[Said]
    kept: int
    numbers: Numbered


async def keep(tx: Tx, known: Numbered, batch: Sequence[Said]) -> Kept:
    """One COPY for all of them. `known` need not be complete."""
    numbers = await _numbers(tx, known, batch)
    heard = [one for one in batch if (one.peer_id, one.device_id) in numbers]
    written = sorted(_record(numbers[(one.peer_id, one.device_id)], one) for one in rules.once(heard))
    if not written:
        return Kept(heard, 0, numbers)
    await partitions.make(tx, SAMPLES, {SAMPLES.number(record[1]) for record in written})
    kept = await _copy(tx, written)
    if kept:
        await rollups.touch(tx, MINUTE_S, _by_minute(written))
    return Kept(heard, kept, numbers)


def _by_minute(written: Sequence[tuple[Any, ...]]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for number, at_s, *_ in written:
        found[at_s // MINUTE_S * MINUTE_S].add(number)
    return found


async def _numbers(tx: Tx, known: Numbered, batch: Sequence[Said]) -> Numbered:
    """Of the devices in the batch that their node ever had in the market: what it says of others is nobody's business,
    and would fill the table."""
    wanted = {(one.peer_id, one.device_id) for one in batch}
    found = {key: known[key] for key in wanted if key in known}
    strange = sorted({peer_id for peer_id, _ in wanted - set(found)})
    if strange:
        listed = await rows(tx, "SELECT peer_id, device_id, no FROM listing WHERE peer_id = ANY($1::text[])", strange)
        await execute(
            tx,
            "INSERT INTO sample_device (no) SELECT unnest($1::bigint[]) ON CONFLICT DO NOTHING",
            sorted(row["no"] for row in listed),
        )
        found |= {(row["peer_id"], row["device_id"]): row["no"] for row in listed}
    return found


def _record(number: int, one: Said) -> tuple[Any, ...]:
    sample = one.sample
    return (number, sample.at_ms // 1000, one.received_ms, *(_stored(sample, name) for name in COLUMNS))


def _stored(sample: Sample, name: str) -> object:
    value = getattr(sample, name)
    return ",".join(value) if isinstance(value, tuple) else value


async def _copy(tx: Tx, written: Sequence[tuple[Any, ...]]) -> int:
    """How many were new. In one order everywhere, so that two replicas that write the same wait for each other once.

    COPY cannot leave out what is there already: where something is, all go by a table of this connection's own.
    """
    connection = tx._connection
    try:
        async with connection.transaction():
            await connection.copy_records_to_table("sample", records=written, columns=_WRITTEN)
    except UniqueViolationError:
        await execute(tx, "CREATE TEMP TABLE IF NOT EXISTS sample_again (LIKE sample) ON COMMIT DELETE ROWS")
        await connection.copy_records_to_table("sample_again", records=written, columns=_WRITTEN)
        names = ", ".join(_WRITTEN)
        new = await rows(
            tx,
            f"WITH new AS (INSERT INTO sample ({names}) SELECT {names} FROM sample_again"  # noqa: S608 - names from above
            " ORDER BY device_no, at_s ON CONFLICT DO NOTHING RETURNING 1) SELECT count(*) AS new FROM new",
        )
        return int(new[0]["new"])
    return len(written)


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
