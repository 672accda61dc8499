# SPDX-License-Identifier: Apache-2.0
"""Keeps samples for a day. One statement a message, whatever it carries; a message that comes twice counts once."""

from qubix_coordinator.db.database import Database, execute, rows
from qubix_coordinator.telemetry import rules
from qubix_protocol.messages import DeviceSample, Sample, Telemetry

PRUNE_ROWS = 50_000
SERIES_MAX = 10_000

# unnest of whole columns writes like COPY and, unlike COPY, can leave out what is there already.
_INSERT = """
INSERT INTO sample (peer_id, device_id, at_ms, received_ms, utilisation_pct, memory_used_bytes, memory_total_bytes,
                    temperature_c, power_mw, clock_mhz)
SELECT $1, * FROM unnest($2::text[], $3::bigint[], array_fill($4::bigint, ARRAY[cardinality($2::text[])]),
                         $5::real[], $6::bigint[], $7::bigint[], $8::real[], $9::bigint[], $10::bigint[])
ON CONFLICT DO NOTHING
"""


async def record(db: Database, peer_id: str, message: Telemetry, *, now_ms: int) -> dict[str, Sample]:
    """Each device's newest sample, for `market.service.metrics_received`."""
    samples = rules.plausible(message.samples, now_ms)
    if samples:
        columns = _columns(samples)
        await db.run(lambda tx: execute(tx, _INSERT, peer_id, *columns[:2], now_ms, *columns[2:]))
    return rules.newest(samples)


def _columns(samples: list[DeviceSample]) -> list[list[object]]:
    return [
        [s.device_id for s in samples],
        [s.sample.at_ms for s in samples],
        [s.sample.utilisation_pct for s in samples],
        [s.sample.memory_used_bytes for s in samples],
        [s.sample.memory_total_bytes for s in samples],
        [s.sample.temperature_c for s in samples],
        [s.sample.power_mw for s in samples],
        [s.sample.clock_mhz for s in samples],
    ]


async def series(db: Database, peer_id: str, device_id: str, *, since_ms: int) -> list[Sample]:
    """A device's samples since then, oldest first."""
    found = await db.run(
        lambda tx: rows(
            tx,
            "SELECT at_ms, utilisation_pct, memory_used_bytes, memory_total_bytes, temperature_c, power_mw, clock_mhz"
            " FROM sample WHERE peer_id = $1 AND device_id = $2 AND at_ms >= $3 ORDER BY at_ms LIMIT $4",
            peer_id,
            device_id,
            since_ms,
            SERIES_MAX,
        )
    )
    return [Sample(**row) for row in found]


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
