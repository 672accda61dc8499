# SPDX-License-Identifier: Apache-2.0
"""Which gateways every replica is linked with, so that each can name them all. All times are the database's."""

from collections.abc import Sequence
from typing import Final

from qubix_coordinator.db.database import Tx, execute, rows

BEAT_S: Final = 10.0
HEARD_S: Final = 30.0
"""A gateway that no replica has been linked with for longer is not named, and soon forgotten."""


async def beat(tx: Tx, peer_id: str, addresses: Sequence[str]) -> None:
    """A replica is linked with this one."""
    await execute(
        tx,
        "INSERT INTO gateway (peer_id, addresses) VALUES ($1, $2::text[])"
        " ON CONFLICT (peer_id) DO UPDATE SET addresses = excluded.addresses, seen_at = now()",
        peer_id,
        list(addresses),
    )
    await execute(tx, "DELETE FROM gateway WHERE seen_at < now() - make_interval(secs => $1)", 2 * HEARD_S)


async def leave(tx: Tx, peer_id: str) -> None:
    await execute(tx, "DELETE FROM gateway WHERE peer_id = $1", peer_id)


async def addresses(tx: Tx) -> frozenset[str]:
    """Of all that are linked with any replica."""
    found = await rows(tx, "SELECT addresses FROM gateway WHERE seen_at > now() - make_interval(secs => $1)", HEARD_S)
    return frozenset(address for row in found for address in row["addresses"])
