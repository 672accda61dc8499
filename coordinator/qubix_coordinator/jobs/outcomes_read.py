# SPDX-License-Identifier: Apache-2.0
"""What is known of the work that a device did, for everybody: never whose work it was, nor what was computed."""

import hashlib
from typing import Final
from uuid import UUID

from qubix_coordinator.db.database import Database, rows
from qubix_coordinator.market import service as market
from qubix_protocol.reputation import WorkOutcomesView, WorkOutcomeView

SHOWN_MAX: Final = 50


async def outcomes(db: Database, listing_id: UUID) -> WorkOutcomesView:
    """Newest first. Raises NotFound."""
    await market.device_of(db, listing_id)
    found = await db.run(
        lambda tx: rows(
            tx,
            "SELECT o.at_ms, o.what, o.worth_qu, o.run_ms, o.counts, j.kernel, a.settlement_raw"
            " FROM work_outcome o JOIN attempt a ON a.id = o.attempt_id JOIN job j ON j.id = a.job_id"
            " WHERE o.listing_id = $1 ORDER BY o.no DESC LIMIT $2",
            listing_id,
            SHOWN_MAX,
        )
    )
    return WorkOutcomesView(
        listing_id=str(listing_id),
        outcomes=tuple(
            WorkOutcomeView(
                at_ms=row["at_ms"],
                what=row["what"],
                kernel=row["kernel"],
                worth_qu=row["worth_qu"],
                run_ms=row["run_ms"],
                counts=row["counts"],
                receipt=hashlib.sha256(row["settlement_raw"]).hexdigest() if row["settlement_raw"] else "",
            )
            for row in found
        ),
    )
