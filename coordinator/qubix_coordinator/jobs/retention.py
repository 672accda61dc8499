# SPDX-License-Identifier: Apache-2.0
"""Which stored artifacts nobody needs any more: their jobs ended long ago, or they were never used.

They are only given up here, which makes them announcements without content; `Uploads.expire` removes object and row. A
crash in between leaves nothing that a job could be submitted with.
"""

from typing import Final
from uuid import UUID

from qubix_coordinator.artifacts import service as artifacts
from qubix_coordinator.db.database import Database, Tx, rows

BATCH: Final = 500
BATCHES_MAX: Final = 20

_UNNEEDED: Final = (
    "SELECT a.id FROM artifact a WHERE a.stored_at IS NOT NULL"
    " AND a.announced_at < now() - make_interval(secs => $1) AND ($3::uuid[] IS NULL OR a.id = ANY ($3))"
    " AND NOT EXISTS (SELECT FROM job_input i JOIN job j ON j.id = i.job_id WHERE i.digest = a.digest"
    " AND j.account_id = a.account_id AND coalesce(j.ended_ms, $2) >= $2)"
    " AND NOT EXISTS (SELECT FROM link l JOIN job j ON j.no = l.job_no WHERE l.output_digest = a.digest"
    " AND j.account_id = a.account_id AND coalesce(j.ended_ms, $2) >= $2)"
)


async def give_up_unneeded(db: Database, *, keep_s: float, now_ms: int) -> int:
    """Those that nobody announced for `keep_s` and that no job used which lives or ended since. Gives how many."""
    given_up = 0
    for _ in range(BATCHES_MAX):
        batch = await db.run(lambda tx: _give_up_batch(tx, keep_s, now_ms))
        given_up += batch
        if batch < BATCH:
            break
    return given_up


async def _give_up_batch(tx: Tx, keep_s: float, now_ms: int) -> int:
    """A job keeps its inputs by a lock on their rows (`artifacts.keep`), so its inputs are either skipped here, or the
    second look, which sees all that was committed before our own locks, finds the job.
    """
    since_ms = now_ms - round(keep_s * 1000)
    locked = await _unneeded(
        tx, keep_s, since_ms, None, f" ORDER BY a.announced_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED"
    )
    still = await _unneeded(tx, keep_s, since_ms, locked, "")
    await artifacts.give_up(tx, still)
    return len(still)


async def _unneeded(tx: Tx, keep_s: float, since_ms: int, among: list[UUID] | None, how: str) -> list[UUID]:
    return [row["id"] for row in await rows(tx, _UNNEEDED + how, float(keep_s), since_ms, among)]
