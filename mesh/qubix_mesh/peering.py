# SPDX-License-Identifier: Apache-2.0
"""Keeps several ways into the mesh open (trust P5): whom we were told to dial, whom we heard of, whom we remember."""

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from qubix_mesh.addresses import PeerAddress, parse_peer
from qubix_mesh.errors import BadAddress, DialFailed
from qubix_mesh.peerbook import PeerBook
from qubix_mesh.port import Mesh
from qubix_mesh.rules import backoff_s

log = logging.getLogger("qubix_mesh")

PEERS_MAX: Final = 4
"""Connections kept, beyond those to bootstrap addresses."""
LEARNED_MAX: Final = 64
LOOK_S: Final = 0.5
DIAL_S: Final = 5.0
_AT_ONCE: Final = 4
_BACKOFF_MAX_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class PeerSeen:
    """A peer that offers may come from. `relay`: a node that passes its region's offers on."""

    peer_id: str
    address: str
    relay: bool
    connected: bool


@dataclass(slots=True)
class _Tried:
    failures: int = 0
    next_s: float = float("-inf")


class Peering:
    """`bootstrap` is kept in full; of those learned or remembered, as many as `most`, and while `relays_only` none but
    known relays. `book` None: nothing is kept on disk. `changed` hears of every connection made or lost."""

    def __init__(
        self,
        mesh: Mesh,
        bootstrap: Sequence[str],
        book: PeerBook | None,
        *,
        most: int = PEERS_MAX,
        relays_only: Callable[[], bool] = lambda: False,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._mesh, self._book, self._most, self._changed = mesh, book, most, changed
        self._relays_only = relays_only
        self._bootstrap = [address for address in map(parse_peer, bootstrap) if address.peer_id != mesh.peer_id]
        remembered = reversed(book.remembered()) if book else ()
        self._known: dict[str, PeerAddress] = {one.peer_id: one for one in map(parse_peer, remembered)}
        """Newest last."""
        self._relays: set[str] = set()
        self._tried: dict[PeerAddress, _Tried] = {}
        self._chance = random.Random()  # noqa: S311  spreads retries, guards nothing

    def learn(self, address: str, *, relay: bool) -> None:
        """An address that somebody told; the newest `LEARNED_MAX` are kept. Nonsense is passed over."""
        try:
            told = parse_peer(address)
        except BadAddress:
            return
        if told.peer_id == self._mesh.peer_id:
            return
        if relay:
            self._relays.add(told.peer_id)
        self._known.pop(told.peer_id, None)
        self._known[told.peer_id] = told
        if len(self._known) > LEARNED_MAX:
            gone = next(iter(self._known))
            del self._known[gone]
            self._relays.discard(gone)

    def learn_of(self, peer_id: str, address: str) -> None:
        """Where a relay says that it is reached: what it says of others is not taken."""
        if address.endswith(f"/p2p/{peer_id}"):
            self.learn(address, relay=True)

    def peers(self) -> tuple[PeerSeen, ...]:
        """Everybody that is known, whoever is connected first."""
        connected = self._mesh.connected()
        seen = [
            PeerSeen(one.peer_id, str(one), one.peer_id in self._relays, one.peer_id in connected)
            for one in self._addresses()
        ]
        return tuple(sorted(seen, key=lambda one: (not one.connected, not one.relay, one.peer_id)))

    async def run(self) -> None:
        """Until cancelled."""
        before: frozenset[str] = frozenset()
        while True:
            wanted = self._to_dial()
            if wanted:
                async with trio.open_nursery() as nursery:
                    for address in wanted:
                        nursery.start_soon(self._dial, address)
            now = self._mesh.connected()
            if now != before:
                before = now
                self._changed()
            await trio.sleep(LOOK_S)

    def _addresses(self) -> list[PeerAddress]:
        first = {one.peer_id: one for one in self._bootstrap}
        newest = [one for one in reversed(self._known.values()) if one.peer_id not in first]
        relays = [one for one in newest if one.peer_id in self._relays]
        return [*first.values(), *relays, *(one for one in newest if one.peer_id not in self._relays)]

    def _to_dial(self) -> list[PeerAddress]:
        """Bootstrap first, then relays, then whoever is remembered; each again only after its own pause. Others than
        relays are dialled while there are too few connections at all, and take no relay's place."""
        connected, now_s = self._mesh.connected(), trio.current_time()
        first = {one.peer_id for one in self._bootstrap}
        kept = connected & self._known.keys() - first
        room = {True: self._most - len(kept & self._relays), False: self._most - len(kept)}
        if self._relays_only():
            room[False] = 0
        wanted = []
        for one in self._addresses():
            if one.peer_id in connected or self._tried.setdefault(one, _Tried()).next_s > now_s:
                continue
            if one.peer_id not in first:
                relay = one.peer_id in self._relays
                if room[relay] <= 0:
                    continue
                room = {kind: left - (relay or not kind) for kind, left in room.items()}
            wanted.append(one)
        return wanted[:_AT_ONCE]

    async def _dial(self, address: PeerAddress) -> None:
        tried = self._tried[address]
        try:
            await self._mesh.connect(str(address), timeout_s=DIAL_S)
        except DialFailed as error:
            tried.next_s = trio.current_time() + backoff_s(tried.failures, self._chance.random(), max_s=_BACKOFF_MAX_S)
            tried.failures += 1
            log.debug("mesh.dial_failed", extra={"address": str(address), "reason": str(error)})
            self._forget_tries()
            return
        log.info("mesh.connected", extra={"peer": address.peer_id})
        # One that hangs up as soon as it was reached is not dialled without a pause either.
        tried.failures, tried.next_s = 0, trio.current_time() + backoff_s(2, self._chance.random())
        if self._book is not None:
            await trio.to_thread.run_sync(self._remember, str(address))

    def _remember(self, address: str) -> None:
        assert self._book is not None
        try:
            self._book.remember(address)
        except OSError as error:
            log.warning("mesh.peerbook_not_saved", extra={"reason": str(error)})

    def _forget_tries(self) -> None:
        if len(self._tried) > 4 * LEARNED_MAX:
            known = set(self._addresses())
            self._tried = {address: tried for address, tried in self._tried.items() if address in known}
