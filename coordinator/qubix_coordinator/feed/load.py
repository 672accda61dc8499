# SPDX-License-Identifier: Apache-2.0
"""The market's table out of the database, at one moment of the stream of events."""

import asyncio
from typing import Final

import msgspec

from qubix_coordinator.db.database import Database, Tx, rows, value
from qubix_coordinator.feed import rules
from qubix_coordinator.feed.rules import Change, Loaded, Shown, Snapshot
from qubix_coordinator.market import views as market
from qubix_coordinator.market.shown import pages_in
from qubix_coordinator.outbox import Cursor, Event
from qubix_coordinator.outbox import events as outbox
from qubix_protocol.api import ListingView

_SCANNED_MAX: Final = 5_000
"""Events that are looked through, newest first, for changes that somebody may not have heard of yet."""
_KEY: Final = "coalesce(payload ->> 'gone', payload ->> 'listing_id') AS key"
_AHEAD: Final = (
    f"SELECT xid::text AS xid, id, {_KEY} FROM event WHERE topic = $1"  # noqa: S608 - our own constants
    " AND event.xid >= pg_snapshot_xmin(pg_current_snapshot())"
)
_RECENT: Final = (
    f"SELECT xid::text AS xid, id, topic, {_KEY} FROM event"  # noqa: S608 - as above
    " WHERE event.xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY event.xid DESC, id DESC LIMIT $1"
)


async def load(db: Database, now_ms: int) -> Loaded:
    return await db.run(lambda tx: _load(tx, now_ms), "repeatable_read")


async def _load(tx: Tx, now_ms: int) -> Loaded:
    snapshot = Snapshot.parse(await value(tx, "SELECT pg_current_snapshot()::text"))
    ahead = {_cursor(row): str(row["key"]) for row in await rows(tx, _AHEAD, market.TOPIC)}
    scanned = [(_cursor(row), row) for row in await rows(tx, _RECENT, _SCANNED_MAX)]
    horizon = await outbox.horizon(tx)
    table: dict[str, Shown] = {}
    async for page in pages_in(tx):
        table |= {str(row.id): rules.of_view(market.view(row, now_ms), row.metrics_ms) for row in page}
        # So many rows must not hold up what else this process does.
        await asyncio.sleep(0)
    return Loaded(
        table=table,
        snapshot=snapshot,
        cursor=max(scanned[0][0], horizon) if scanned else horizon,
        ahead=ahead,
        since=scanned[-1][0] if len(scanned) == _SCANNED_MAX else horizon,
        recent=tuple((cursor, str(row["key"])) for cursor, row in reversed(scanned) if row["topic"] == market.TOPIC),
    )


def _cursor(row: dict[str, object]) -> Cursor:
    return Cursor(int(str(row["xid"])), int(str(row["id"])))


def change_of(event: Event) -> Change:
    """Of an event on the market's topic."""
    payload = event.payload
    if "gone" in payload:
        return Change(event.cursor, payload["gone"], None)
    view = msgspec.convert(payload, ListingView)
    return Change(event.cursor, view.listing_id, rules.of_view(view, payload.get(market.HEARD)))
