# SPDX-License-Identifier: Apache-2.0
"""Withdrawals, the addresses they may go to, standing orders, and what operators decide."""

from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from quart import request

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import route
from qubix_coordinator.withdrawals import addresses, limits, payouts, service
from qubix_coordinator.withdrawals.desk import Desk
from qubix_protocol.withdrawals import (
    AddressBody,
    AddressesView,
    AddressView,
    PayoutBody,
    PayoutView,
    RefuseBody,
    WithdrawableView,
    WithdrawalBody,
    WithdrawalReason,
    WithdrawalState,
    WithdrawalsView,
    WithdrawalView,
)


class WithdrawalsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    after: Annotated[str, Meta(max_length=200)] | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


class OperatorQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    state: WithdrawalState | None = None
    reason: WithdrawalReason | None = None
    after: Annotated[str, Meta(max_length=200)] | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


def _desk() -> Desk:
    context = here()
    return Desk(context.db, context.settings, context.clock)


@route(
    api, "POST", "/withdrawals", scope="user", body=WithdrawalBody, answer=WithdrawalView, status=201, group="wallet"
)
async def request_withdrawal(who: Principal, body: WithdrawalBody) -> WithdrawalView:
    """Set QU aside and send them to a listed address; the same Idempotency-Key gives the same withdrawal"""
    return await service.request(_desk(), who, body, request.headers.get("Idempotency-Key", ""))


@route(api, "GET", "/withdrawals", scope="user", query=WithdrawalsQuery, answer=WithdrawalsView, group="wallet")
async def list_withdrawals(who: Principal, query: WithdrawalsQuery) -> WithdrawalsView:
    """Your withdrawals, newest first, each with its transactions and why it waits"""
    return await service.list_withdrawals(_desk(), who, after=query.after, limit=query.limit)


@route(api, "GET", "/withdrawals/limits", scope="user", answer=WithdrawableView, group="wallet")
async def get_withdrawal_limits(who: Principal) -> WithdrawableView:
    """How much you can withdraw now, and why it is less than the balance"""
    return await limits.view(_desk(), who.account_id)


@route(api, "GET", "/withdrawals/<uuid:withdrawal_id>", scope="user", answer=WithdrawalView, group="wallet")
async def get_withdrawal(who: Principal, withdrawal_id: UUID) -> WithdrawalView:
    """One withdrawal with its transactions"""
    return await service.get(_desk(), who, withdrawal_id)


@route(api, "POST", "/withdrawals/<uuid:withdrawal_id>/cancel", scope="user", answer=WithdrawalView, group="wallet")
async def cancel_withdrawal(who: Principal, withdrawal_id: UUID) -> WithdrawalView:
    """Take it back while no transaction is signed"""
    return await service.cancel(_desk(), who, withdrawal_id)


@route(api, "GET", "/account/addresses", scope="user", answer=AddressesView, group="wallet")
async def list_addresses(who: Principal) -> AddressesView:
    """Where your withdrawals may go"""
    return await addresses.listed(_desk(), who.account_id)


@route(
    api, "POST", "/account/addresses", scope="user", body=AddressBody, answer=AddressView, status=201, group="wallet"
)
async def add_address(who: Principal, body: AddressBody) -> AddressView:
    """List an address; it can be used after a delay"""
    return await addresses.add(_desk(), who.account_id, body)


@route(api, "POST", "/account/addresses/<identity>/remove", scope="user", answer=AddressesView, group="wallet")
async def remove_address(who: Principal, identity: str) -> AddressesView:
    """Take an address off the list at once, and cancel what waits for it"""
    return await addresses.remove(_desk(), who.account_id, identity)


@route(api, "GET", "/account/payout", scope="user", answer=PayoutView, group="wallet")
async def get_payout(who: Principal) -> PayoutView:
    """Your standing order"""
    return await payouts.get_order(_desk(), who.account_id)


@route(api, "POST", "/account/payout", scope="user", body=PayoutBody, answer=PayoutView, group="wallet")
async def set_payout(who: Principal, body: PayoutBody) -> PayoutView:
    """Pay out by itself whatever can be withdrawn above an amount"""
    return await payouts.set_order(_desk(), who.account_id, body)


@route(api, "POST", "/account/payout/stop", scope="user", answer=PayoutView, group="wallet")
async def stop_payout(who: Principal) -> PayoutView:
    """End the standing order"""
    return await payouts.stop_order(_desk(), who.account_id)


@route(
    api, "GET", "/operator/withdrawals", scope="operator", query=OperatorQuery, answer=WithdrawalsView, group="operator"
)
async def list_all_withdrawals(who: Principal, query: OperatorQuery) -> WithdrawalsView:
    """Everybody's withdrawals, newest first; reason=approval and reason=hot_limit wait for you"""
    return await service.list_withdrawals(
        _desk(), None, state=query.state, reason=query.reason, after=query.after, limit=query.limit
    )


@route(
    api,
    "POST",
    "/operator/withdrawals/<uuid:withdrawal_id>/approve",
    scope="operator",
    answer=WithdrawalView,
    group="operator",
)
async def approve_withdrawal(who: Principal, withdrawal_id: UUID) -> WithdrawalView:
    """Let a large withdrawal go out"""
    return await service.approve(_desk(), who, withdrawal_id)


@route(
    api,
    "POST",
    "/operator/withdrawals/<uuid:withdrawal_id>/refuse",
    scope="operator",
    body=RefuseBody,
    answer=WithdrawalView,
    group="operator",
)
async def refuse_withdrawal(who: Principal, withdrawal_id: UUID, body: RefuseBody) -> WithdrawalView:
    """Give a waiting withdrawal back, with a reason for its owner"""
    return await service.refuse(_desk(), who, withdrawal_id, body.why)
