# SPDX-License-Identifier: Apache-2.0
"""What a settled attempt says of the next forecast (docs/adr/0029-a-forecast-learns.md)."""

from collections.abc import Sequence

from qubix_coordinator.db.database import Tx
from qubix_coordinator.jobs import needs
from qubix_coordinator.jobs.tables import Attempt, ChainLink, Job
from qubix_coordinator.market import learned
from qubix_kernels import UnknownKernel, get
from qubix_protocol.states import Reason


async def learn(tx: Tx, job: Job, attempt: Attempt, good: Sequence[ChainLink], *, now_ms: int) -> None:
    """By its good links alone. Call it last in the settlement, for work for others: it locks the listing.

    Nothing is learned on a rental, whose device its renter may be using meanwhile.
    """
    if attempt.rated_ms is None or attempt.usual_ms is None or not good or job.rental_id is not None:
        return
    try:
        subject = needs.subject_of(get(job.kernel), job.params)
    except UnknownKernel:
        return
    run_ms = min(sum(link.claimed_ms for link in good), max(link.observed_ms for link in good))
    part = sum(link.stop - link.start for link in good) / attempt.units
    whole = attempt.reason == Reason.COMPLETED.value and attempt.units_accepted == attempt.units
    await learned.remember(
        tx,
        learned.Run(
            listing_id=attempt.listing_id,
            subject=subject,
            backend=attempt.backend,
            pace=attempt.pace or 0.0,
            rated_ms=attempt.rated_ms * part,
            run_ms=run_ms,
            around_plain_ms=attempt.around_ms or 0.0,
            usual_ms=attempt.usual_ms * part,
            usual_around_ms=attempt.usual_around_ms or 0.0,
            around_ms=now_ms - attempt.created_ms - run_ms if whole else None,
        ),
        now_ms=now_ms,
    )
