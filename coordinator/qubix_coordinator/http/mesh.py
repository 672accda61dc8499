# SPDX-License-Identifier: Apache-2.0
"""Which nodes can be reached from here, and through which gateway.

A `Link` is one gateway's WebSocket, a `Peer` one node's session on it. The newest session that finished its handshake
speaks for a node; an older one is dropped. Nothing here is the truth about nodes: after a restart they shake hands
again.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import QubixError, Unavailable
from qubix_coordinator.http.metrics import Metrics
from qubix_coordinator.http.peer import TAKEN_OVER, Peer
from qubix_coordinator.http.session import Session
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.market import gateways, places
from qubix_coordinator.market import service as market
from qubix_coordinator.outbox import Event
from qubix_coordinator.outbox.notifier import Notifier, Overflow
from qubix_coordinator.telemetry.ingest import Ingest
from qubix_coordinator.telemetry.rules import Said
from qubix_protocol import barriers
from qubix_protocol.barriers import Barrier
from qubix_protocol.errors import ProtocolError
from qubix_protocol.link import Drop, FromPeer, Gossip, LinkOpen, PeerDown, PeerUp, ToGateway, ToPeer
from qubix_protocol.messages import Assign
from qubix_protocol.statements import FromCoordinator

log = logging.getLogger(__name__)
_WAITING_MAX: Final = 4096
"""Frames that wait for one gateway: beyond it the gateway is cut off, and comes back."""
PEERS_MAX: Final = 10_000
RELAYS_TOLD_MAX: Final = 16
_COMMANDS: Final = "node:"


class LinkBroken(Exception):
    """The gateway does not read, or breaks the protocol."""


class Link:
    """One gateway. `spawn` starts a task in the nursery that owns the link's life."""

    def __init__(self, mesh: "Mesh", opened: LinkOpen, spawn: Callable[[Any], object]) -> None:
        self.mesh, self.opened, self._spawn = mesh, opened, spawn
        self.outgoing: asyncio.Queue[ToGateway] = asyncio.Queue(_WAITING_MAX)
        self.broken = asyncio.Event()
        self.peers: dict[str, Peer] = {}

    def send(self, item: ToGateway) -> None:
        """Never waits: a gateway that does not read must not hold up the others."""
        try:
            self.outgoing.put_nowait(item)
        except asyncio.QueueFull:
            self.broken.set()

    def to_peer(self, peer_id: str, raw: bytes) -> None:
        self.send(ToPeer(peer_id=peer_id, frames=(raw,)))

    def drop(self, peer: Peer, reason: str) -> None:
        """Ends the session and has the gateway close the node's stream."""
        if self.peers.get(peer.peer_id) is peer:
            self.send(Drop(peer_id=peer.peer_id, reason=reason))
        self.forget(peer)

    def forget(self, peer: Peer) -> None:
        peer.stop()
        if self.peers.get(peer.peer_id) is peer:
            del self.peers[peer.peer_id]
        self.mesh.closed(peer)

    def receive(self, items: Sequence[LinkOpen | PeerUp | PeerDown | FromPeer | Gossip]) -> None:
        for item in items:
            match item:
                case FromPeer():
                    self._from_peer(item)
                case Gossip():
                    self.mesh.gossip(item)
                case PeerUp():
                    self._peer_up(item.peer_id, places.country(item.address))
                case PeerDown():
                    if peer := self.peers.get(item.peer_id):
                        peer.gone = True
                        self.forget(peer)
                case LinkOpen():
                    raise LinkBroken("a link is opened once")

    def _peer_up(self, peer_id: str, country: str) -> None:
        if old := self.peers.get(peer_id):
            self.forget(old)
        try:
            session = self.mesh.session(peer_id)
        except ProtocolError as problem:
            self.mesh.count(problem.code)
            self.send(Drop(peer_id=peer_id, reason=str(problem)[:200]))
            return
        if len(self.peers) >= PEERS_MAX:
            self.mesh.count("too_many_nodes")
            self.send(Drop(peer_id=peer_id, reason="too many nodes on this gateway"))
            return
        peer = Peer(self.mesh, self, session, country)
        self.peers[peer_id] = peer
        self._spawn(peer.run())

    def _from_peer(self, item: FromPeer) -> None:
        peer = self.peers.get(item.peer_id)
        if peer is None:
            self.mesh.count("no_session", len(item.frames))
            return
        for raw in item.frames:
            if not peer.offer_frame(raw):
                self.mesh.count("overflow")
                self.drop(peer, "too many statements at once")
                return


