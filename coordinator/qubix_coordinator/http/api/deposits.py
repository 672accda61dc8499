# SPDX-License-Identifier: Apache-2.0
"""Where to send QU, and what came in."""

from typing import Annotated

import msgspec
from msgspec import Meta

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.http import deposits
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import route
from qubix_protocol.deposits import ChainView, DepositIdentityView, DepositsView


class DepositsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    after: Annotated[str, Meta(max_length=200)] | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


@route(api, "POST", "/account/deposit-identity", scope="user", answer=DepositIdentityView, group="wallet")
async def get_deposit_identity(who: Principal) -> DepositIdentityView:
    """Where to send QU: your account's own identity, the same each time"""
    return await deposits.identity_of(here(), who)


@route(api, "GET", "/account/deposits", scope="user", query=DepositsQuery, answer=DepositsView, group="wallet")
async def list_deposits(who: Principal, query: DepositsQuery) -> DepositsView:
    """What came in, newest first, each with its transaction, and how the network looks"""
    return await deposits.listed(here(), who, after=query.after, limit=query.limit)


@route(api, "GET", "/chain", answer=ChainView, group="network")
async def get_chain() -> ChainView:
    """Whether the Qubic network answers, and how far deposits are read; balances and jobs go on in any case"""
    return await deposits.chain(here())
