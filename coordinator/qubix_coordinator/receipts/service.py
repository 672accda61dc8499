# SPDX-License-Identifier: Apache-2.0
"""Adds entries to chains and reads them. Whoever adds holds the lock of what the chain is about."""

from uuid import UUID

from qubix_coordinator.db.database import Tx, execute, one, rows
from qubix_protocol import chain
from qubix_protocol.chain import Chain, Place, Statement
from qubix_protocol.keys import SigningKey


async def open_chain(tx: Tx, of: Chain, statement: Statement, key: SigningKey, *, at_ms: int) -> None:
    """The first entry. Raises the database's refusal when there is one already."""
    await _store(tx, of, Place(), statement, key, at_ms)


async def append(tx: Tx, of: Chain, statement: Statement, key: SigningKey, *, at_ms: int) -> bool:
    """The next entry. False where the chain was never opened: what is older than receipts gets none."""
    last = await one(
        tx, "SELECT index, digest FROM receipt_entry WHERE chain_id = $1 ORDER BY index DESC LIMIT 1", UUID(of.id)
    )
    if last is None:
        return False
    await _store(tx, of, Place(last["index"] + 1, bytes(last["digest"])), statement, key, at_ms)
    return True


async def _store(tx: Tx, of: Chain, place: Place, statement: Statement, key: SigningKey, at_ms: int) -> None:
    await execute(
        tx,
        "INSERT INTO receipt_entry (chain_id, index, kind, entry, predecessor, raw, at_ms)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        UUID(of.id),
        place.index,
        of.kind,
        str(statement.__struct_config__.tag),
        place.predecessor,
        chain.seal_entry(of, place, statement, key, at_ms),
        at_ms,
    )


async def entries(tx: Tx, chain_id: UUID) -> list[bytes]:
    """All of them, in order; none for a chain that was never opened."""
    found = await rows(tx, "SELECT raw FROM receipt_entry WHERE chain_id = $1 ORDER BY index", chain_id)
    return [bytes(row["raw"]) for row in found]


async def file_of(tx: Tx, of: Chain, key: SigningKey, *, at_ms: int) -> bytes | None:
    """The chain as it is now, with its signed end, as one file; None for a chain that was never opened."""
    found = await entries(tx, UUID(of.id))
    return chain.to_file(found, chain.seal_end(of, found, key, at_ms)) if found else None
