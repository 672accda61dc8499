# SPDX-License-Identifier: Apache-2.0
"""The verifier's half of the database: claim an attempt that waits for its check, keep the claim, record the verdict.

A claim is a lease: a verifier that dies loses it, and another one starts the check anew. What was checked is recorded
once; the engine applies it.
"""

from dataclasses import dataclass
from uuid import UUID

from qubix_coordinator.db.database import Tx, execute, one
from qubix_coordinator.jobs.tables import Attempt, ChainLink, Job, JobInput
from qubix_protocol.messages import Params

CLAIM_MS = 15_000
DETAIL_MAX = 2_000


@dataclass(frozen=True, slots=True)
class File:
    """An artifact of the job's owner as it was committed."""

    digest: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Everything a check needs. `outputs` are (start, stop, file) in the order of the chain."""

    attempt_id: UUID
    account_id: UUID
    kernel: str
    params: Params
    inputs: dict[str, File]
    outputs: tuple[tuple[int, int, File], ...]
    head: bytes
    due_ms: int


@dataclass(frozen=True, slots=True)
class Finding:
    """`carried_out` False: nothing was found out about the result, and `detail` says why. `seed` is what was drawn;
    with the head of the chain it makes what the check's choices came from (`job_receipt.check_seed`)."""

    carried_out: bool
    accepted: bool
    reason: str
    detail: str
    parts: tuple[bool, ...]
    seed: bytes
    check_ms: int


async def claim(tx: Tx, verifier: str, now_ms: int) -> Claim | None:
    """The attempt that has waited longest and is in nobody's hands."""
    found = await one(
        tx,
        "SELECT id FROM attempt a WHERE state = 'verifying' AND claim_until_ms <= $1 AND due_ms > $1"
        " AND NOT EXISTS (SELECT FROM verdict v WHERE v.attempt_id = a.id)"
        " ORDER BY ended_ms LIMIT 1 FOR UPDATE SKIP LOCKED",
        now_ms,
    )
    if found is None:
        return None
    attempt = await Attempt.filter(id=found["id"]).using_db(tx).get()
    attempt.claimed_by, attempt.claim_until_ms = verifier, now_ms + CLAIM_MS
    await attempt.save(using_db=tx, update_fields=["claimed_by", "claim_until_ms"])
    return await _claim_of(tx, attempt)


async def _claim_of(tx: Tx, attempt: Attempt) -> Claim:
    job = await Job.filter(id=attempt.job_id).using_db(tx).get()
    inputs = await JobInput.filter(job_id=job.id).using_db(tx)
    links = await ChainLink.filter(attempt_id=attempt.id).using_db(tx).order_by("index")
    assert attempt.due_ms is not None, "a check has a deadline"
    return Claim(
        attempt_id=attempt.id,
        account_id=job.data_owner,
        kernel=job.kernel,
        params=job.params,
        inputs={one.name: File(bytes(one.digest), one.size_bytes) for one in inputs},
        outputs=tuple((l.start, l.stop, File(bytes(l.output_digest), l.output_bytes)) for l in links),
        head=bytes(attempt.head),
        due_ms=attempt.due_ms,
    )


async def keep(tx: Tx, attempt_id: UUID, verifier: str, now_ms: int) -> bool:
    """Prolongs the claim; False when it was lost."""
    return (
        await execute(
            tx,
            "UPDATE attempt SET claim_until_ms = $3 WHERE id = $1 AND claimed_by = $2 AND state = 'verifying'",
            attempt_id,
            verifier,
            now_ms + CLAIM_MS,
        )
        == 1
    )


async def record(tx: Tx, attempt_id: UUID, verifier: str, finding: Finding, now_ms: int) -> bool:
    """The first verdict stands. False when the attempt no longer waits for this verifier's."""
    recorded = await one(
        tx,
        "INSERT INTO verdict (attempt_id, carried_out, accepted, reason, detail, parts, seed, check_ms, verifier,"
        " recorded_ms) SELECT id, $3, $4, $5, $6, $7, $8, $9, $2, $10 FROM attempt"
        " WHERE id = $1 AND state = 'verifying' AND claimed_by = $2 ON CONFLICT (attempt_id) DO NOTHING"
        " RETURNING attempt_id",
        attempt_id,
        verifier,
        finding.carried_out,
        finding.accepted,
        finding.reason,
        finding.detail[:DETAIL_MAX],
        list(finding.parts),
        finding.seed,
        finding.check_ms,
        now_ms,
    )
    return recorded is not None
