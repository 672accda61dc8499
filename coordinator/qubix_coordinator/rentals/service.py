# SPDX-License-Identifier: Apache-2.0
"""The rentals' front door: what the HTTP API and the mesh link call.

What nodes say is in `nodes`, what time does in `engine`, and every decision in `rules`.
"""

import logging
from uuid import UUID

import msgspec

from qubix_coordinator.accounts.rules import Principal
from qubix_coordinator.db.database import Tx, execute, one
from qubix_coordinator.errors import CauseReused, Conflict, InvalidInput, LimitExceeded
from qubix_coordinator.jobs import orders
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.submit import KEY_MAX, take_turns
from qubix_coordinator.market import service as market
from qubix_coordinator.rentals import flow, money, opening, read, rules, views
from qubix_coordinator.rentals.nodes import on_accept, on_beat, on_decline, on_hello, on_notice
from qubix_coordinator.rentals.read import get, list_rentals
from qubix_coordinator.rentals.rules import Event
from qubix_coordinator.rentals.tables import Rental
from qubix_protocol import digests
from qubix_protocol.api import JobBody, JobView
from qubix_protocol.messages import ExtendOrder
from qubix_protocol.rentals import ExtendBody, RentalBody, RentalGroupView, RentalSettleView, RentalView
from qubix_protocol.states import RentalState
from qubix_protocol.units import RENTAL_S_MAX

log = logging.getLogger(__name__)

__all__ = [
    "create",
    "extend",
    "get",
    "get_group",
    "list_rentals",
    "on_accept",
    "on_beat",
    "on_decline",
    "on_hello",
    "on_notice",
    "settle",
    "stop",
    "stop_group",
    "submit_job",
]


async def create(desk: Desk, principal: Principal, body: RentalBody, idempotency_key: str) -> RentalView:
    """Freezes the rate, holds rate × time, takes the device off the market. The same key with the same body is the same
    rental; with another body it is a conflict.

    Several devices of one node, named or counted, are rented all or none, each by a rental of its own; the answer is
    the first of them.

    Raises InvalidInput, CauseReused, NotFound (no such listing), Conflict (rented, busy, away, dearer than agreed, not
    of one node), NotEnoughBalance, Forbidden (order).
    """
    _check_key(idempotency_key)

    async def step(tx: Tx) -> RentalView:
        await take_turns(tx, principal.account_id, f"rental {idempotency_key}")
        found = Rental.filter(account_id=principal.account_id, idempotency_key=idempotency_key, member=0)
        known = await found.using_db(tx).first()
        if known is None:
            known = await opening.open_rentals(desk, tx, principal.account_id, body, idempotency_key, _digest(body))
        elif bytes(known.body_digest) != _digest(body):
            raise _reused()
        return views.view(desk, known)

    return await desk.db.run(step)


def _check_key(key: str) -> None:
    if not 1 <= len(key) <= KEY_MAX:
        raise InvalidInput("Idempotency-Key", "it is missing or too long", f"Send one of 1 to {KEY_MAX} characters")


def _reused() -> CauseReused:
    return CauseReused(
        "this Idempotency-Key was used for another request",
        field="Idempotency-Key",
        remedy="Repeat the first request exactly, or use a new key",
    )


def _digest(body: RentalBody | ExtendBody) -> bytes:
    """Without the order's envelope: a retry may sign the same order anew. One device alone has the digest that it had
    before several could be rented."""
    plain = msgspec.to_builtins(msgspec.structs.replace(body, order=""))
    if isinstance(body, RentalBody) and not body.more and body.count == 1:
        del plain["more"], plain["count"]
    return digests.of_bytes(msgspec.json.encode(plain, order="deterministic"))


async def extend(
    desk: Desk, principal: Principal, rental_id: str, body: ExtendBody, idempotency_key: str
) -> RentalView:
    """More time at the same rate, with the hold that it needs. The same key again extends once.

    Raises NotFound, Conflict (over, or the provider has given notice), CauseReused, NotEnoughBalance, Forbidden.
    """
    _check_key(idempotency_key)

    async def step(tx: Tx) -> RentalView | Conflict:
        rental = await flow.lock(tx, (await read.own(tx, principal, rental_id)).id)
        known = await one(
            tx,
            "SELECT body_digest FROM rental_extension WHERE rental_id = $1 AND idempotency_key = $2",
            rental.id,
            idempotency_key,
        )
        if known is not None:
            if bytes(known["body_digest"]) != _digest(body):
                raise _reused()
            return views.view(desk, rental)
        await flow.catch_up(desk, tx, rental)
        refusal = _no_longer(rental, body)
        if refusal is not None:
            # What time has brought about is committed all the same.
            return refusal
        await _extend(desk, tx, rental, body, idempotency_key)
        return views.view(desk, rental)

    found = await desk.db.run(step)
    if isinstance(found, Conflict):
        raise found
    return found


def _no_longer(rental: Rental, body: ExtendBody) -> Conflict | None:
    if rental.state == RentalState.ENDED.value:
        return Conflict("the rental is over", field="rental_id", remedy="Rent the device anew: POST /rentals")
    if rental.closing is not None:
        return Conflict(
            "the provider has given notice: the rental ends when it said", field="rental_id", remedy="Rent another one"
        )
    if rental.seconds + body.seconds > RENTAL_S_MAX:
        return Conflict(
            f"a rental lasts {RENTAL_S_MAX} s at most, and this one would last {rental.seconds + body.seconds}",
            field="seconds",
            remedy=f"Add {RENTAL_S_MAX - rental.seconds} s at most",
        )
    return None


