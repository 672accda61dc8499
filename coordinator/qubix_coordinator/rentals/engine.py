# SPDX-License-Identifier: Apache-2.0
"""The task that looks after rentals: asks devices for their presence, settles, and ends what is over.

Replicas run one each on the same database; every step is one transaction that looks again under the rental's lock.
"""

import logging
import secrets
from typing import Final
from uuid import UUID

from qubix_coordinator.db.database import Tx, execute, value
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.flow import tell
from qubix_coordinator.rentals import flow, rules, views
from qubix_coordinator.rentals.rules import Ask
from qubix_coordinator.rentals.tables import Rental
from qubix_protocol import barriers
from qubix_protocol.barriers import Barrier
from qubix_protocol.messages import RentalNonce
from qubix_protocol.states import RentalState

log = logging.getLogger(__name__)
TICK_S: Final = 0.5
BATCH: Final = 256
NONCE_BYTES: Final = 32


class Engine:
    """`await Engine(desk).run()` in the app's task group; cancelling it is safe at any moment."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def run(self) -> None:
        await self._desk.db.every(TICK_S, self.tick)

    async def tick(self) -> None:
        """One round of everything; tests call it directly with a clock of their own."""
        desk = self._desk
        await desk.db.run(self._pause)
        for rental_id in await desk.db.run(lambda tx: due(tx, desk.now_ms())):
            await self._look(rental_id)

    async def _look(self, rental_id: UUID) -> None:
        """One rental that cannot be moved is logged and must not stop the others; the database being away does."""
        try:
            ended = await self._desk.db.run(lambda tx: look_after(self._desk, tx, rental_id))
        except Unavailable:
            raise
        except Exception:  # whatever is wrong with one row, the others go on
            log.exception("rental.step_failed", extra={"rental": str(rental_id)})
            return
        await barriers.reach(Barrier.RENTAL_ENDED if ended else Barrier.RENTAL_ASKED)

    async def _pause(self, tx: Tx) -> None:
        """Deadlines do not run while no coordinator asks: after an outage each rental gets its whole time again."""
        now_ms = self._desk.now_ms()
        ticked_ms = await value(tx, "SELECT ticked_ms FROM rental_clock FOR UPDATE")
        await execute(tx, "UPDATE rental_clock SET ticked_ms = GREATEST(ticked_ms, $1)", now_ms)
        gap_ms = rules.paused(ticked_ms, now_ms)
        if gap_ms:
            log.warning("rentals.were_unattended", extra={"gap_ms": gap_ms})
            await execute(
                tx,
                "UPDATE rental SET since_ms = LEAST(since_ms + $1, $2), due_ms = $2 WHERE state <> 'ended'",
                gap_ms,
                now_ms,
            )


async def due(tx: Tx, now_ms: int) -> list[UUID]:
    found = Rental.filter(ended_ms__isnull=True, due_ms__lte=now_ms).using_db(tx)
    return [row.id for row in await found.order_by("due_ms").limit(BATCH).only("id")]


async def look_after(desk: Desk, tx: Tx, rental_id: UUID) -> bool:
    """Does what is due of one rental; whether it is over now. Somebody else who decides about it is left to it."""
    rental = await Rental.filter(id=rental_id).using_db(tx).select_for_update(no_key=True, skip_locked=True).first()
    if rental is None or rental.state == RentalState.ENDED.value:
        return False
    await flow.catch_up(desk, tx, rental)
    if rental.state == RentalState.ENDED.value:
        return True
    await _ask(desk, tx, rental)
    return False


async def _ask(desk: Desk, tx: Tx, rental: Rental) -> None:
    now_ms = desk.now_ms()
    what = rules.ask(views.facts(rental), views.times(desk.settings), now_ms)
    if what is Ask.START:
        await tell(tx, rental.peer_id, flow.start_of(rental))
    elif what is not Ask.NOTHING:
        if what is Ask.NEW_NONCE:
            rental.nonce, rental.nonce_asked_ms = secrets.token_bytes(NONCE_BYTES), now_ms
        assert rental.nonce is not None
        await tell(tx, rental.peer_id, RentalNonce(rental_id=str(rental.id), nonce=bytes(rental.nonce)))
    if what is not Ask.NOTHING:
        rental.sent_ms = now_ms
    await flow.save(desk, tx, rental, tells=False)
