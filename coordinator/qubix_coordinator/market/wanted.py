# SPDX-License-Identifier: Apache-2.0
"""Which listings a job's query line finds: asked anew at each decision, since listings change."""

from collections.abc import Iterable
from uuid import UUID

from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import InvalidInput
from qubix_coordinator.market import service as market
from qubix_protocol import query
from qubix_protocol.api import ListingView
from qubix_protocol.query import Query, QueryError


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
    wanted = query_of(line)
    return found_by(wanted, await market.listings_in(tx, now_ms=now_ms)) if wanted is not None else None
