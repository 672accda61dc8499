# SPDX-License-Identifier: Apache-2.0
"""Which verifier processes live. All times are the database's, so that no two clocks are compared."""

from typing import Final

from qubix_coordinator.db.database import Tx, execute, value

BEAT_S: Final = 5.0
HEARD_S: Final = 15.0
"""A verifier that has been silent for longer is not counted on."""
_FORGOTTEN_S: Final = 86_400.0


async def beat(tx: Tx, host: str, process_id: int) -> None:
    """This one lives. Those that ended without a word a day ago are forgotten."""
    await execute(
        tx,
        "INSERT INTO verifier (host, process_id) VALUES ($1, $2)"
        " ON CONFLICT (host, process_id) DO UPDATE SET seen_at = now()",
        host,
        process_id,
    )
    await execute(tx, "DELETE FROM verifier WHERE seen_at < now() - make_interval(secs => $1)", _FORGOTTEN_S)


async def leave(tx: Tx, host: str, process_id: int) -> None:
    await execute(tx, "DELETE FROM verifier WHERE host = $1 AND process_id = $2", host, process_id)


async def heard(tx: Tx) -> int:
    """How many live."""
    return int(
        await value(tx, "SELECT count(*) FROM verifier WHERE seen_at > now() - make_interval(secs => $1)", HEARD_S)
    )
