# SPDX-License-Identifier: Apache-2.0
"""Says the node's offers to its region: on change, and every so often as the coordinator asks."""

import logging
import random
from collections.abc import Callable, Sequence

import trio

from qubix_mesh.port import Mesh
from qubix_node.link import Live
from qubix_node.offers import rules
from qubix_protocol.messages import Offer

log = logging.getLogger("qubix_node")


class Publisher:
    def __init__(self, mesh: Mesh, topic: str, states: Callable[[], Sequence[rules.State]]) -> None:
        self._mesh, self._topic, self._states = mesh, topic, states
        self._told: dict[str, Offer] = {}
        self._wake = trio.Event()
        self._over = False
        self._chance = random.Random()  # noqa: S311  spreads messages, guards nothing
        self.first = trio.Event()
        """Set when offers were said for the first time."""

    def changed(self) -> None:
        """Look again soon."""
        self._wake.set()

    async def run(self, live: Live) -> None:
        """A session's task."""
        self._told.clear()
        began = trio.current_time()
        repeats = [began + after_s for after_s in rules.OPENING_S]
        while True:
            self._wake = trio.Event()
            await self._tell(live, everything=False)
            due = repeats.pop(0) if repeats else trio.current_time() + self._round_s(live)
            await self._wait_until(live, due)
            await self._tell(live, everything=True)

    def _round_s(self, live: Live) -> float:
        return rules.next_round_s(live.welcome.offer_s, self._chance.random())

    async def _wait_until(self, live: Live, due_s: float) -> None:
        """Tells changes meanwhile."""
        with trio.move_on_at(due_s):
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                await self._tell(live, everything=False)
                await trio.sleep(rules.CHANGE_S_MIN)

    async def _tell(self, live: Live, *, everything: bool) -> None:
        for state in () if self._over else self._states():
            offer = rules.build(state)
            before = self._told.get(offer.device.device_id)
            if everything or rules.differ(before, offer):
                await self._mesh.publish(self._topic, live.session.seal_offer(offer))
                self._told[offer.device.device_id] = offer
                if before is None or before.availability is not offer.availability:
                    log.info(
                        "offer.published",
                        extra={
                            "device": offer.device.kind.titled(offer.device.model),
                            "availability": offer.availability.value,
                            "qu_per_h": offer.rate_qu_per_h,
                        },
                    )
        self.first.set()

    async def farewell(self, live: Live) -> None:
        """Every device goes off the market; nothing is said after that."""
        self._over = True
        for offer in list(self._told.values()):
            await self._mesh.publish(self._topic, live.session.seal_offer(rules.farewell(offer)))
