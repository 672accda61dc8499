# SPDX-License-Identifier: Apache-2.0
"""Which listings a job's query line finds: asked anew at each decision, since listings change."""

from collections.abc import Iterable
from uuid import UUID

from qubix_coordinator.db.database import Tx, rows
from qubix_coordinator.errors import InvalidInput
from qubix_coordinator.market import rules, words
from qubix_coordinator.market.search_sql import Sql
from qubix_protocol import query
from qubix_protocol.api import ListingView
from qubix_protocol.query import Query, QueryError
from qubix_protocol.units import OFFER_S


def query_of(line: str) -> Query | None:
    """None for an empty line. Raises InvalidInput that points at the column."""
    if not line.strip():
        return None
    try:
        return query.parse(line)
    except QueryError as wrong:
        raise InvalidInput("where", str(wrong), wrong.remedy) from wrong


def found_by(wanted: Query | None, listings: Iterable[ListingView]) -> frozenset[UUID] | None:
    """None where there is no query: everything is found."""
    if wanted is None:
        return None
    return frozenset(UUID(one.listing_id) for one in listings if wanted.matches(one))


async def now(tx: Tx, line: str, *, now_ms: int) -> frozenset[UUID] | None:
    """By the database's own reading of the query: nothing of a listing that it does not find is read."""
    wanted = query_of(line)
    if wanted is None:
        return None
    await words.plan_anew(tx)
    sql = Sql(now_ms, await words.look_up(tx, wanted.root))
    seen = sql.put(rules.visible_since_ms(now_ms, OFFER_S), "bigint")
    text = f"SELECT id FROM listing_search WHERE offered_ms >= {seen} AND {sql.condition(wanted.root)}"  # noqa: S608
    return frozenset([UUID(str(row["id"])) for row in await rows(tx, text, *sql.arguments)])
