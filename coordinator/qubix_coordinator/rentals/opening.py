# SPDX-License-Identifier: Apache-2.0
"""From a request to rentals: which devices, what is held for each, all or none, in the caller's transaction.

In the turn of their node, listings are locked in the order of their ids, whoever wants them.
"""

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from qubix_coordinator.db.database import Tx, execute, value
from qubix_coordinator.errors import Conflict, InvalidInput, NotFound
from qubix_coordinator.jobs import assign, orders
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.flow import tell
from qubix_coordinator.market import rules as market_rules
from qubix_coordinator.market import service as market
from qubix_coordinator.market.rules import Rentable
from qubix_coordinator.rentals import flow, money, rules
from qubix_coordinator.rentals.tables import Rental
from qubix_protocol.messages import RentOrder
from qubix_protocol.rentals import RentalBody
from qubix_protocol.states import Availability, RentalReason, RentalState
from qubix_protocol.units import OFFER_S

log = logging.getLogger(__name__)
_ANOTHER: Final = "Rent another one"


@dataclass(frozen=True, slots=True)
class Request:
    """What all rentals of it share."""

    account_id: UUID
    body: RentalBody
    key: str
    digest: bytes
    order_raw: bytes | None
    now_ms: int
    group_id: UUID | None


async def open_rentals(desk: Desk, tx: Tx, account_id: UUID, body: RentalBody, key: str, digest: bytes) -> Rental:
    """The first of them. Raises what `service.create` says."""
    wanted = RentOrder(
        idempotency_key=key,
        listing_id=body.listing_id,
        seconds=body.seconds,
        rate_qu_per_h_max=body.rate_qu_per_h_max,
        cap_qu=body.cap_qu,
        more=body.more,
        count=body.count,
    )
    order_raw = await orders.check(desk, tx, account_id, body.order, wanted)
    now_ms = desk.now_ms()
    devices = await _devices(tx, body, now_ms)
    holds = _holds(devices, body)
    if len(devices) > 1:
        await money.check_balance(tx, account_id, sum(holds))
    group_id = await _group(tx, account_id, devices, now_ms) if len(devices) > 1 else None
    request = Request(account_id, body, key, digest, order_raw, now_ms, group_id)
    rentals = [
        await _store(desk, tx, request, device, hold_qu, member)
        for member, (device, hold_qu) in enumerate(zip(devices, holds, strict=True))
    ]
    return rentals[0]


def _holds(devices: Sequence[Rentable], body: RentalBody) -> list[int]:
    found = rules.shares_qu([one.candidate.rate_qu_per_h for one in devices], body.seconds, body.cap_qu)
    if found is None:
        raise InvalidInput("cap_qu", "it leaves nothing for one of the devices", "Give a higher cap, or none")
    return found


async def _group(tx: Tx, account_id: UUID, devices: Sequence[Rentable], now_ms: int) -> UUID:
    key = uuid.uuid4()
    await execute(
        tx,
        "INSERT INTO rental_group (id, account_id, peer_id, devices, created_ms) VALUES ($1, $2, $3, $4, $5)",
        key,
        account_id,
        devices[0].candidate.peer_id,
        len(devices),
        now_ms,
    )
    return key


async def _store(desk: Desk, tx: Tx, request: Request, found: Rentable, hold_qu: int, member: int) -> Rental:
    one, body, now_ms = found.candidate, request.body, request.now_ms
    rental = Rental(
        id=uuid.uuid4(),
        no=await value(tx, "SELECT nextval(pg_get_serial_sequence('rental', 'no'))"),
        account_id=request.account_id,
        idempotency_key=request.key,
        body_digest=request.digest,
        order_raw=request.order_raw,
        listing_id=one.listing_id,
        peer_id=one.peer_id,
        device_id=one.device_id,
        kind=found.kind,
        model=one.model,
        backends=list(one.backends),
        state=RentalState.REQUESTED.value,
        reason=RentalReason.NONE.value,
        detail="",
        rate_qu_per_h=one.rate_qu_per_h,
        rate_max=body.rate_qu_per_h_max,
        fee_bps=desk.settings.fee_bps,
        offer_digest=one.offer_digest,
        seconds=body.seconds,
        hold_qu=hold_qu,
        sent_ms=now_ms,
        since_ms=now_ms,
        created_ms=now_ms,
        due_ms=now_ms,
        group_id=request.group_id,
        member=member,
    )
    await rental.save(using_db=tx, force_create=True)
    await money.hold(tx, rental, rental.hold_qu, part=0)
    await market.rent(tx, one.listing_id, rental.id, now_ms=now_ms)
    await tell(tx, rental.peer_id, flow.start_of(rental))
    await flow.save(desk, tx, rental)
    log.info("rental.requested", extra={"rental": str(rental.id), "peer": one.peer_id, "hold_qu": rental.hold_qu})
    return rental


