# SPDX-License-Identifier: Apache-2.0
"""Says the node's offers to its region: on change, and every so often as the coordinator asks.

It goes on between sessions, and after a restart, under the last one's certificate for as long as that is believed:
whoever relays the region, and whoever watches it, still hears of this node when the coordinator and every gateway are
gone (trust P5).
"""

import logging
import random
from collections.abc import Callable, Sequence

import trio

from qubix_mesh.errors import MeshError
from qubix_mesh.port import Mesh
from qubix_node.link import Live
from qubix_node.offers import rules
from qubix_node.voice import KeptVoice, Voice
from qubix_protocol.messages import Offer
from qubix_protocol.units import OFFER_S, Network, offers_topic

log = logging.getLogger("qubix_node")


class Publisher:
    def __init__(
        self, mesh: Mesh, network: Network, states: Callable[[str], Sequence[rules.State]], kept: KeptVoice
    ) -> None:
        """`states` is asked for what to offer in a region."""
        self._mesh, self._states, self._kept = mesh, states, kept
        self._network: Network = network
        self._voice: Voice | None = None
        self._certificate = b""
        self._offer_s = 0.0
        self._repeats: list[float] = []
        self._due_s = float("inf")
        self._told: dict[str, Offer] = {}
        self._wake = trio.Event()
        self._over = False
        self._chance = random.Random()  # noqa: S311  spreads messages, guards nothing
        self.first = trio.Event()
        """Set when offers were said for the first time."""

    @property
    def region(self) -> str:
        """Where the coordinator lets this node offer; empty before the first session."""
        return self._voice.licence.region if self._voice is not None else ""

    def changed(self) -> None:
        """Look again soon."""
        self._wake.set()

    async def begin(self, live: Live) -> None:
        """A session's task, done at once: everything is said anew, under its certificate."""
        self._speak(live.session.voice, live.welcome.offer_s)

    async def go_on(self) -> Voice | None:
        """Before any session, when none is to be had: under the certificate of before the restart, if there is one."""
        if self._voice is not None:
            return None
        voice = await trio.to_thread.run_sync(self._kept.again)
        if voice is None or self._voice is not None:
            return None
        log.info("offer.goes_on_without_session", extra={"region": voice.licence.region})
        self._certificate = voice.certificate
        self._speak(voice, OFFER_S)
        return voice

    def _speak(self, voice: Voice, offer_s: float) -> None:
        self._voice, self._offer_s = voice, offer_s
        self._told.clear()
        now_s = trio.current_time()
        self._repeats = [now_s + after_s for after_s in rules.OPENING_S]
        self._due_s = self._repeats.pop(0)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with trio.move_on_at(self._due_s) as waited:
                await self._wake.wait()
            self._wake = trio.Event()
            everything = waited.cancelled_caught
            if everything:
                self._due_s = self._next_due_s()
            try:
                await self._tell(everything=everything)
            except MeshError as error:
                log.warning("offer.not_published", extra={"reason": str(error)})
            await trio.sleep(rules.CHANGE_S_MIN)

    def _next_due_s(self) -> float:
        if self._repeats:
            return self._repeats.pop(0)
        return trio.current_time() + rules.next_round_s(self._offer_s, self._chance.random())

    async def _tell(self, *, everything: bool) -> None:
        voice = self._voice
        if voice is None or self._over:
            return
        if not voice.certified:
            # Nobody would believe it: the next session brings another certificate.
            log.debug("offer.certificate_expired")
            return
        for state in self._states(voice.licence.region):
            offer = rules.build(state)
            before = self._told.get(offer.device.device_id)
            if everything or rules.differ(before, offer):
                await self._say(voice, offer)
                self._told[offer.device.device_id] = offer
                if before is None or before.availability is not offer.availability:
                    _log_published(offer)
        self.first.set()
        await self._keep(voice)

    async def _say(self, voice: Voice, offer: Offer) -> None:
        await self._mesh.publish(offers_topic(self._network, offer.region), voice.advert(offer))

    async def _keep(self, voice: Voice) -> None:
        """On disk, for the life after this one."""
        if voice.certificate == self._certificate:
            return
        self._certificate = voice.certificate
        try:
            await trio.to_thread.run_sync(self._kept.keep, voice)
        except OSError as error:
            log.warning("offer.certificate_not_kept", extra={"reason": str(error)})

    async def farewell(self) -> None:
        """Every device goes off the market; nothing is said after that."""
        self._over = True
        if self._voice is not None and self._voice.certified:
            for offer in list(self._told.values()):
                await self._say(self._voice, rules.farewell(offer))


def _log_published(offer: Offer) -> None:
    log.info(
        "offer.published",
        extra={
            "device": offer.device.kind.titled(offer.device.model),
            "availability": offer.availability.value,
            "qu_per_h": offer.rate_qu_per_h,
        },
    )
