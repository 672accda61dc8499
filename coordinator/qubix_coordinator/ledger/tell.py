# SPDX-License-Identifier: Apache-2.0
"""Tells whoever watches an account that its balance has moved."""

from uuid import UUID

import msgspec

from qubix_coordinator.db.database import Tx, one, value
from qubix_coordinator.errors import NotFound
from qubix_coordinator.ledger import read
from qubix_coordinator.outbox import events
from qubix_protocol.account_news import BalanceNews
from qubix_protocol.api import AccountView


async def emit_account(tx: Tx, account_id: UUID) -> None:
    """The balance as it is now."""
    named = await one(
        tx,
        "SELECT a.name, k.public_key FROM account a LEFT JOIN account_key k"
        " ON k.account_id = a.id AND k.purpose = 'order' WHERE a.id = $1",
        account_id,
    )
    if named is None:
        raise NotFound("there is no such account", field="account", remedy="Check the id")
    balance, key = await read.balance(tx, account_id), named["public_key"]
    view = AccountView(
        account_id=str(account_id),
        name=named["name"],
        balance_qu=balance.available_qu,
        held_qu=balance.held_qu,
        scopes=(),
        order_key=bytes(key).hex() if key is not None else None,
    )
    await events.emit(tx, f"account:{account_id}", msgspec.to_builtins(BalanceNews(account=view)))


async def order_key(tx: Tx, account_id: UUID) -> bytes | None:
    """The key that signs the account's orders, once it has one."""
    found = await value(
        tx, "SELECT public_key FROM account_key WHERE account_id = $1 AND purpose = 'order'", account_id
    )
    return bytes(found) if found is not None else None