async def _devices(tx: Tx, body: RentalBody, now_ms: int) -> list[Rentable]:
    """The one that is named first, then the others; all locked, all free."""
    if body.more and body.count > 1:
        raise InvalidInput("count", "the devices are named already", "Give `more` or `count`, not both")
    first = UUID(body.listing_id)
    if body.count > 1:
        return await _counted(tx, first, body, now_ms)
    named = [first, *(_uuid(one) for one in body.more)]
    if len(set(named)) < len(named):
        raise InvalidInput("more", "it names a device twice", "Name each device once")
    locked = await _locked(tx, named)
    for key in named:
        field = "listing_id" if key == first else "more"
        if locked.get(key) is None:
            raise NotFound("there is no such listing", field=field, remedy="List the market with GET /offers")
        await _refuse_taken(tx, locked[key], body.rate_qu_per_h_max, now_ms, field)
    if len({locked[key].candidate.peer_id for key in named}) > 1:
        raise Conflict(
            "the devices are of several nodes", field="more", remedy="Rent together what one provider's node has"
        )
    return [locked[key] for key in named]


async def _counted(tx: Tx, first: UUID, body: RentalBody, now_ms: int) -> list[Rentable]:
    """It, and the cheapest others like it that are free."""
    locked = await _locked(tx, await market.alike(tx, first))
    if first not in locked:
        raise NotFound("there is no such listing", field="listing_id", remedy="List the market with GET /offers")
    own = locked.pop(first)
    await _refuse_taken(tx, own, body.rate_qu_per_h_max, now_ms, "listing_id")
    found = [own]
    for other in sorted(locked.values(), key=lambda one: (one.candidate.rate_qu_per_h, one.candidate.listing_id)):
        if len(found) < body.count and await _is_free(tx, other, body.rate_qu_per_h_max, now_ms):
            found.append(other)
    if len(found) < body.count:
        raise Conflict(
            f"{len(found)} of the {body.count} devices alike that you want are free on this node",
            field="count",
            remedy=f"Ask for {len(found)}, or for another node's",
        )
    return found


async def _is_free(tx: Tx, device: Rentable, rate_max: int | None, now_ms: int) -> bool:
    try:
        await _refuse_taken(tx, device, rate_max, now_ms, "count")
    except Conflict:
        return False
    return True


async def _locked(tx: Tx, keys: Sequence[UUID]) -> dict[UUID, Rentable]:
    await market.take_turn(tx, keys)
    found = {key: await market.lock_for_rent(tx, key) for key in sorted(keys)}
    return {key: device for key, device in found.items() if device is not None}


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput("more", "it names no listing", "Give listings' ids, of GET /offers") from None


async def _refuse_taken(tx: Tx, found: Rentable, rate_max: int | None, now_ms: int, field: str) -> None:
    """Raises Conflict unless the device, which is locked, can be rented now."""
    if found.rental_id is not None:
        raise Conflict(
            "the device is rented to somebody else",
            field=field,
            remedy=f"{_ANOTHER}; it comes back into the market when its rental ends",
        )
    if found.candidate.browser:
        raise Conflict(
            "the device is a browser tab, which can close at any moment: it is not rented by time",
            field=field,
            remedy="Submit a job to it, or rent another one (browser=false)",
        )
    away = found.candidate.availability in (Availability.DRAINING, Availability.OFFLINE)
    if away or not found.online or found.offered_ms < market_rules.visible_since_ms(now_ms, OFFER_S):
        raise Conflict("the device is not in the market now", field=field, remedy=_ANOTHER)
    if await assign.running_on(tx, found.candidate.listing_id):
        raise Conflict(
            "the device is running somebody's job", field=field, remedy="Try again in a moment, or rent another"
        )
    rate = found.candidate.rate_qu_per_h
    if rate_max is not None and rate > rate_max:
        raise Conflict(
            f"the device asks {rate} QU an hour, more than the {rate_max} that you agree to",
            field="rate_qu_per_h_max",
            remedy=f"Agree to {rate} QU an hour, or rent a cheaper one",
        )
