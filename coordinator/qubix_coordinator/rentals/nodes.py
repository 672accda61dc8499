# SPDX-License-Identifier: Apache-2.0
"""What nodes say of their rentals. Each message is one transaction under the rental's lock."""

import logging
from collections.abc import Collection
from uuid import UUID

from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import Forbidden
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.flow import tell
from qubix_coordinator.rentals import flow, rules, views
from qubix_coordinator.rentals.rules import Event, Verb
from qubix_coordinator.rentals.tables import Rental
from qubix_protocol.messages import RentalAccept, RentalBeat, RentalDecline, RentalEnd, RentalNotice
from qubix_protocol.states import RentalReason, RentalState

log = logging.getLogger(__name__)


async def _own(tx: Tx, peer_id: str, rental_id: str) -> Rental:
    """The rental a node speaks of, locked. Raises NotFound, or Forbidden for another's."""
    rental = await flow.lock(tx, UUID(rental_id))
    if rental.peer_id != peer_id:
        raise Forbidden("the rental is of another provider's device", field="rental_id", remedy="Speak of your own")
    return rental


async def on_accept(desk: Desk, peer_id: str, message: RentalAccept) -> None:
    async def step(tx: Tx) -> None:
        rental = await _own(tx, peer_id, message.rental_id)
        await flow.catch_up(desk, tx, rental)
        was = rental.state
        if was == RentalState.REQUESTED.value:
            rental.since_ms = desk.now_ms()
        if await flow.step(desk, tx, rental, Event.ACCEPT) is Verb.REFUSE:
            await tell(tx, peer_id, flow.end_of(rental))

    await desk.db.run(step)


async def on_decline(desk: Desk, peer_id: str, message: RentalDecline) -> None:
    async def step(tx: Tx) -> None:
        rental = await _own(tx, peer_id, message.rental_id)
        await flow.catch_up(desk, tx, rental)
        detail = f"{message.reason}: {message.detail}" if message.detail else message.reason
        await flow.step(desk, tx, rental, Event.DECLINE, detail=detail)

    await desk.db.run(step)


async def on_beat(desk: Desk, peer_id: str, message: RentalBeat) -> None:
    """An answered nonce: the meter runs up to now. One that is not fresh moves nothing, and says so in the log."""

    async def step(tx: Tx) -> None:
        rental = await _own(tx, peer_id, message.rental_id)
        await flow.catch_up(desk, tx, rental)
        if rental.state == RentalState.ENDED.value:
            await tell(tx, peer_id, flow.end_of(rental))
            return
        times, now_ms = views.times(desk.settings), desk.now_ms()
        nonce = bytes(rental.nonce) if rental.nonce is not None else None
        if not rules.fresh(nonce, rental.nonce_asked_ms, message.nonce, times, now_ms):
            log.warning("rental.answer_not_fresh", extra={"rental": str(rental.id), "peer": peer_id})
            return
        await _answered(desk, tx, rental, now_ms)

    await desk.db.run(step)


async def _answered(desk: Desk, tx: Tx, rental: Rental, now_ms: int) -> None:
    times, facts = views.times(desk.settings), views.facts(rental)
    now_ms = max(now_ms, rental.answered_ms or 0)
    if rental.started_ms is None:
        # A clock that is behind another replica's must not begin inside time that is billed already.
        now_ms = max(now_ms, await flow.last_billed_ms(tx, rental.listing_id))
        rental.started_ms, rental.ends_ms = now_ms, now_ms + rental.seconds * 1000
    left_ms = None if facts.affordable_ms is None else facts.affordable_ms - rental.billed_ms
    span = rules.metered(rental.answered_ms, now_ms, reach_ms=times.reach_ms, ends_ms=rental.ends_ms, left_ms=left_ms)
    if span is not None and rental.state == RentalState.ACTIVE.value:
        await flow.bill(tx, rental, span, now_ms)
    rental.answered_ms = rental.since_ms = rental.sent_ms = now_ms
    rental.nonce = rental.nonce_asked_ms = None
    await flow.step(desk, tx, rental, Event.ANSWER)
    await flow.catch_up(desk, tx, rental)


async def on_notice(desk: Desk, peer_id: str, message: RentalNotice) -> None:
    """The provider ends it early. The consumer is told at once; the meter runs until then."""

    async def step(tx: Tx) -> None:
        rental = await _own(tx, peer_id, message.rental_id)
        await flow.catch_up(desk, tx, rental)
        if message.device_lost:
            await flow.step(desk, tx, rental, Event.DEVICE_LOST, detail=message.detail)
            return
        _shorten(desk, rental, message)
        await flow.step(desk, tx, rental, Event.NOTICE, detail=message.detail)
        await flow.catch_up(desk, tx, rental)

    await desk.db.run(step)


def _shorten(desk: Desk, rental: Rental, message: RentalNotice) -> None:
    """An end later than the one agreed changes nothing. The first notice is what the reason is judged by, unless a
    later one cuts it shorter still."""
    now_ms = desk.now_ms()
    ends_ms = max(now_ms, message.ends_ms)
    if rental.ends_ms is None or ends_ms >= rental.ends_ms:
        return
    reason = rules.notice_reason(now_ms, ends_ms, views.times(desk.settings))
    rental.ends_ms, rental.closing, rental.detail = ends_ms, reason.value, message.detail[: flow.DETAIL_MAX]
    log.info("rental.notice", extra={"rental": str(rental.id), "reason": reason.value, "ends_ms": ends_ms})


async def on_hello(desk: Desk, peer_id: str, rentals: Collection[str]) -> None:
    """A node (re)connected: it is told which of its devices are rented, and which are not any more."""

    async def open_now(tx: Tx) -> list[UUID]:
        found = Rental.filter(peer_id=peer_id, ended_ms__isnull=True).using_db(tx)
        return [row.id for row in await found.order_by("no").only("id")]

    known = await desk.db.run(open_now)
    for rental_id in known:
        await desk.db.run(lambda tx, key=rental_id: _tell_start(desk, tx, peer_id, key))  # type: ignore[misc]
    for text in set(rentals) - {str(key) for key in known}:
        await desk.db.run(lambda tx, key=text: _tell_end(tx, peer_id, key))  # type: ignore[misc]


async def _tell_start(desk: Desk, tx: Tx, peer_id: str, rental_id: UUID) -> None:
    rental = await flow.lock(tx, rental_id)
    await flow.catch_up(desk, tx, rental)
    if rental.state != RentalState.ENDED.value:
        await tell(tx, peer_id, flow.start_of(rental))


async def _tell_end(tx: Tx, peer_id: str, rental_id: str) -> None:
    row = await Rental.filter(id=UUID(rental_id), peer_id=peer_id).using_db(tx).first()
    over = RentalEnd(rental_id=rental_id, reason=RentalReason.NONE, billed_ms=0, paid_qu=0)
    await tell(tx, peer_id, flow.end_of(row) if row is not None else over)
