# SPDX-License-Identifier: Apache-2.0
"""The keys that sign your orders: which there are, adding and revoking them (docs/adr/0038)."""

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.errors import InvalidInput
from qubix_coordinator.http import order_keys
from qubix_coordinator.http.api import api
from qubix_coordinator.http.api.wallets import asked
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import route
from qubix_protocol.order_keys import OrderKeyBody, OrderKeyRevocationBody, OrderKeysView, WalletApprovalBody, read_key
from qubix_protocol.wallets import WalletsView


@route(api, "GET", "/order-keys", scope="user", answer=OrderKeysView, group="account")
async def list_order_keys(who: Principal) -> OrderKeysView:
    """The keys that sign your orders, and those that did; who added and revoked each"""
    return await order_keys.view(here(), who)


@route(api, "POST", "/order-keys", scope="user", body=OrderKeyBody, answer=OrderKeysView, status=201, group="account")
async def add_order_key(who: Principal, body: OrderKeyBody) -> OrderKeysView:
    """Let another key sign your orders: a live key or a wallet signs for it, unless it is the first ever"""
    return await order_keys.add(here(), asked(), who, body)


@route(
    api,
    "POST",
    "/order-keys/<public_key>/revoke",
    scope="user",
    body=OrderKeyRevocationBody,
    answer=OrderKeysView,
    group="account",
)
async def revoke_order_key(who: Principal, public_key: str, body: OrderKeyRevocationBody) -> OrderKeysView:
    """Take no further order of a key, at once and for good; orders that were taken stay. The last by a wallet alone"""
    return await order_keys.revoke(here(), asked(), who, _key(public_key), body)


@route(
    api,
    "POST",
    "/wallets/<identity>/approve",
    scope="user",
    body=WalletApprovalBody,
    answer=WalletsView,
    group="wallet",
)
async def approve_wallet(who: Principal, identity: str, body: WalletApprovalBody) -> WalletsView:
    """Let a bound wallet add and revoke the keys of your orders: a live key signs for it"""
    return await order_keys.approve_wallet(here(), who, identity, body)


def _key(text: str) -> bytes:
    found = read_key(text)
    if found is None:
        raise InvalidInput("public_key", "this is no public key", "Give the 64 hex digits that GET /order-keys lists")
    return found
