# SPDX-License-Identifier: Apache-2.0
"""What can be run, and who offers to run it."""

from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import route
from qubix_coordinator.jobs import outcomes_read
from qubix_coordinator.market import query as search
from qubix_coordinator.market import service as market
from qubix_coordinator.market import standing
from qubix_coordinator.telemetry import service as telemetry
from qubix_kernels import get, names
from qubix_protocol.api import KernelsView, OffersView, ReadingsView
from qubix_protocol.messages import Name, Peer
from qubix_protocol.query import LENGTH_MAX, ORDER_LENGTH_MAX, Query, QueryError, SortKey, nodes, parse, parse_order
from qubix_protocol.reputation import ReputationView, WorkOutcomesView
from qubix_protocol.states import DeviceKind
from qubix_protocol.units import READINGS_MINUTES_MAX


class OffersQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of what is given must hold. `q` is a query line, `order` what to sort by (the price by default), both as the
    package `qubix_protocol.query` describes them; `after` is `next` of the page before. `counts=true` counts what each
    filter leaves."""

    q: Annotated[str, Meta(max_length=LENGTH_MAX)] = ""
    order: Annotated[str, Meta(max_length=ORDER_LENGTH_MAX)] = ""
    limit: Annotated[int, Meta(ge=1, le=search.LIMIT_MAX)] = search.LIMIT_MAX
    after: Annotated[str, Meta(max_length=search.CURSOR_MAX)] | None = None
    counts: bool = False
    kind: DeviceKind | None = None
    backend: Name | None = None
    provider: Peer | None = None

    def query(self) -> Query:
        """`q` and the plain filters together. Raises QueryError with a column of `q`."""
        plain = [("kind", self.kind), ("backend", self.backend), ("provider", self.provider)]
        more = [f"{name}={nodes.quoted(str(value))}" for name, value in plain if value is not None]
        return parse(self.q).with_also(" ".join(more))

    def keys(self) -> tuple[SortKey, ...]:
        try:
            return parse_order(self.order)
        except QueryError as error:
            error.field = "order"
            raise


class ReadingsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far back; a day is kept."""

    minutes: Annotated[int, Meta(ge=1, le=READINGS_MINUTES_MAX)] = 60


@route(api, "GET", "/kernels", answer=KernelsView, group="market")
async def list_kernels() -> KernelsView:
    """Every kernel with its parameters, arrays and bounds"""
    return KernelsView(kernels=tuple(msgspec.to_builtins(get(name).spec) for name in names()))


@route(api, "GET", "/offers", scope="user", visitors=True, query=OffersQuery, answer=OffersView, group="market")
async def list_offers(who: Principal | None, query: OffersQuery) -> OffersView:
    """The market now, and the cursor from which the live feed goes on"""
    context, now_ms = here(), here().now_ms()
    found, keys = query.query(), query.keys()
    asked = search.Asked(found, keys or search.DEFAULT_ORDER, query.limit, query.after)
    cursor = await context.notifier.position()
    answer = await search.answer(context.db, asked, counted=query.counts, now_ms=now_ms)
    return msgspec.structs.replace(answer, cursor=str(cursor))


@route(
    api,
    "GET",
    "/offers/<uuid:listing_id>/readings",
    scope="user",
    visitors=True,
    query=ReadingsQuery,
    answer=ReadingsView,
    group="market",
)
async def list_readings(who: Principal | None, query: ReadingsQuery, listing_id: UUID) -> ReadingsView:
    """What a device said of itself lately, as a series for charts"""
    context, now_ms = here(), here().now_ms()
    peer, device = await market.device_of(context.db, listing_id)
    since_ms = now_ms - query.minutes * 60_000
    found = await telemetry.series(context.db, peer, device, since_ms=since_ms, now_ms=now_ms)
    return ReadingsView(listing_id=str(listing_id), readings=tuple(found))


@route(
    api,
    "GET",
    "/offers/<uuid:listing_id>/reputation",
    scope="user",
    visitors=True,
    answer=ReputationView,
    group="market",
)
async def show_reputation(who: Principal | None, listing_id: UUID) -> ReputationView:
    """How reliable a device was, and the sentence and numbers behind each part of that"""
    return await standing.view(here().db, listing_id, now_ms=here().now_ms())


@route(
    api, "GET", "/offers/<uuid:listing_id>/work", scope="user", visitors=True, answer=WorkOutcomesView, group="market"
)
async def list_work_outcomes(who: Principal | None, listing_id: UUID) -> WorkOutcomesView:
    """What is known of a device's work: what was finished, failed, checked and disputed, never whose it was"""
    return await outcomes_read.outcomes(here().db, listing_id)
