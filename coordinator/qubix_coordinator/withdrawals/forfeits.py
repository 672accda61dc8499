# SPDX-License-Identifier: Apache-2.0
"""A failed check takes a provider's new earnings (trust.md C5): what was settled within the delay in which it cannot be
withdrawn, as far as the balance goes. It goes to the fund, which pays awards and spot checks."""

import logging
from uuid import UUID

from qubix_coordinator.db.database import Row, Tx, execute, one, value
from qubix_coordinator.ledger import read
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.ledger.post import post
from qubix_coordinator.ledger.tell import emit_account
from qubix_coordinator.withdrawals import limits
from qubix_protocol.states import Reason

log = logging.getLogger(__name__)


async def take(
    tx: Tx,
    cause_id: UUID,
    account_id: UUID,
    *,
    attempt_id: UUID,
    job_id: UUID,
    reason: Reason,
    delay_s: int,
    now_ms: int,
    unchecked: bool = False,
) -> int:
    """Once for each cause; gives what was taken. Withdrawals of the account wait meanwhile: they never take what is
    new, and this takes nothing else, so it does not matter who comes first. `unchecked`: only what was earned by work
    that no verifier judges."""
    await read.lock_account(tx, account_id)
    if await value(tx, "SELECT true FROM forfeit WHERE id = $1", cause_id):
        return 0
    new = [one for one in await limits.new_settlements(tx, account_id, delay_s) if one["unchecked"] or not unchecked]
    if not new:
        return 0
    new_qu = sum(line["amount_qu"] for line in new)
    amount_qu: int = min(new_qu, await _balance_qu(tx, account_id))
    await execute(
        tx,
        "INSERT INTO forfeit (id, account_id, attempt_id, reason, new_qu, amount_qu, at_ms)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        cause_id,
        account_id,
        attempt_id,
        reason.value,
        new_qu,
        amount_qu,
        now_ms,
    )
    await _mark(tx, cause_id, account_id, new)
    if amount_qu:
        await post(tx, [ledger.forfeit(cause_id, account_id, amount_qu, job_id)])
        await emit_account(tx, account_id)
    log.info("earnings.forfeit", extra={"account": str(account_id), "attempt": str(attempt_id), "amount_qu": amount_qu})
    return amount_qu


async def _mark(tx: Tx, cause_id: UUID, account_id: UUID, new: list[Row]) -> None:
    await execute(
        tx,
        "INSERT INTO forfeited (account_id, transfer_id, forfeit_id) SELECT $1, t, $2 FROM unnest($3::uuid[]) AS t",
        account_id,
        cause_id,
        [line["transfer_id"] for line in new],
    )


async def _balance_qu(tx: Tx, account_id: UUID) -> int:
    """It cannot change until the transaction ends: what is spent on jobs takes no lock of the account."""
    found = await one(
        tx,
        "SELECT balance_qu FROM ledger_account WHERE kind = 'user' AND owner = $1 FOR NO KEY UPDATE",
        account_id,
    )
    return 0 if found is None else int(found["balance_qu"])
