# SPDX-License-Identifier: Apache-2.0
"""Tables that are kept as one partition for each stretch of time: made when a row needs one, dropped when it is old.

A partition is called `<table>_p<number>`; it holds the seconds from number × span on, since 1970.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from qubix_coordinator.db.database import Tx, execute, rows, value

_LOCK = 0x73616D70
"""Whoever makes or drops partitions takes turns, whichever replica."""


@dataclass(frozen=True, slots=True)
class Partitioned:
    """Divided by a column of seconds into stretches of `span_s`."""

    table: str
    span_s: int

    def number(self, at_s: int) -> int:
        return at_s // self.span_s

    def name(self, number: int) -> str:
        return f"{self.table}_p{number}"


SAMPLES = Partitioned("sample", 86_400)
MINUTES = Partitioned("sample_minute", 86_400)
HOURS = Partitioned("sample_hour", 30 * 86_400)


async def make(tx: Tx, what: Partitioned, numbers: Iterable[int]) -> list[str]:
    """Those of these partitions that were not there. Attached, not created inside the table, so that nobody who reads
    or writes it has to wait."""
    missing = [number for number in sorted(set(numbers)) if not await _exists(tx, what.name(number))]
    if not missing:
        return []
    await execute(tx, "SELECT pg_advisory_xact_lock($1)", _LOCK)
    made = [number for number in missing if not await _exists(tx, what.name(number))]
    for number in made:
        name, start = what.name(number), number * what.span_s
        await execute(tx, f"CREATE TABLE {name} (LIKE {what.table} INCLUDING ALL)")
        await execute(
            tx,
            f"ALTER TABLE {what.table} ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({start + what.span_s})",
        )
    return [what.name(number) for number in made]


async def drop_before(tx: Tx, what: Partitioned, limit_s: int) -> list[str]:
    """The partitions all of whose time is before the limit. Nothing when another replica is at it."""
    if not await value(tx, "SELECT pg_try_advisory_xact_lock($1)", _LOCK):
        return []
    dropped = []
    for number in await numbers(tx, what):
        if (number + 1) * what.span_s <= limit_s:
            await execute(tx, f"DROP TABLE {what.name(number)}")
            dropped.append(what.name(number))
    return dropped


async def numbers(tx: Tx, what: Partitioned) -> list[int]:
    """Of the partitions that there are, in order of time."""
    found = await rows(
        tx,
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = $1::text::regclass",
        what.table,
    )
    return sorted(int(row["relname"].rpartition("_p")[2]) for row in found)


async def _exists(tx: Tx, name: str) -> bool:
    return bool(await value(tx, "SELECT to_regclass($1::text) IS NOT NULL", name))
