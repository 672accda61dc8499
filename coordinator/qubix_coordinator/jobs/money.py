# SPDX-License-Identifier: Apache-2.0
"""A job's three movements of money: hold, settle, return. Each cause is posted once, whoever tries again.

The job's row repeats the amounts; both are written in the caller's transaction, under the job's lock.
"""

from uuid import UUID

import msgspec

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Tx, value
from qubix_coordinator.errors import NotEnoughBalance
from qubix_coordinator.jobs.tables import Job
from qubix_coordinator.ledger import read, rules
from qubix_coordinator.ledger.post import post
from qubix_coordinator.outbox import events
from qubix_protocol.api import AccountView


async def hold(tx: Tx, job: Job) -> None:
    """Sets the cap aside. Raises NotEnoughBalance."""
    balance_qu = await read.balance_qu(tx, rules.user(job.account_id))
    if balance_qu < job.cap_qu:
        raise NotEnoughBalance(
            f"the cap is {job.cap_qu} QU and the balance {balance_qu} QU",
            field="cap_qu",
            remedy=f"Deposit at least {job.cap_qu - balance_qu} QU, or lower cap_qu",
        )
    await post(tx, [rules.hold(job.id, job.account_id, job.cap_qu)])
    await emit_account(tx, job.account_id)


async def settle(tx: Tx, job: Job, attempt_id: UUID, provider: UUID, charge_qu: int, fee_bps: int) -> tuple[int, int]:
    """Pays one attempt out of the hold; what the provider gets, and the market's fee."""
    split = rules.split_fee(charge_qu, fee_bps)
    await post(tx, [rules.settle(job.id, attempt_id, provider, split.paid_qu, split.fee_qu)])
    await emit_account(tx, provider)
    if provider != job.account_id:
        await emit_account(tx, job.account_id)
    return split.paid_qu, split.fee_qu


async def return_rest(tx: Tx, job: Job) -> None:
    """What is left goes back to the consumer; the hold is closed."""
    left_qu = job.hold_left_qu
    if left_qu > 0:
        await post(tx, [rules.give_back(job.id, job.account_id, left_qu)])
        job.returned_qu += left_qu
        await emit_account(tx, job.account_id)


async def emit_account(tx: Tx, account_id: UUID) -> None:
    """The balance as it is now. `scopes` are of a token, not of the account: none stand in an event."""
    account, balance = await accounts.account(tx, account_id), await read.balance(tx, account_id)
    key = await order_key(tx, account_id)
    view = AccountView(
        account_id=str(account_id),
        name=account.name,
        balance_qu=balance.available_qu,
        held_qu=balance.held_qu,
        scopes=(),
        order_key=key.hex() if key else None,
    )
    await events.emit(tx, f"account:{account_id}", msgspec.to_builtins(view))


async def order_key(tx: Tx, account_id: UUID) -> bytes | None:
    """The key that signs the account's orders, once it has one."""
    found = await value(
        tx, "SELECT public_key FROM account_key WHERE account_id = $1 AND purpose = 'order'", account_id
    )
    return bytes(found) if found is not None else None
