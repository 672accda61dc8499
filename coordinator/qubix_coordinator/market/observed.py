# SPDX-License-Identifier: Apache-2.0
"""How fast a device was in work that was checked and accepted (trust C6): the other half of its score."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from qubix_coordinator.db.database import Tx, execute, rows

KEPT: Final = 20
BILLED_MS_MIN: Final = 200
"""Shorter work says more of starting than of computing."""
INTENSITY_MIN: Final = 64.0
"""Operations for each byte moved: below it memory is what is slow."""


def countable(flops: float, bytes_moved: float, billed_ms: int) -> float | None:
    """GFLOP/s of one accepted attempt; None when it does not say how fast the device computes."""
    if billed_ms < BILLED_MS_MIN or flops < INTENSITY_MIN * max(1.0, bytes_moved):
        return None
    return flops / billed_ms / 1e6


def lower_quartile(values: Sequence[float]) -> float | None:
    """What three of four reach: one slow job lowers it little, one fast job raises it not at all."""
    ordered = sorted(values)
    return ordered[len(ordered) // 4] if ordered else None


async def remember(tx: Tx, listing_id: UUID, attempt_id: UUID, gflops: float, *, now_ms: int) -> None:
    await execute(
        tx,
        "INSERT INTO listing_observed (attempt_id, listing_id, gflops, at_ms) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (attempt_id) DO NOTHING",
        attempt_id,
        listing_id,
        gflops,
        now_ms,
    )
    await execute(
        tx,
        "DELETE FROM listing_observed WHERE attempt_id IN (SELECT attempt_id FROM listing_observed"
        " WHERE listing_id = $1 ORDER BY at_ms DESC, attempt_id OFFSET $2)",
        listing_id,
        KEPT,
    )


async def gflops(tx: Tx, listing_id: UUID) -> float | None:
    """None while no accepted work says anything of it."""
    found = await rows(tx, "SELECT gflops FROM listing_observed WHERE listing_id = $1", listing_id)
    return lower_quartile([row["gflops"] for row in found])
