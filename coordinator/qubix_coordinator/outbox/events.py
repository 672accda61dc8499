# SPDX-License-Identifier: Apache-2.0
"""Writing and reading events. An event exists exactly when its transaction has committed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qubix_coordinator.db.database import Database, Row, Tx, execute, one, rows
from qubix_coordinator.outbox.rules import Cursor

READ_MAX = 1000
PRUNE_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Event:
    cursor: Cursor
    topic: str
    payload: dict[str, Any]
    created_at: datetime


async def emit(tx: Tx, topic: str, payload: Mapping[str, object]) -> None:
    """Readers see it once `tx` has committed, and never if it rolls back."""
    body = json.dumps(payload, default=str)
    await execute(tx, "INSERT INTO event (topic, payload) VALUES ($1, $2::text::jsonb)", topic, body)


async def emit_all(tx: Tx, topic: str, payloads: Sequence[Mapping[str, object]]) -> None:
    """The same for several, in their order, by one statement."""
    bodies = [json.dumps(payload, default=str) for payload in payloads]
    await execute(
        tx,
        "INSERT INTO event (topic, payload) SELECT $1, body::jsonb"
        " FROM unnest($2::text[]) WITH ORDINALITY AS every (body, no) ORDER BY no",
        topic,
        bodies,
    )


async def read(db: Database, after: Cursor, topics: Iterable[str] | None = None, limit: int = READ_MAX) -> list[Event]:
    """Settled events after the cursor, in order. A topic that ends in `.` or `:` stands for all that start with it.

    Events of a transaction wait until every older transaction has ended, so a reader never passes one that is still to
    come; a transaction left open holds the stream back (the pool ends those after a minute).
    """
    exact, prefixes = _patterns(topics)
    # Ordered by the column: a bare `xid` would be the text that is selected, where 1000 comes before 999.
    found = await db.fetch(
        "SELECT xid::text AS xid, id, topic, payload::text AS payload, created_at FROM event"
        " WHERE (xid, id) > ($1::text::xid8, $2::bigint) AND xid < pg_snapshot_xmin(pg_current_snapshot())"
        " AND ($3::text[] IS NULL OR topic = ANY ($3) OR EXISTS"
        " (SELECT FROM unnest($4::text[]) AS prefix WHERE starts_with(topic, prefix)))"
        " ORDER BY event.xid, id LIMIT $5",
        str(after.xid),
        after.id,
        exact,
        prefixes,
        max(1, min(limit, READ_MAX)),
    )
    return [_event(row) for row in found]


def _patterns(topics: Iterable[str] | None) -> tuple[list[str] | None, list[str]]:
    if topics is None:
        return None, []
    wanted = list(topics)
    return wanted, [topic for topic in wanted if topic[-1:] in (".", ":")]


def _event(row: Row) -> Event:
    return Event(Cursor(int(row["xid"]), row["id"]), row["topic"], json.loads(row["payload"]), row["created_at"])


async def newest(db: Database) -> Cursor:
    """The position of the last settled event: where somebody starts who has just taken a snapshot of the state.

    Take it BEFORE the snapshot, or events between the two are missed. It is that of an event, not of a transaction: a
    server that crashes gives the numbers of its last aborted transactions to others.
    """
    found = await db.fetch(
        "(SELECT xid::text AS xid, id FROM event WHERE xid < pg_snapshot_xmin(pg_current_snapshot())"
        " ORDER BY event.xid DESC, id DESC LIMIT 1) UNION ALL SELECT xid::text, id FROM event_horizon"
    )
    return max(Cursor(int(row["xid"]), row["id"]) for row in found)


async def oldest(db: Database) -> Cursor:
    """A cursor before this one has missed events that were pruned: its reader must take a new snapshot."""
    return await db.run(horizon)


async def horizon(tx: Tx) -> Cursor:
    """`oldest`, as this transaction sees it."""
    found = await rows(tx, "SELECT xid::text AS xid, id FROM event_horizon")
    return Cursor(int(found[0]["xid"]), found[0]["id"])


async def prune(tx: Tx, keep_s: float, rows_max: int = PRUNE_MAX) -> int:
    """Takes away events older than `keep_s`, oldest first, and moves the horizon; gives how many."""
    await one(tx, "SELECT single FROM event_horizon FOR UPDATE")
    gone = await rows(
        tx,
        "DELETE FROM event WHERE id IN (SELECT id FROM event WHERE created_at < now() - make_interval(secs => $1)"
        " AND xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY xid, id LIMIT $2)"
        " RETURNING xid::text AS xid, id",
        float(keep_s),
        rows_max,
    )
    if gone:
        last = max(Cursor(int(row["xid"]), row["id"]) for row in gone)
        await execute(
            tx,
            "UPDATE event_horizon SET xid = $1::text::xid8, id = $2 WHERE (xid, id) < ($1::text::xid8, $2::bigint)",
            str(last.xid),
            last.id,
        )
    return len(gone)