class Mesh:
    def __init__(self, desk: Desk, notifier: Notifier, metrics: Metrics, artifact_url: str) -> None:
        self.desk, self._notifier, self._metrics, self.artifact_url = desk, notifier, metrics, artifact_url
        self._links: set[Link] = set()
        self._sessions: dict[str, Peer] = {}
        self._changed: asyncio.Queue[Peer] = asyncio.Queue()
        self._gateways_changed = asyncio.Event()
        self._gone: set[str] = set()
        self._relays: dict[str, tuple[str, ...]] = {}
        self.ingest: Final = Ingest(
            desk.db, self._tell_readings, lambda fate, times: metrics.samples.labels(fate.value).inc(times)
        )
        metrics.samples_waiting.set_function(lambda: self.ingest.waiting)

    @property
    def gateways(self) -> int:
        return len(self._links)

    @property
    def nodes(self) -> int:
        """With a live session here."""
        return len(self._sessions)

    async def gateway_addresses(self) -> tuple[str, ...]:
        """Of every replica's gateways; while the database is away, of this one's."""
        own = {address for link in self._links for address in link.opened.addresses}
        try:
            return tuple(sorted(own | await self.desk.db.run(gateways.addresses)))
        except Unavailable:
            return tuple(sorted(own))

    def relays_at(self, peer_id: str, addresses: Sequence[str]) -> None:
        """Where a node of a live session says that it passes offers on; what it says of others is not taken."""
        own = tuple(address for address in addresses if address.endswith(f"/p2p/{peer_id}"))
        if own:
            self._relays[peer_id] = own
        else:
            self._relays.pop(peer_id, None)

    def relays(self) -> tuple[str, ...]:
        """Some of those connected here, others each time."""
        known = [address for own in self._relays.values() for address in own]
        return tuple(random.sample(known, min(len(known), RELAYS_TOLD_MAX)))

    def reachable(self, peer_id: str) -> bool:
        return peer_id in self._sessions

    def count(self, code: str, times: int = 1) -> None:
        self._metrics.refused.labels(code).inc(times)

    def count_received(self, kind: str) -> None:
        self._metrics.received.labels(kind).inc()

    def nudge(self) -> None:
        """Something was committed that followers should see now, not at the next poll."""
        self._notifier.nudge()

    def session(self, peer_id: str, *, hidden: bool = True) -> Session:
        """A new handshake; not `hidden` where no gateway stands between. Raises Malformed for what is not a peer id."""
        desk = self.desk
        return Session(
            desk.key,
            network=desk.network,
            peer_id=peer_id,
            nonce=secrets.token_bytes(32),
            exchange=secrets.token_bytes(32) if hidden else None,
            clock_ms=desk.now_ms,
        )

    async def run(self) -> None:
        """Passes commands on, and keeps the market told of who can be reached, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_commands())
            tasks.create_task(self._tell_market())
            tasks.create_task(self._tell_gateways())
            tasks.create_task(self.ingest.run())

    def add(self, link: Link) -> None:
        self._links.add(link)
        self._metrics.gateways.set(len(self._links))
        self._gateways_changed.set()
        log.info("mesh.gateway_up", extra={"gateway": link.opened.gateway_peer_id})

    def remove(self, link: Link) -> None:
        """The gateway is gone, and every session through it."""
        for peer in list(link.peers.values()):
            link.forget(peer)
        self._links.discard(link)
        self._metrics.gateways.set(len(self._links))
        self._gone.add(link.opened.gateway_peer_id)
        self._gateways_changed.set()
        log.info("mesh.gateway_down", extra={"gateway": link.opened.gateway_peer_id})

    def opened(self, peer: Peer) -> None:
        """The handshake is done: from now on this session speaks for the node."""
        old = self._sessions.get(peer.peer_id)
        self._sessions[peer.peer_id] = peer
        if old is not None and old is not peer:
            old.link.drop(old, TAKEN_OVER)
        self._say_changed(peer)

    def closed(self, peer: Peer) -> None:
        if self._sessions.get(peer.peer_id) is peer:
            del self._sessions[peer.peer_id]
            self._relays.pop(peer.peer_id, None)
            self._say_changed(peer)

    def gossip(self, item: Gossip) -> None:
        peer = self._sessions.get(item.author)
        if peer is None:
            self.count("no_session")
        elif not peer.offer_gossip(item.data):
            self.count("overflow")

    async def command(self, event: Event) -> None:
        """One event of a topic `node:PEER`. A node that is not here is another replica's, or told at its handshake."""
        peer = self._sessions.get(event.topic.removeprefix(_COMMANDS))
        if peer is None:
            return
        try:
            message: FromCoordinator = msgspec.convert(event.payload, FromCoordinator)
        except msgspec.ValidationError as problem:
            log.error("mesh.command_malformed", extra={"topic": event.topic, "problem": str(problem)})  # noqa: TRY400
            return
        if isinstance(message, Assign):
            await barriers.reach(Barrier.ASSIGNED)
        peer.send(message)

    def _say_changed(self, peer: Peer) -> None:
        self._metrics.nodes.set(len(self._sessions))
        self._changed.put_nowait(peer)

    async def _send_commands(self) -> None:
        while True:
            with self._notifier.subscribe([_COMMANDS]) as events:
                try:
                    async for event in events:
                        await self.command(event)
                except Overflow:
                    # The engine sends unanswered commands again.
                    log.error("mesh.commands_lost")  # noqa: TRY400 - the trace would say nothing
                else:
                    return

    async def _tell_market(self) -> None:
        """One at a time and by the state as it is then, so that a fast reconnect cannot end as offline."""
        while True:
            peer = await self._changed.get()
            try:
                await self._tell_about(peer)
            except Unavailable:
                self._changed.put_nowait(peer)
                await self.desk.db.until_back()
            except QubixError as problem:
                log.warning("mesh.market_not_told", extra={"peer": peer.peer_id, "problem": problem.problem})

    async def _tell_readings(self, newest: Mapping[tuple[str, str], Said]) -> None:
        samples = {device: one.sample for device, one in newest.items()}
        heard_ms = {device: one.received_ms for device, one in newest.items()}
        await market.metrics_received(self.desk.db, samples, now_ms=self.desk.now_ms(), heard_ms=heard_ms)

    async def _tell_gateways(self) -> None:
        """All that are linked here, when that changes and again before they would be forgotten."""
        while True:
            self._gateways_changed.clear()
            gone = frozenset(self._gone)
            try:
                await self.desk.db.run(partial(self.write_gateways, gone))
                self._gone -= gone
                async with asyncio.timeout(gateways.BEAT_S):
                    await self._gateways_changed.wait()
            except TimeoutError:
                continue
            except Unavailable:
                await self.desk.db.until_back()

    async def write_gateways(self, gone: frozenset[str], tx: Tx) -> None:
        here = {link.opened.gateway_peer_id: link.opened.addresses for link in self._links}
        for peer_id in sorted(gone - set(here)):
            await gateways.leave(tx, peer_id)
        for peer_id, addresses in sorted(here.items()):
            await gateways.beat(tx, peer_id, addresses)

    async def _tell_about(self, peer: Peer) -> None:
        db, now_ms = self.desk.db, self.desk.now_ms()
        if peer.peer_id in self._sessions:
            await market.node_online(db, peer.peer_id, now_ms=now_ms)
        else:
            await market.node_offline(db, peer.peer_id, incarnation=peer.session.incarnation, now_ms=now_ms)
            if peer.left:
                await jobs.on_leaving(self.desk, peer.peer_id, peer.session.incarnation)
            if peer.gone:
                await jobs.on_gone(self.desk, peer.peer_id, peer.session.incarnation)
