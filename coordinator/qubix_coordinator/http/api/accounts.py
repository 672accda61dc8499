# SPDX-License-Identifier: Apache-2.0
"""Balance, statement, and the operator's audit."""

from typing import Annotated

import msgspec
from msgspec import Meta

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.http import money
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import route
from qubix_protocol.api import AccountView, AuditView, StatementView


class StatementQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    after: Annotated[str, Meta(max_length=200)] | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


@route(api, "GET", "/account", scope="user", answer=AccountView, group="account")
async def get_account(who: Principal) -> AccountView:
    """Your balance, and what is held for your jobs"""
    return await money.account(here().db, who)


@route(api, "GET", "/account/statement", scope="user", query=StatementQuery, answer=StatementView, group="account")
async def get_statement(who: Principal, query: StatementQuery) -> StatementView:
    """Each movement on your balance, newest first"""
    return await money.statement(here().db, who, after=query.after, limit=query.limit)


@route(api, "GET", "/audit", scope="operator", answer=AuditView, group="operator")
async def audit_ledger(who: Principal) -> AuditView:
    """Whether every invariant holds now; what cannot be told is `unknown`, and not clean"""
    return await money.audit(here())
