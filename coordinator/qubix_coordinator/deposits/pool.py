# SPDX-License-Identifier: Apache-2.0
"""Deposit identities: the chain process fills the pool, the API gives one to each account that asks."""

from uuid import UUID

from qubix_coordinator.db.database import Tx, execute, one, rows, value
from qubix_coordinator.deposits.ports import Signer
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.ledger.read import lock_account

SPARE: int = 64
"""So many identities wait for accounts to come."""


async def fill(tx: Tx, signer: Signer, spare: int = SPARE) -> int:
    """Adds public keys until `spare` of them are free; how many were added."""
    free = int(await value(tx, "SELECT count(*) FROM deposit_identity WHERE account_id IS NULL"))
    first = int(await value(tx, "SELECT coalesce(max(no) + 1, 0) FROM deposit_identity"))
    missing = range(first, first + max(0, spare - free))
    for no in missing:
        await execute(
            tx, "INSERT INTO deposit_identity (no, public_key) VALUES ($1, $2)", no, signer.deposit_public_key(no)
        )
    return len(missing)


async def identity_of(tx: Tx, account_id: UUID) -> bytes | None:
    found = await value(tx, "SELECT public_key FROM deposit_identity WHERE account_id = $1", account_id)
    return None if found is None else bytes(found)


async def assign(tx: Tx, account_id: UUID) -> bytes:
    """The account's own, the same for ever. Raises Unavailable while the pool is empty."""
    await lock_account(tx, account_id)
    known = await identity_of(tx, account_id)
    if known is not None:
        return known
    free = await one(
        tx,
        "SELECT no, public_key FROM deposit_identity WHERE account_id IS NULL ORDER BY no LIMIT 1"
        " FOR UPDATE SKIP LOCKED",
    )
    if free is None:
        raise Unavailable(
            "no deposit identity is free at the moment",
            remedy="Try again in a few seconds; if it stays, the operator must start `qubix chain`",
        )
    await execute(
        tx, "UPDATE deposit_identity SET account_id = $1, assigned_at = now() WHERE no = $2", account_id, free["no"]
    )
    return bytes(free["public_key"])


async def check_signer(tx: Tx, signer: Signer) -> int | None:
    """The last identity when this signer's master secret does not give it, or None: the pool is of this secret."""
    found = await rows(tx, "SELECT no, public_key FROM deposit_identity ORDER BY no DESC LIMIT 1")
    for row in found:
        if bytes(row["public_key"]) != signer.deposit_public_key(row["no"]):
            return int(row["no"])
    return None
