# SPDX-License-Identifier: Apache-2.0
"""Settlements told again to a node that was away when they were told: by a place in their order, page by page."""

from typing import Final
from uuid import UUID

from qubix_coordinator.db.database import Row, Tx, rows
from qubix_coordinator.jobs.desk import Desk
from qubix_protocol.messages import Settlements, SettlementsAsk
from qubix_protocol.units import SETTLEMENTS_MAX

OVERLAP_MS: Final = 60_000
"""What is signed is committed a moment later, and replicas' clocks differ: so much of the past is told once more."""
_FIRST: Final = UUID(int=0)
_AFTER: Final = (
    "SELECT id, settled_ms, settlement_raw FROM attempt WHERE peer_id = $1 AND (settled_ms, id) > ($2, $3)"
    " ORDER BY settled_ms, id LIMIT $4"
)


async def on_settlements_ask(desk: Desk, peer_id: str, message: SettlementsAsk) -> Settlements:
    """Of this node's own attempts alone: who asks is who signed."""
    after = UUID(message.after) if message.after else _FIRST

    async def step(tx: Tx) -> list[Row]:
        return await rows(tx, _AFTER, peer_id, message.after_ms, after, SETTLEMENTS_MAX + 1)

    found = await desk.db.run(step)
    return page(found, message, now_ms=desk.now_ms())


def page(found: list[Row], asked: SettlementsAsk, *, now_ms: int) -> Settlements:
    """`found`: one more than fits, if there are as many. The last page's place lies a little in the past, and never
    before the one that was asked for."""
    shown = found[:SETTLEMENTS_MAX]
    more = len(found) > len(shown)
    following, key = asked.after_ms, asked.after
    if more:
        following, key = shown[-1]["settled_ms"], str(shown[-1]["id"])
    elif now_ms - OVERLAP_MS > asked.after_ms:
        following, key = now_ms - OVERLAP_MS, ""
    return Settlements(
        told=tuple(bytes(row["settlement_raw"]) for row in shown), next_ms=following, next=key, more=more
    )
