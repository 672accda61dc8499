# SPDX-License-Identifier: Apache-2.0
"""Rentals: one device for a time, paid by the answered second."""

from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from quart import request

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import route
from qubix_coordinator.rentals import service as rentals
from qubix_protocol import barriers
from qubix_protocol.barriers import Barrier
from qubix_protocol.rentals import ExtendBody, RentalBody, RentalGroupView, RentalSettleView, RentalsView, RentalView


class RentalsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    after: Annotated[str, Meta(max_length=200)] | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


def _key() -> str:
    return request.headers.get("Idempotency-Key", "")


@route(api, "POST", "/rentals", scope="user", body=RentalBody, answer=RentalView, status=201, group="rentals")
async def create_rental(who: Principal, body: RentalBody) -> RentalView:
    """Freeze the rate, hold rate × time, take the device off the market, or several of one node, all or none"""
    view = await rentals.create(here().desk, who, body, _key())
    await barriers.reach(Barrier.RENTAL_STORED)
    here().mesh.nudge()
    return view


@route(api, "GET", "/rental-groups/<uuid:group_id>", scope="user", answer=RentalGroupView, group="rentals")
async def get_rental_group(who: Principal, group_id: UUID) -> RentalGroupView:
    """Devices that were rented together, with their meters and their money added up"""
    return await rentals.get_group(here().desk, who, group_id)


@route(api, "POST", "/rental-groups/<uuid:group_id>/stop", scope="user", answer=RentalGroupView, group="rentals")
async def stop_rental_group(who: Principal, group_id: UUID) -> RentalGroupView:
    """End all of them now; the answered time is paid, the rest returned at once"""
    view = await rentals.stop_group(here().desk, who, group_id)
    here().mesh.nudge()
    return view


@route(api, "GET", "/rentals", scope="user", query=RentalsQuery, answer=RentalsView, group="rentals")
async def list_rentals(who: Principal, query: RentalsQuery) -> RentalsView:
    """Your rentals, newest first"""
    return await rentals.list_rentals(here().desk, who, after=query.after, limit=query.limit)


@route(api, "GET", "/rentals/<uuid:rental_id>", scope="user", answer=RentalView, group="rentals")
async def get_rental(who: Principal, rental_id: UUID) -> RentalView:
    """One rental with its meter and its money"""
    return await rentals.get(here().desk, who, str(rental_id))


@route(
    api, "POST", "/rentals/<uuid:rental_id>/extend", scope="user", body=ExtendBody, answer=RentalView, group="rentals"
)
async def extend_rental(who: Principal, rental_id: UUID, body: ExtendBody) -> RentalView:
    """More time at the same rate; the same Idempotency-Key extends once"""
    return await rentals.extend(here().desk, who, str(rental_id), body, _key())


@route(api, "POST", "/rentals/<uuid:rental_id>/stop", scope="user", answer=RentalView, group="rentals")
async def stop_rental(who: Principal, rental_id: UUID) -> RentalView:
    """End it now; the answered time is paid, the rest returned at once"""
    view = await rentals.stop(here().desk, who, str(rental_id))
    here().mesh.nudge()
    return view


@route(api, "POST", "/rentals/<uuid:rental_id>/settle", scope="user", answer=RentalSettleView, group="rentals")
async def settle_rental(who: Principal, rental_id: UUID) -> RentalSettleView:
    """Anybody may ask: does what is due, or says when it will be"""
    return await rentals.settle(here().desk, rental_id)
