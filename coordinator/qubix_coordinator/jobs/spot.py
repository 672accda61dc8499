# SPDX-License-Identifier: Apache-2.0
"""Whose work is run again somewhere else (trust.md C5): drawn when unchecked work is delivered, so after its digests
were committed (C1). `spots/` carries it out."""

import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from qubix_coordinator.db.database import Tx, execute, value
from qubix_coordinator.jobs import outcomes
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.tables import Attempt, ChainLink, Job

log = logging.getLogger(__name__)
CHANCE_MIN: Final = 0.05
OF: Final = 1_000_000
"""Chances are drawn as so many parts."""
PROVEN_LAST: Final = 1_000
"""So many of its newest checked pieces prove a provider."""
WINDOW_PART: Final = 0.9
"""A check ends before the acceptance window does, which pays."""
PROVEN: Final = (
    "SELECT sum(worth_qu) FROM (SELECT worth_qu FROM work_outcome WHERE provider_id = $1 AND what = 'right'"
    " AND counts AND no > coalesce((SELECT max(no) FROM work_outcome WHERE provider_id = $1"
    " AND what IN ('wrong', 'dispute_lost')), 0) ORDER BY no DESC LIMIT $2) AS newest"
)
"""Asked at every delivery that nobody checks: an index finds both parts (schema_6_proven.sql)."""


def chance(at_stake_qu: int, proven_qu: int) -> float:
    """Certain above the proven value, and never under 5 %: the likelier, the less honest work there was before beside
    what cheating once could bring."""
    if at_stake_qu > proven_qu or proven_qu <= 0:
        return 1.0
    return max(CHANCE_MIN, at_stake_qu / proven_qu)


async def proven_qu(tx: Tx, provider_id: UUID) -> int:
    """The worth of checked work for unrelated consumers since the provider's last wrong result or lost dispute."""
    return int(await value(tx, PROVEN, provider_id, PROVEN_LAST) or 0)


async def at_stake_qu(tx: Tx, provider_id: UUID) -> int:
    """All that is owed to the provider for unchecked work: many small pieces at once are one large one."""
    found = await value(
        tx,
        "SELECT sum(a.owed_qu) FROM attempt a JOIN node n ON n.peer_id = a.peer_id WHERE n.account_id = $1"
        " AND a.owed_qu > 0",
        provider_id,
    )
    return int(found or 0)


async def consider(
    desk: Desk,
    tx: Tx,
    job: Job,
    attempt: Attempt,
    provider_id: UUID,
    good: Sequence[ChainLink],
    below: Callable[[int], int] = secrets.randbelow,
) -> bool:
    """Call once the attempt is saved with what it is owed. Work for related consumers proves nothing and harms nobody
    else; a re-run is looked at anyway."""
    if attempt.owed_qu == 0 or job.data_account_id is not None:
        return False
    if await outcomes.related(tx, provider_id, job.account_id):
        return False
    likely = chance(await at_stake_qu(tx, provider_id), await proven_qu(tx, provider_id))
    if below(OF) >= likely * OF:
        return False
    link, now_ms = good[below(len(good))], desk.now_ms()
    await execute(
        tx,
        "INSERT INTO spot_check (attempt_id, job_id, peer_id, provider_id, state, start, stop, worth_qu, drawn_ms,"
        " due_ms) VALUES ($1, $2, $3, $4, 'waiting', $5, $6, $7, $8, $9) ON CONFLICT (attempt_id) DO NOTHING",
        attempt.id,
        job.id,
        attempt.peer_id,
        provider_id,
        link.start,
        link.stop,
        attempt.owed_qu,
        now_ms,
        now_ms + round(desk.settings.accept_s * 1000 * WINDOW_PART),
    )
    log.info("spot.drawn", extra={"attempt": str(attempt.id), "units": f"[{link.start}, {link.stop})"})
    return True
