# SPDX-License-Identifier: Apache-2.0
"""Tells whoever watches an account that its balance has moved."""

from uuid import UUID

import msgspec

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Tx, value
from qubix_coordinator.ledger import read
from qubix_coordinator.outbox import events
from qubix_protocol.api import AccountView


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
