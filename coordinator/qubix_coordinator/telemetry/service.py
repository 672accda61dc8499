# SPDX-License-Identifier: Apache-2.0
"""Keeps samples for a day. One statement a message, whatever it carries; a message that comes twice counts once."""

from collections.abc import Collection
from typing import Any, Final

from qubix_coordinator.db.database import Database, execute, rows
from qubix_coordinator.telemetry import rules
from qubix_protocol.messages import DeviceSample, Sample, Telemetry
from qubix_protocol.units import READINGS_MAX

PRUNE_ROWS = 50_000
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
# unnest of whole columns writes like COPY and, unlike COPY, can leave out what is there already.
_ARRAYS: Final = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(COLUMNS.values(), start=4))
_INSERT: Final = (
    f"INSERT INTO sample (peer_id, received_ms, device_id, {_NAMES})"  # noqa: S608 - names from above alone
    f" SELECT $1, $2, * FROM unnest($3::text[], {_ARRAYS}) ON CONFLICT DO NOTHING"
)
# One sample, the newest, of each stretch of $4 ms; the newest stretches when there are too many.
_SERIES: Final = (
    f"SELECT * FROM (SELECT DISTINCT ON (at_ms / $4::bigint) {_NAMES} FROM sample"  # noqa: S608 - as above
    " WHERE peer_id = $1 AND device_id = $2 AND at_ms >= $3"
    " ORDER BY at_ms / $4::bigint DESC, at_ms DESC LIMIT $5) AS newest ORDER BY at_ms"
)


async def record(
    db: Database, peer_id: str, message: Telemetry, *, devices: Collection[str], now_ms: int
) -> dict[str, Sample]:
    """Each device's newest sample, for `market.service.metrics_received`. `devices` are those that the node has in the
    market: what it says of others is nobody's business, and would fill the table."""
    samples = [one for one in rules.plausible(message.samples, now_ms) if one.device_id in devices]
    if samples:
        columns = _columns(samples)
        await db.run(lambda tx: execute(tx, _INSERT, peer_id, now_ms, *columns))
    return rules.newest(samples)


def _columns(samples: list[DeviceSample]) -> list[list[object]]:
    return [[s.device_id for s in samples], *([_stored(s.sample, name) for s in samples] for name in COLUMNS)]


def _stored(sample: Sample, name: str) -> object:
    value = getattr(sample, name)
    return ",".join(value) if isinstance(value, tuple) else value


async def series(db: Database, peer_id: str, device_id: str, *, since_ms: int, now_ms: int) -> list[Sample]:
    """A device's samples since then, oldest first, thinned to at most `READINGS_MAX`."""
    stretch_ms = rules.stretch_ms(now_ms - since_ms, READINGS_MAX)
    found = await db.run(lambda tx: rows(tx, _SERIES, peer_id, device_id, since_ms, stretch_ms, READINGS_MAX))
    return [_sample(dict(row)) for row in found]


def _sample(row: dict[str, Any]) -> Sample:
    words = row.pop("throttle")
    return Sample(**row, throttle=None if words is None else tuple(filter(None, words.split(","))))


async def prune(db: Database, *, now_ms: int) -> int:
    """Deletes what is past keeping, a bounded number of rows a call; gives how many."""
    return await db.run(
        lambda tx: execute(
            tx,
            "DELETE FROM sample WHERE ctid IN (SELECT ctid FROM sample WHERE received_ms < $1 LIMIT $2)",
            now_ms - rules.KEEP_MS,
            PRUNE_ROWS,
        )
    )
