# SPDX-License-Identifier: Apache-2.0
"""Rentals as their consumer asks for them; somebody else's is not there."""

from uuid import UUID

from qubix_coordinator.accounts.rules import Principal
from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import NotFound
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.read import position
from qubix_coordinator.rentals import views
from qubix_coordinator.rentals.tables import Rental
from qubix_protocol.rentals import RentalsView, RentalView

PAGE_MAX = 200


async def own(tx: Tx, principal: Principal, rental_id: str) -> Rental:
    """Raises NotFound, also for another account's rental."""
    try:
        key = UUID(rental_id)
    except ValueError:
        raise _unknown() from None
    rental = await Rental.filter(id=key, account_id=principal.account_id).using_db(tx).first()
    if rental is None:
        raise _unknown()
    return rental


async def own_group(tx: Tx, principal: Principal, group_id: UUID, *, lock: bool = False) -> list[Rental]:
    """By their places; `lock`ed, in the order in which listings are locked. Raises NotFound, also for another
    account's."""
    found = Rental.filter(group_id=group_id, account_id=principal.account_id).using_db(tx)
    if lock:
        found = found.select_for_update(no_key=True).order_by("listing_id")
    rentals = await (found if lock else found.order_by("member"))
    if not rentals:
        raise NotFound(
            "there is no such group of rentals of yours", field="group_id", remedy="List your rentals with GET /rentals"
        )
    return list(rentals)


def _unknown() -> NotFound:
    return NotFound("there is no such rental of yours", field="rental_id", remedy="List your rentals with GET /rentals")


async def get(desk: Desk, principal: Principal, rental_id: str) -> RentalView:
    async def step(tx: Tx) -> RentalView:
        return views.view(desk, await own(tx, principal, rental_id))

    return await desk.db.run(step)


async def list_rentals(desk: Desk, principal: Principal, *, after: str | None = None, limit: int = 50) -> RentalsView:
    """Newest first; `after` is the `next` of the page before."""
    before = position(after)

    async def step(tx: Tx) -> RentalsView:
        found = Rental.filter(account_id=principal.account_id, no__lt=before).using_db(tx)
        count = max(1, min(limit, PAGE_MAX))
        rentals = await found.order_by("-no").limit(count + 1)
        following = str(rentals[count - 1].no) if len(rentals) > count else None
        return RentalsView(rentals=tuple(views.view(desk, one) for one in rentals[:count]), next=following)

    return await desk.db.run(step)
