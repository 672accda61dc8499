# SPDX-License-Identifier: Apache-2.0
"""What a listing was like over time."""

from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import route
from qubix_coordinator.telemetry import history, rules
from qubix_protocol.history import HISTORY_POINTS_MAX, HistoryView

_DAY_MS: Final = 86_400_000
Moment = Annotated[int, Meta(ge=0, le=253_402_300_799_000)]


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Milliseconds by the coordinator's clock; without `until`, until now; without `since`, a day."""

    since: Moment | None = None
    until: Moment | None = None
    points: Annotated[int, Meta(ge=2, le=HISTORY_POINTS_MAX)] = 300


@route(
    api,
    "GET",
    "/offers/<uuid:listing_id>/history",
    scope="user",
    visitors=True,
    query=HistoryQuery,
    answer=HistoryView,
    group="market",
)
async def get_history(who: Principal | None, query: HistoryQuery, listing_id: UUID) -> HistoryView:
    """Readings of a listing's device as points of a chart, and changes of its price and availability"""
    context, now_ms = here(), here().now_ms()
    settings = context.settings
    until_ms = min(now_ms, query.until) if query.until is not None else now_ms
    return await history.history(
        context.db,
        listing_id,
        since_ms=query.since if query.since is not None else max(0, until_ms - _DAY_MS),
        until_ms=until_ms,
        points=query.points,
        now_ms=now_ms,
        keep=rules.Keeping(settings.sample_keep_s, settings.sample_minute_keep_s, settings.sample_hour_keep_s),
    )
