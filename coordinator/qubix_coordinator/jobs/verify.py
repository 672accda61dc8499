# SPDX-License-Identifier: Apache-2.0
"""The verifier's half of the database: claim an attempt that waits for its check, keep the claim, record the verdict.

A claim is a lease: a verifier that dies loses it, and another one starts the check anew. What was checked is recorded
once; the engine applies it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    others: tuple[tuple[int, int, File], ...] = ()
    """Somebody else's outputs of the same units, to compare with."""
    look_id: UUID | None = None
    """Of a second look; None for an attempt's check."""


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
        return await _claim_second_look(tx, verifier, now_ms)
    attempt = await Attempt.filter(id=found["id"]).using_db(tx).get()
    attempt.claimed_by, attempt.claim_until_ms = verifier, now_ms + CLAIM_MS
    await attempt.save(using_db=tx, update_fields=["claimed_by", "claim_until_ms"])
    return await _claim_of(tx, attempt)


async def _claim_of(tx: Tx, attempt: Attempt) -> Claim:
    links = await ChainLink.filter(attempt_id=attempt.id).using_db(tx).order_by("index")
    assert attempt.due_ms is not None, "a check has a deadline"
    return await _claim_on(tx, attempt, links, attempt.due_ms)


async def _claim_on(tx: Tx, attempt: Attempt, links: Sequence[ChainLink], due_ms: int) -> Claim:
    job = await Job.filter(id=attempt.job_id).using_db(tx).get()
    inputs = await JobInput.filter(job_id=job.id).using_db(tx)
    return Claim(
        attempt_id=attempt.id,
        account_id=job.data_owner,
        kernel=job.kernel,
        params=job.params,
        inputs={one.name: File(bytes(one.digest), one.size_bytes) for one in inputs},
        outputs=_files(links),
        head=bytes(attempt.head),
        due_ms=due_ms,
    )


def _files(links: Sequence[ChainLink]) -> tuple[tuple[int, int, File], ...]:
    return tuple((link.start, link.stop, File(bytes(link.output_digest), link.output_bytes)) for link in links)


async def _claim_second_look(tx: Tx, verifier: str, now_ms: int) -> Claim | None:
    found = await one(
        tx,
        "UPDATE second_look SET claimed_by = $2, claim_until_ms = $3 WHERE id = (SELECT id FROM second_look"
        " WHERE recorded_ms IS NULL AND claim_until_ms <= $1 AND due_ms > $1 ORDER BY due_ms LIMIT 1"
        " FOR UPDATE SKIP LOCKED) RETURNING id, attempt_id, good, other_job_id, due_ms, start, stop",
        now_ms,
        verifier,
        now_ms + CLAIM_MS,
    )
    if found is None:
        return None
    attempt = await Attempt.filter(id=found["attempt_id"]).using_db(tx).get()
    made = ChainLink.filter(attempt_id=attempt.id, verdict=found["good"])
    if found["start"] is not None:
        made = made.filter(start__gte=found["start"], stop__lte=found["stop"])
    claimed = await _claim_on(tx, attempt, await made.using_db(tx).order_by("index"), found["due_ms"])
    others: list[ChainLink] = []
    if found["other_job_id"] is not None:
        other = await Job.filter(id=found["other_job_id"]).using_db(tx).get()
        others = await ChainLink.filter(job_no=other.no, verdict=True).using_db(tx).order_by("start")
    return replace(claimed, look_id=found["id"], others=_files(others))


async def keep(tx: Tx, claim: Claim, verifier: str, now_ms: int) -> bool:
    """Prolongs the claim; False when it was lost."""
    if claim.look_id is not None:
        sql = "UPDATE second_look SET claim_until_ms = $3 WHERE id = $1 AND claimed_by = $2 AND recorded_ms IS NULL"
        return await execute(tx, sql, claim.look_id, verifier, now_ms + CLAIM_MS) == 1
    attempt_id = claim.attempt_id
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


async def record_for(tx: Tx, claim: Claim, verifier: str, finding: Finding, now_ms: int) -> bool:
    if claim.look_id is not None:
        return await record_look(tx, claim.look_id, verifier, finding, now_ms)
    return await record(tx, claim.attempt_id, verifier, finding, now_ms)


async def record_look(tx: Tx, look_id: UUID, verifier: str, finding: Finding, now_ms: int) -> bool:
    """The first finding stands. False when the second look no longer waits for this verifier's."""
    recorded = await execute(
        tx,
        "UPDATE second_look SET carried_out = $3, accepted = $4, reason = $5, detail = $6, seed = $7, check_ms = $8,"
        " recorded_ms = $9 WHERE id = $1 AND claimed_by = $2 AND recorded_ms IS NULL",
        look_id,
        verifier,
        finding.carried_out,
        finding.accepted,
        finding.reason,
        finding.detail[:DETAIL_MAX],
        finding.seed,
        finding.check_ms,
        now_ms,
    )
    return recorded == 1


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
