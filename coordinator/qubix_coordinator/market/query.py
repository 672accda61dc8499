# SPDX-License-Identifier: Apache-2.0
"""Answers queries about the market: pages, counts for each filter, and why nothing was found.

Pages go on behind the last row (keyset), so the tenth costs what the first does; a listing that changes its place while
somebody pages may be seen twice or not at all, like in any list that moves.
"""

import base64
import binascii
import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from qubix_coordinator.db.database import Database, Tx, rows
from qubix_coordinator.errors import InvalidInput
from qubix_coordinator.market import nearest, rules, service, views, words
from qubix_coordinator.market.counts import counts
from qubix_coordinator.market.search_sql import CursorValue, Sql, key_accepts
from qubix_coordinator.market.tables import Listing
from qubix_protocol.api import ListingView, OffersView
from qubix_protocol.query import Query, SortKey, order_text
from qubix_protocol.units import OFFER_S

LIMIT_MAX: Final = service.LISTINGS_MAX
CURSOR_MAX: Final = 8_000
DEFAULT_ORDER: Final = (SortKey("price"),)
_TRY_AGAIN: Final = "Take `after` from the page before, with the same q and order"


@dataclass(frozen=True, slots=True)
class Page:
    """`next` None: there are no more."""

    listings: tuple[ListingView, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """One search. `keys` never empty: without an order it is by price."""

    query: Query
    keys: tuple[SortKey, ...] = DEFAULT_ORDER
    limit: int = LIMIT_MAX
    after: str | None = None


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    search: str
    values: tuple[CursorValue, ...]
    id: str


async def answer(db: Database, asked: Asked, *, counted: bool, now_ms: int, offer_s: float = OFFER_S) -> OffersView:
    """A page, with counts where they are asked for or nothing was found; all from one state of the market. Without
    the live feed's cursor. Raises InvalidInput for a cursor of another search."""
    async with db.transaction("repeatable_read", readonly=True, anew=True) as tx:
        found = await page(tx, asked, now_ms=now_ms, offer_s=offer_s)
        wanted = counted or (not found.listings and asked.after is None)
        sums = await counts(tx, asked.query, now_ms=now_ms, offer_s=offer_s) if wanted else None
    plain = OffersView(
        offers=found.listings,
        cursor="",
        next=found.next,
        query=asked.query.text(),
        order=order_text(asked.keys),
    )
    if sums is None:
        return plain
    return msgspec.structs.replace(
        plain,
        total=sums.total,
        everything=sums.everything,
        filters=sums.filters,
        relax=sums.relax,
        why=sums.why,
    )


async def page(tx: Tx, asked: Asked, *, now_ms: int, offer_s: float = OFFER_S) -> Page:
    """In a transaction that sees one state (repeatable read) and plans anew. Raises InvalidInput for another search's
    cursor."""
    start = opened(asked)
    found = await page_ids(tx, asked, start, now_ms=now_ms, offer_s=offer_s)
    shown = found[: asked.limit]
    by_id: dict[object, Listing] = {
        row.id: row for row in await Listing.filter(id__in=[one["id"] for one in shown]).using_db(tx)
    }
    more = _sealed(asked, shown[-1]) if len(found) > asked.limit else None
    return Page(tuple(views.view(by_id[one["id"]], now_ms) for one in shown), more)


async def page_ids(
    tx: Tx, asked: Asked, start: Cursor | None, *, now_ms: int, offer_s: float = OFFER_S
) -> list[dict[str, object]]:
    """Ids and sort keys, one row more than the page has when there are more."""
    looked = await words.look_up(tx, asked.query.root)
    found: list[dict[str, object]] = []
    for part in _parts(asked.keys, start):
        sql = Sql(now_ms, looked)
        where = [_visible(sql, offer_s), sql.condition(asked.query.root)]
        if part == "known":
            where.append(f"{sql.key(asked.keys[0].name)} IS NOT NULL")
        if part == "unknown":
            where.append(f"{sql.key(asked.keys[0].name)} IS NULL")
        elif start is not None:
            where.append(sql.after(asked.keys, start.values, start.id, known=part == "known"))
        columns = "".join(f", {sql.key(key.name)} AS k{n}" for n, key in enumerate(asked.keys))
        order = sql.order(asked.keys)
        limit = sql.put(asked.limit + 1 - len(found), "bigint")
        behind = start.values[0] if start is not None else None
        near = nearest.bound(sql, asked.query.root, asked.keys[0], behind, where, asked.limit + 1)
        if near:
            where.append(near)
        text = f"SELECT id{columns} FROM listing_search WHERE {' AND '.join(where)} ORDER BY {order} LIMIT {limit}"  # noqa: S608
        found += await rows(tx, text, *sql.arguments)
        if len(found) > asked.limit:
            break
    return found


def _parts(keys: Sequence[SortKey], start: Cursor | None) -> Sequence[str]:
    """Behind a known value come the known ones, then the unknown: two statements, each of which an index can serve."""
    if start is None or start.values[0] is None or keys[0].nulls_first or not key_accepts(keys[0], None):
        return ("all",)
    return ("known", "unknown")


def _visible(sql: Sql, offer_s: float) -> str:
    return f"offered_ms >= {sql.put(rules.visible_since_ms(sql.now_ms, offer_s), 'bigint')}"


# Cursors -------------------------------------------------------------------------------------------------------------


def _digest(asked: Asked) -> str:
    text = f"{asked.query.text()}\n{order_text(asked.keys)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sealed(asked: Asked, row: dict[str, object]) -> str:
    values = tuple(row[f"k{number}"] for number in range(len(asked.keys)))
    plain = msgspec.json.encode((_digest(asked), values, str(row["id"])))
    return base64.urlsafe_b64encode(plain).decode().rstrip("=")


def opened(asked: Asked) -> Cursor | None:
    """The cursor of a search that goes on. Raises InvalidInput for one of another search."""
    if asked.after is None:
        return None
    try:
        plain = base64.urlsafe_b64decode(asked.after + "=" * (-len(asked.after) % 4))
        cursor = msgspec.json.decode(plain, type=Cursor)
        last = uuid.UUID(cursor.id)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as problem:
        raise InvalidInput("after", "this is no cursor of a search", _TRY_AGAIN) from problem
    if cursor.search != _digest(asked):
        raise InvalidInput("after", "the cursor belongs to another query or order", _TRY_AGAIN)
    pairs = zip(asked.keys, cursor.values, strict=False)
    if len(cursor.values) != len(asked.keys) or not all(key_accepts(key, value) for key, value in pairs):
        raise InvalidInput("after", "the cursor does not fit the order", _TRY_AGAIN)
    return Cursor(cursor.search, cursor.values, str(last))
