# SPDX-License-Identifier: Apache-2.0
"""What a provider earned, when, and by which work."""

from typing import Annotated

import msgspec
from msgspec import Meta

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.earnings import service as earnings
from qubix_coordinator.earnings import work
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import route
from qubix_protocol.earnings import EarningsView, Period, WorksView

Moment = Annotated[int, Meta(ge=0, le=253_402_300_799_000)]


class EarningsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    by: Period = Period.DAY
    since: Moment | None = None
    until: Moment | None = None
    tz: Annotated[str, Meta(min_length=1, max_length=64)] = "UTC"


class WorkQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    after: Annotated[str, Meta(max_length=200)] | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


@route(api, "GET", "/account/earnings", scope="user", query=EarningsQuery, answer=EarningsView, group="account")
async def get_earnings(who: Principal, query: EarningsQuery) -> EarningsView:
    """What your nodes earned by day, week or month, and by device; the sums are the ledger's"""
    return await earnings.earnings(here().db, who, by=query.by, tz=query.tz, since_ms=query.since, until_ms=query.until)


@route(api, "GET", "/account/work", scope="user", query=WorkQuery, answer=WorksView, group="account")
async def get_work(who: Principal, query: WorkQuery) -> WorksView:
    """The jobs and rentals that ran on your nodes, with times and payments, newest first"""
    return await work.work(here().db, who, after=query.after, limit=query.limit)
