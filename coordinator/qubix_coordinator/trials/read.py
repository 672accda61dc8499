# SPDX-License-Identifier: Apache-2.0
"""Trials as everybody may read them, and self-tests as what may lead to one."""

from uuid import UUID

from qubix_coordinator.db.database import Database, rows
from qubix_coordinator.market import service as market
from qubix_protocol.trials import TrialsView, TrialView

_SHOWN_MAX = 50


async def trials(db: Database, listing_id: UUID) -> TrialsView:
    """Those that are over, newest first. Raises NotFound."""
    await market.device_of(db, listing_id)
    found = await db.run(
        lambda tx: rows(
            tx,
            "SELECT t.id, t.ended_ms, t.state, t.reason, t.detail, p.gflops, p.fill_ms, p.proof_ms,"
            " 4::bigint * p.pages * p.rows_of_page * p.columns AS fill_bytes"
            " FROM trial_part p JOIN trial t ON t.id = p.trial_id"
            " WHERE p.listing_id = $1 AND t.ended_ms IS NOT NULL ORDER BY t.asked_ms DESC LIMIT $2",
            listing_id,
            _SHOWN_MAX,
        )
    )
    return TrialsView(
        listing_id=str(listing_id),
        trials=tuple(
            TrialView(
                trial_id=str(row["id"]),
                at_ms=row["ended_ms"],
                verdict=row["state"],
                reason=row["reason"],
                detail=row["detail"],
                gflops=row["gflops"],
                fill_bytes=row["fill_bytes"],
                fill_ms=row["fill_ms"],
                proof_ms=row["proof_ms"],
            )
            for row in found
        ),
    )
