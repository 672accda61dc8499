# SPDX-License-Identifier: Apache-2.0
"""Loads rentals under their lock and applies the decisions of `rules`: the only module that moves states.

Whoever wants something of a rental first has done what time alone has brought about (`catch_up`): nothing depends on
how soon the engine comes by. Locks are taken in the order rental, job, attempt, listing.
"""

import logging
from uuid import UUID

import msgspec

from qubix_coordinator.db.database import Tx, execute, value
from qubix_coordinator.errors import NotFound
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.flow import tell
from qubix_coordinator.market import service as market
from qubix_coordinator.outbox import events
from qubix_coordinator.rentals import money, rules, views
from qubix_coordinator.rentals.rules import Event, Verb
from qubix_coordinator.rentals.tables import Rental
from qubix_protocol.messages import RentalEnd, RentalStart
from qubix_protocol.states import RentalReason, RentalState

log = logging.getLogger(__name__)
DETAIL_MAX = 2_000


async def lock(tx: Tx, rental_id: UUID) -> Rental:
    rental = await Rental.filter(id=rental_id).using_db(tx).select_for_update(no_key=True).first()
    if rental is None:
        raise NotFound("there is no such rental", field="rental_id", remedy="List your rentals with GET /rentals")
    return rental


async def catch_up(desk: Desk, tx: Tx, rental: Rental) -> bool:
    """Applies what has fallen due; whether anything had."""
    times, moved = views.times(desk.settings), False
    while (event := rules.due_event(views.facts(rental), times, desk.now_ms())) is not None:
        await step(desk, tx, rental, event)
        moved = True
    due_ms = rules.settle_due_ms(views.facts(rental), times)
    if due_ms is not None and due_ms <= desk.now_ms():
        await money.settle(tx, rental, desk.now_ms())
        await save(desk, tx, rental)
        moved = True
    return moved


async def step(desk: Desk, tx: Tx, rental: Rental, event: Event, *, detail: str = "") -> Verb:
    """Decides and applies. When the rental ends, all is settled and the rest returned in the same transaction."""
    closing = RentalReason(rental.closing) if rental.closing else None
    decision = rules.decide(RentalState(rental.state), event, closing)
    if decision.verb is not Verb.APPLY:
        return decision.verb
    now_ms, was = desk.now_ms(), rental.state
    rental.state = decision.state.value
    if decision.state is RentalState.ENDED:
        await _end(desk, tx, rental, decision.reason, detail, now_ms)
    elif was != rental.state:
        log.info("rental.moved", extra={"rental": str(rental.id), "was": was, "state": rental.state})
    await save(desk, tx, rental)
    return Verb.APPLY


async def _end(desk: Desk, tx: Tx, rental: Rental, reason: RentalReason, detail: str, now_ms: int) -> None:
    rental.reason, rental.detail = reason.value, detail[:DETAIL_MAX] or rental.detail
    rental.ended_ms, rental.closing = now_ms, None
    rental.nonce = rental.nonce_asked_ms = None
    await market.take_turn(tx, [rental.listing_id])
    await jobs.end_on_rental(desk, tx, rental.id)
    await money.settle(tx, rental, now_ms)
    await money.return_rest(tx, rental)
    await market.release(tx, rental.listing_id, rental.id, now_ms=now_ms)
    if reason in rules.BLAMED:
        await market.count_failure(tx, rental.listing_id, now_ms=now_ms)
    await tell(tx, rental.peer_id, end_of(rental))
    facts = {"reason": reason.value, "billed_ms": rental.billed_ms, "paid_qu": rental.paid_qu}
    log.info("rental.ended", extra={"rental": str(rental.id), **facts})


async def save(desk: Desk, tx: Tx, rental: Rental, *, tells: bool = True) -> None:
    """With the time at which the engine is to look again; `tells` whoever watches the rental."""
    rental.due_ms = rules.next_due_ms(views.facts(rental), views.times(desk.settings))
    rental.revision += int(tells)
    await rental.save(using_db=tx)
    if tells:
        await events.emit(tx, f"rental:{rental.id}", msgspec.to_builtins(views.view(desk, rental)))


async def bill(tx: Tx, rental: Rental, span: rules.Span, now_ms: int) -> None:
    """Adds answered time; a span that goes on where the last one stopped is one with it."""
    grown = await execute(
        tx,
        "UPDATE rental_period SET stop_ms = $3 WHERE rental_id = $1 AND part IS NULL AND stop_ms = $2",
        rental.id,
        span.start,
        span.stop,
    )
    if not grown:
        await execute(
            tx,
            "INSERT INTO rental_period (rental_id, listing_no, start_ms, stop_ms)"
            " SELECT $1, no, $3, $4 FROM listing WHERE id = $2",
            rental.id,
            rental.listing_id,
            span.start,
            span.stop,
        )
    rental.billed_ms += span.ms
    if rental.unsettled_since_ms is None:
        rental.unsettled_since_ms = now_ms


async def last_billed_ms(tx: Tx, listing_id: UUID) -> int:
    """Until when the device's time is billed already, whoever had it."""
    found = await value(
        tx,
        "SELECT max(stop_ms) FROM rental_period p JOIN rental r ON r.id = p.rental_id WHERE r.listing_id = $1",
        listing_id,
    )
    return int(found or 0)


def start_of(rental: Rental) -> RentalStart:
    return RentalStart(
        rental_id=str(rental.id),
        device_id=rental.device_id,
        rate_qu_per_h=rental.rate_qu_per_h,
        seconds=rental.seconds,
        offer_digest=bytes(rental.offer_digest),
    )


def end_of(rental: Rental) -> RentalEnd:
    return RentalEnd(
        rental_id=str(rental.id),
        reason=RentalReason(rental.reason),
        billed_ms=rental.billed_ms,
        paid_qu=rental.paid_qu,
    )
