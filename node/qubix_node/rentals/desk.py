# SPDX-License-Identifier: Apache-2.0
"""Rentals of this node's devices: taken when asked, answered for while they last, announced to end for maintenance.

Nothing is kept on disk: after each handshake the coordinator says again what is rented.
"""

import logging
from collections.abc import Callable, Collection
from typing import Final

import trio

from qubix_node.clock import steady_ms, wall_ms
from qubix_node.link import Live
from qubix_node.offers.wishes import Wishes
from qubix_node.rentals import rules
from qubix_node.rentals.maintenance import Maintenance
from qubix_node.rentals.rules import Facts, Held
from qubix_protocol.messages import (
    Message,
    RentalAccept,
    RentalBeat,
    RentalDecline,
    RentalEnd,
    RentalNonce,
    RentalNotice,
    RentalStart,
)
from qubix_protocol.units import RENTALS_MAX

log = logging.getLogger("qubix_node")
_LOOK_S: Final = 1.0
_DRAIN_LOOK_S: Final = 0.02
NODE_STOPS: Final = "the provider has stopped its node"
WISHED: Final = "maintenance"


class Rentals:
    """`say` brings a statement to the coordinator once; `devices` are those that can be rented now; `changed` is called
    when a device becomes rented or free."""

    def __init__(
        self,
        *,
        say: Callable[[Message], None],
        devices: Callable[[], Collection[str]],
        changed: Callable[[], None],
        maintenance: Maintenance,
        rate_qu_per_h: Callable[[str], int],
        wishes: Wishes,
    ) -> None:
        self._say, self._devices, self._changed = say, devices, changed
        self._maintenance, self._rate_qu_per_h, self._wishes = maintenance, rate_qu_per_h, wishes
        self._held: dict[str, Held] = {}
        self.draining = False

    def closing(self, device_id: str) -> bool:
        """Nothing new is begun there."""
        return self.draining or self._maintenance.ends_ms is not None or self._wishes.closed(device_id)

    @property
    def may_leave(self) -> bool:
        """The node was told to go once nothing is rented and nothing runs, and nothing is rented."""
        return self._maintenance.leave and not self._held

    def rental_of(self, device_id: str) -> str | None:
        return next((one.rental_id for one in self._held.values() if one.device_id == device_id), None)

    def held(self) -> tuple[str, ...]:
        """For the handshake."""
        return tuple(self._held)[:RENTALS_MAX]

    def command(self, message: Message) -> bool:
        """One believed statement of the coordinator; False when it is not about rentals."""
        if isinstance(message, RentalStart):
            self._start(message)
        elif isinstance(message, RentalNonce):
            self._answer(message)
        elif isinstance(message, RentalEnd):
            self._end(message)
        else:
            return False
        return True

    def _start(self, start: RentalStart) -> None:
        facts = Facts(
            devices=self._devices(),
            rate_qu_per_h=self._rate_qu_per_h(start.device_id),
            draining=self.closing(start.device_id),
            held=self.rental_of(start.device_id),
        )
        reason = rules.obstacle(start, facts)
        if reason:
            log.info("rental.declined", extra={"rental": start.rental_id[:8], "reason": reason})
            self._say(RentalDecline(rental_id=start.rental_id, reason=reason))
            return
        if start.rental_id not in self._held:
            self._held[start.rental_id] = Held(start.rental_id, start.device_id, steady_ms())
            log.info("rental.taken", extra={"rental": start.rental_id[:8], "device": start.device_id})
            self._changed()
        self._held[start.rental_id].heard_ms = steady_ms()
        self._say(RentalAccept(rental_id=start.rental_id))

    def _answer(self, question: RentalNonce) -> None:
        """Only while the device is there: silence says that it is not."""
        held = self._held.get(question.rental_id)
        if held is None or held.device_id not in self._devices():
            return
        held.heard_ms = steady_ms()
        self._say(RentalBeat(rental_id=question.rental_id, nonce=question.nonce))

    def _end(self, end: RentalEnd) -> None:
        if self._held.pop(end.rental_id, None) is not None:
            facts = {"reason": end.reason.value, "billed_s": end.billed_ms // 1000, "paid_qu": end.paid_qu}
            log.info("rental.ended", extra={"rental": end.rental_id[:8], **facts})
            self._changed()

    async def device_lost(self, device_id: str, reason: str) -> None:
        """It is said why, once; after that silence tells."""
        for held in list(self._held.values()):
            if held.device_id == device_id:
                self._say(RentalNotice(rental_id=held.rental_id, device_lost=True, ends_ms=0, detail=reason))

    async def drain(self, coordinator_ms: int) -> None:
        """The node stops: what is rented ends now, and nothing new is taken. Returns when the coordinator has ended it
        all: a word on its way is lost with the connection."""
        self.draining = True
        for held in self._held.values():
            self._say(RentalNotice(rental_id=held.rental_id, ends_ms=coordinator_ms, detail=NODE_STOPS))
        while self._held:  # noqa: ASYNC110 - the caller's deadline ends it; nothing else happens meanwhile
            await trio.sleep(_DRAIN_LOOK_S)

    async def attend(self, live: Live) -> None:
        """A session's task: gives notice of maintenance, in each session anew, and forgets what nobody speaks of."""
        for held in self._held.values():
            held.told_ends_ms = None
        while True:
            if await trio.to_thread.run_sync(self._maintenance.look):
                log.info("node.maintenance", extra={"ends_ms": self._maintenance.ends_ms})
                self._changed()
            for held in list(self._held.values()):
                end = self._end_of(held, live.session.coordinator_ms())
                if end is not None and held.told_ends_ms != end.said_ms:
                    held.told_ends_ms = end.said_ms
                    await live.send(RentalNotice(rental_id=held.rental_id, ends_ms=max(0, end.ends_ms), detail=end.why))
                # It may have been ended while that was said.
                if rules.forgotten(held, steady_ms()) and self._held.pop(held.rental_id, None) is not None:
                    log.warning("rental.forgotten", extra={"rental": held.rental_id[:8]})
                    self._changed()
            await trio.sleep(_LOOK_S)

    def _end_of(self, held: Held, coordinator_ms: int) -> rules.End | None:
        """The sooner of what is announced on this machine and from afar."""
        said = []
        if (ends_ms := self._maintenance.ends_ms) is not None:
            said.append(rules.End(ends_ms + coordinator_ms - wall_ms(), ends_ms, self._maintenance.why))
        if (wished := self._wishes.free_ms(held.device_id)) is not None:
            free_ms, why = wished
            said.append(rules.End(free_ms, free_ms, why or WISHED))
        return min(said, key=lambda end: end.ends_ms, default=None)
