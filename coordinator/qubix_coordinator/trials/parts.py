# SPDX-License-Identifier: Apache-2.0
"""Trials and their parts as rows."""

from collections.abc import Sequence
from uuid import UUID

from qubix_coordinator.db.database import Row, Tx, execute, one, rows
from qubix_coordinator.trials.rules import Claim, Part
from qubix_protocol.states import DeviceKind
from qubix_protocol.trials import TrialShape


async def lock(tx: Tx, trial_id: UUID) -> Row | None:
    """The trial, locked until the transaction ends."""
    return await one(tx, "SELECT * FROM trial WHERE id = $1 FOR UPDATE", trial_id)


async def open_of(tx: Tx, peer_id: str, trial_id: str) -> Row | None:
    """The node's trial of this id while it is under way, locked."""
    return await one(
        tx,
        "SELECT * FROM trial WHERE id = $1 AND peer_id = $2 AND ended_ms IS NULL FOR UPDATE",
        UUID(trial_id),
        peer_id,
    )


async def of(tx: Tx, trial_id: UUID) -> list[Part]:
    found = await rows(tx, "SELECT * FROM trial_part WHERE trial_id = $1 ORDER BY device_id", trial_id)
    return [_part(row) for row in found]


async def digests_of(tx: Tx, trial_id: UUID) -> dict[str, bytes]:
    """By device."""
    found = await rows(tx, "SELECT device_id, digests FROM trial_part WHERE trial_id = $1", trial_id)
    return {row["device_id"]: bytes(row["digests"] or b"") for row in found}


async def add(tx: Tx, trial_id: UUID, parts: Sequence[Part]) -> None:
    for part in parts:
        claim, shape = part.claim, part.shape
        await execute(
            tx,
            "INSERT INTO trial_part (trial_id, listing_id, device_id, backend, kind, model, driver, memory_bytes,"
            " claimed_flops, pages, rows_of_page, columns, depth)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
            trial_id,
            claim.listing_id,
            claim.device_id,
            claim.backend,
            claim.kind.value,
            claim.model,
            claim.driver,
            claim.memory_bytes,
            claim.flops,
            shape.pages,
            shape.rows,
            shape.columns,
            shape.depth,
        )


def _part(row: Row) -> Part:
    claim = Claim(
        listing_id=row["listing_id"],
        device_id=row["device_id"],
        kind=DeviceKind(row["kind"]),
        model=row["model"],
        driver=row["driver"],
        memory_bytes=row["memory_bytes"],
        backend=row["backend"],
        flops=row["claimed_flops"],
    )
    shape = TrialShape(pages=row["pages"], rows=row["rows_of_page"], columns=row["columns"], depth=row["depth"])
    return Part(
        claim=claim,
        shape=shape,
        ready=row["ready"],
        fill_ms=row["fill_ms"],
        proof_ms=row["proof_ms"],
        problem=row["problem"],
        detail=row["detail"],
    )
