# SPDX-License-Identifier: Apache-2.0
"""Development credit: play money for devnet and test, impossible on main (trust.md M8)."""

from uuid import UUID

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database, Tx, value
from qubix_coordinator.errors import InvalidInput, LimitExceeded, WrongNetwork
from qubix_coordinator.ledger import rules
from qubix_coordinator.ledger.post import post
from qubix_coordinator.ledger.read import balance_qu, lock_account

KEY_MAX = 100
DEFAULT_MAX_QU = 1_000_000_000


async def development_credit(
    db: Database, account_id: UUID, amount_qu: int, idempotency_key: str, *, total_max_qu: int = DEFAULT_MAX_QU
) -> int:
    """Credits once per key and gives the balance. `total_max_qu` bounds all development credit of the account.

    Raises WrongNetwork on main, InvalidInput, NotFound, LimitExceeded, CauseReused (the key with another amount).
    """
    _check(amount_qu, idempotency_key)
    return await db.run(lambda tx: _credit(tx, account_id, amount_qu, idempotency_key, total_max_qu))


async def _credit(tx: Tx, account_id: UUID, amount_qu: int, key: str, total_max_qu: int) -> int:
    if await value(tx, "SELECT name FROM network") == "main":
        raise WrongNetwork("there is no development credit on the main network", remedy="Deposit QU")
    await accounts.account(tx, account_id)
    await lock_account(tx, account_id)
    transfer = rules.development_credit(account_id, amount_qu, key)
    total_qu = await _credited_qu(tx, account_id, transfer.id) + amount_qu
    if total_qu > total_max_qu:
        raise LimitExceeded(
            f"development credit is limited to {total_max_qu} QU for an account",
            field="amount_qu",
            remedy=f"Ask for at most {max(0, total_max_qu - total_qu + amount_qu)} QU",
        )
    await post(tx, [transfer])
    return await balance_qu(tx, rules.user(account_id))


async def _credited_qu(tx: Tx, account_id: UUID, but: UUID) -> int:
    return int(
        await value(
            tx,
            "SELECT coalesce(sum(e.amount_qu), 0)::bigint FROM entry e JOIN transfer t ON t.id = e.transfer_id"
            " JOIN ledger_account a ON a.id = e.account_id"
            " WHERE a.kind = 'user' AND a.owner = $1 AND t.kind = 'development_credit' AND t.id <> $2",
            account_id,
            but,
        )
    )


def _check(amount_qu: int, key: str) -> None:
    if not 1 <= amount_qu <= rules.AMOUNT_MAX_QU:
        raise InvalidInput("amount_qu", "the amount is not possible", f"Use 1 to {rules.AMOUNT_MAX_QU} QU")
    if not 1 <= len(key) <= KEY_MAX:
        raise InvalidInput("idempotency_key", "the key is empty or too long", f"Use 1 to {KEY_MAX} characters")
