# SPDX-License-Identifier: Apache-2.0
"""An account with its balance, for whoever asks and for whoever watches it."""

from typing import Final
from uuid import UUID

import msgspec

from qubix_coordinator.accounts import order_keys
from qubix_coordinator.db.database import Tx, one
from qubix_coordinator.errors import NotFound
from qubix_coordinator.ledger import read
from qubix_coordinator.outbox import events
from qubix_protocol.account_news import BalanceNews
from qubix_protocol.api import AccountView

_KEYS: Final = f"{order_keys.FIRST} AS key, {order_keys.SIGNED} AS signed"
_ACCOUNT: Final = f"SELECT a.name, {_KEYS} FROM account a WHERE a.id = $1"  # noqa: S608 - names of ours


async def emit_account(tx: Tx, account_id: UUID) -> None:
    """The balance as it is now."""
    view = await account_view(tx, account_id)
    await events.emit(tx, f"account:{account_id}", msgspec.to_builtins(BalanceNews(account=view)))


async def account_view(tx: Tx, account_id: UUID, scopes: tuple[str, ...] = ()) -> AccountView:
    """`scopes`: of who asks. Raises NotFound."""
    found = await one(tx, _ACCOUNT, account_id)
    if found is None:
        raise NotFound("there is no such account", field="account", remedy="Check the id")
    balance, key = await read.balance(tx, account_id), found["key"]
    return AccountView(
        account_id=str(account_id),
        name=found["name"],
        balance_qu=balance.available_qu,
        held_qu=balance.held_qu,
        scopes=scopes,
        order_key=None if key is None else bytes(key).hex(),
        orders_signed=found["signed"],
    )
