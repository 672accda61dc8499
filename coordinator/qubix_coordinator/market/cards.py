# SPDX-License-Identifier: Apache-2.0
"""One card is one listing, whoever says so; and how many like it the same node has in the market.

The driver's UUID names a card, and is a claim like any other: it can be read off the market and repeated. So a claim
never takes a listing away that is there. A node that was installed anew has another key, and its old listings are
offline: then the card is listed under the new one. Where two nodes that can be reached claim the same card, one is
listed: the proven one, else the rented one, else the one that was in the market first. Proof comes first, since renting
one's own claim costs next to nothing, and would keep the owner off the market for as long.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from qubix_coordinator.db.database import Tx, execute, rows
from qubix_coordinator.market import rules
from qubix_coordinator.market.tables import Listing
from qubix_protocol.states import DeviceKind
from qubix_protocol.units import OFFER_S

CUDA: Final = DeviceKind.CUDA.value
_RECOUNT: Final = """
WITH alike AS (
    SELECT model, kind, LEAST(64, count(*)) AS devices FROM listing
    WHERE peer_id = $1 AND online AND rental_id IS NULL AND availability <> 'offline' GROUP BY model, kind
)
UPDATE listing SET devices_alike = alike.devices FROM alike
WHERE listing.peer_id = $1 AND listing.model = alike.model AND listing.kind = alike.kind
    AND online AND rental_id IS NULL AND availability <> 'offline' AND devices_alike <> alike.devices
RETURNING listing.id
"""
_TURN_OF_NODE: Final = "SELECT pg_advisory_xact_lock(hashtextextended('node ' || $1, 0))"
_TURNS: Final = (
    "SELECT pg_advisory_xact_lock(hashtextextended('node ' || peer_id, 0)) FROM (SELECT DISTINCT peer_id FROM listing"
    " WHERE id = ANY ($1::uuid[]) ORDER BY 1) AS node"
)


async def turn(tx: Tx, kind: DeviceKind, device_id: str, peer_id: str) -> None:
    """Offers of the same card, by whomever, are folded one after the other; then as `turn_of_node`."""
    if kind is DeviceKind.CUDA:
        await execute(tx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"card {device_id}")
    await turn_of_node(tx, peer_id)


async def turn_of_node(tx: Tx, peer_id: str) -> None:
    """For who may `recount`, before any of the node's listings is locked: two that hold one each would wait for each
    other's, and neither would count what the other does. Ends with the transaction."""
    await execute(tx, _TURN_OF_NODE, peer_id)


async def turns_of(tx: Tx, listings: Sequence[UUID]) -> None:
    """The same for the nodes of these listings."""
    await execute(tx, _TURNS, list(listings))


async def rivals(tx: Tx, peer_id: str, kind: str, device_id: str, *, now_ms: int) -> list[Listing]:
    """Listings of other nodes that offer this very card and can be reached, locked until the transaction ends."""
    if kind != CUDA:
        return []
    since_ms = rules.visible_since_ms(now_ms, OFFER_S)
    others = Listing.filter(kind=CUDA, device_id=device_id, online=True, offered_ms__gte=since_ms)
    return await others.exclude(peer_id=peer_id).using_db(tx).order_by("id").select_for_update()


def yields(row: Listing | None, others: Sequence[Listing]) -> bool:
    """Whether the card stays with another node. `row` None: it was never in the market under this one."""
    if row is None:
        return bool(others)
    return any(_rank(other) < _rank(row) for other in others)


def _rank(row: Listing) -> tuple[bool, bool, int, str]:
    return not row.verified, row.rental_id is None, row.listed_ms, str(row.id)


async def recount(tx: Tx, peer_id: str) -> list[UUID]:
    """After one of a node's devices came, left or changed, in its turn: those whose `devices_alike` is another one
    now."""
    return [row["id"] for row in await rows(tx, _RECOUNT, peer_id)]