async def _extend(desk: Desk, tx: Tx, rental: Rental, body: ExtendBody, key: str) -> None:
    wanted = ExtendOrder(idempotency_key=key, rental_id=str(rental.id), seconds=body.seconds, cap_qu=body.cap_qu)
    order_raw = await orders.check(desk, tx, rental.account_id, body.order, wanted)
    part = rental.extensions + 1
    added_qu = rules.hold_qu(rental.rate_qu_per_h, body.seconds, body.cap_qu)
    await money.hold(tx, rental, added_qu, part=part)
    await execute(
        tx,
        "INSERT INTO rental_extension (rental_id, part, idempotency_key, body_digest, order_raw, seconds, hold_qu,"
        " at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        rental.id,
        part,
        key,
        _digest(body),
        order_raw,
        body.seconds,
        added_qu,
        desk.now_ms(),
    )
    rental.extensions = part
    rental.seconds += body.seconds
    rental.hold_qu += added_qu
    if rental.ends_ms is not None:
        rental.ends_ms += body.seconds * 1000
    await flow.save(desk, tx, rental)
    log.info("rental.extended", extra={"rental": str(rental.id), "seconds": body.seconds, "hold_qu": added_qu})


async def stop(desk: Desk, principal: Principal, rental_id: str) -> RentalView:
    """Ends it now: what was answered for is paid, the rest returned at once. Stopping twice is fine."""

    async def step(tx: Tx) -> RentalView:
        rental = await flow.lock(tx, (await read.own(tx, principal, rental_id)).id)
        await flow.catch_up(desk, tx, rental)
        await flow.step(desk, tx, rental, Event.STOP)
        return views.view(desk, rental)

    view = await desk.db.run(step)
    desk.wake.set()
    return view


async def get_group(desk: Desk, principal: Principal, group_id: UUID) -> RentalGroupView:
    """Raises NotFound, also for another account's."""

    async def step(tx: Tx) -> RentalGroupView:
        rentals = await read.own_group(tx, principal, group_id)
        return views.group_view(group_id, [views.view(desk, one) for one in rentals])

    return await desk.db.run(step)


async def stop_group(desk: Desk, principal: Principal, group_id: UUID) -> RentalGroupView:
    """Ends all of them that are not over, in one transaction. Raises NotFound."""

    async def step(tx: Tx) -> RentalGroupView:
        rentals = await read.own_group(tx, principal, group_id, lock=True)
        for rental in rentals:
            await flow.catch_up(desk, tx, rental)
            await flow.step(desk, tx, rental, Event.STOP)
        found = sorted(rentals, key=lambda one: one.member)
        return views.group_view(group_id, [views.view(desk, one) for one in found])

    view = await desk.db.run(step)
    desk.wake.set()
    return view


async def submit_job(desk: Desk, principal: Principal, body: JobBody, idempotency_key: str) -> JobView:
    """A job on a rented device: `body.rental` names the rental. It costs nothing further.

    Raises what `jobs.submit` does, NotFound, and Conflict for a rental that is over, or has too many jobs.
    """
    assert body.rental is not None
    rental_id = body.rental

    async def find_berth(tx: Tx) -> jobs.Berth:
        rental = await flow.lock(tx, (await read.own(tx, principal, rental_id)).id)
        due = rules.due_event(views.facts(rental), views.times(desk.settings), desk.now_ms())
        ending = due is not None and rules.decide(RentalState(rental.state), due).state is RentalState.ENDED
        if ending or rental.state == RentalState.ENDED.value:
            raise Conflict("the rental is over", field="rental", remedy="Rent a device: POST /rentals")
        if await jobs.open_on_rental(tx, rental.id) >= rules.JOBS_OPEN_MAX:
            raise LimitExceeded(
                f"{rules.JOBS_OPEN_MAX} jobs wait on this rental", field="rental", remedy="Wait until some have ended"
            )
        device = await market.rented_candidate(tx, rental.id)
        if device is None:
            raise Conflict(
                "the rented device cannot be reached now; its meter stands", field="rental", remedy="Try again shortly"
            )
        return jobs.Berth(rental.id, device)

    return await jobs.submit(desk, principal, body, idempotency_key, find_berth)


async def settle(desk: Desk, rental_id: UUID) -> RentalSettleView:
    """Does what is due of a rental, as the engine would: anybody may ask. Says when the next thing is due."""

    async def step(tx: Tx) -> RentalSettleView:
        rental = await flow.lock(tx, rental_id)
        done = await flow.catch_up(desk, tx, rental)
        facts, times = views.facts(rental), views.times(desk.settings)
        return RentalSettleView(
            rental_id=str(rental.id),
            done=done,
            state=RentalState(rental.state),
            paid_qu=rental.paid_qu,
            fee_qu=rental.fee_qu,
            returned_qu=rental.returned_qu,
            due_ms=rules.act_due_ms(facts, times),
        )

    return await desk.db.run(step)
