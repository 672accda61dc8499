# SPDX-License-Identifier: Apache-2.0
"""A mesh in memory. Same port, same framing, same validators' rules; its weather comes from a seed.

Streams are reliable and in order, as TCP is: only `delay_s` and partitions touch them. Gossip is what may be dropped,
duplicated and reordered, one chance for each receiver. A message reaches whom links reach both when it is published
and when it arrives; without a delay the two are one moment.
"""

import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from heapq import heappop, heappush
from itertools import count
from typing import Final

import trio

from qubix_mesh import rules
from qubix_mesh.addresses import parse_listen, parse_peer
from qubix_mesh.errors import (
    AlreadySubscribed,
    BadAddress,
    DialFailed,
    FrameTooLarge,
    MeshError,
    MeshTimeout,
    NotConnected,
    NotListening,
    StreamClosed,
)
from qubix_mesh.framing import FramedStream
from qubix_mesh.nursery import plain_nursery
from qubix_mesh.port import Counters, GossipMessage, Mesh, Stream, StreamHandler, Subscription, Validator
from qubix_mesh.queues import NewestQueue
from qubix_protocol.errors import Malformed
from qubix_protocol.keys import SigningKey, public_key_of
from qubix_protocol.units import GOSSIP_BYTES_MAX

_WINDOW_BYTES: Final = 256 * 1024
_FIRST_PORT: Final = 20_000
LOOPBACK: Final = ("/ip4/127.0.0.1/tcp/0",)


class _Channel:
    """Bytes one way, at most a window of them unread."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._moved = trio.Event()
        self.ended = False
        self.broken = False

    def notice(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._require_whole()
            room = _WINDOW_BYTES - self._held
            if room <= 0:
                await self._moved.wait()
                continue
            part, view = bytes(view[:room]), view[room:]
            self._chunks.append((trio.current_time() + self._delay_s, part))
            self._held += len(part)
            self.notice()
        await trio.lowlevel.checkpoint()

    async def read(self, most: int) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self.broken:
                raise StreamClosed("the stream was reset or its connection is gone")
            if self._chunks:
                due_s = self._chunks[0][0]
                if due_s <= trio.current_time():
                    return self._take(most)
                await trio.sleep_until(due_s)
            elif self.ended:
                return b""
            else:
                await self._moved.wait()

    def _take(self, most: int) -> bytes:
        due_s, data = self._chunks.popleft()
        if len(data) > most:
            self._chunks.appendleft((due_s, data[most:]))
            data = data[:most]
        self._held -= len(data)
        self.notice()
        return data

    def _require_whole(self) -> None:
        if self.broken or self.ended:
            raise StreamClosed("the stream is gone")

    def end(self, *, broken: bool) -> None:
        self.ended = True
        self.broken = self.broken or broken
        self.notice()


class _Pipe:
    """Two channels as one end of a stream sees them."""

    def __init__(self, incoming: _Channel, outgoing: _Channel) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self.read = incoming.read
        self.write = outgoing.write

    async def close(self) -> None:
        self._outgoing.end(broken=False)

    async def reset(self) -> None:
        self.break_off()

    def break_off(self) -> None:
        self._incoming.end(broken=True)
        self._outgoing.end(broken=True)


class FakeNetwork:
    """The wires between fake meshes. Chances are 0–1, one draw for each receiver of each message."""

    def __init__(
        self,
        seed: int,
        *,
        drop: float = 0.0,
        delay_s: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
    ) -> None:
        self._chance = random.Random(seed)  # noqa: S311  it must be repeatable
        self.drop, self.delay_s, self.duplicate, self.reorder = drop, delay_s, duplicate, reorder
        self.meshes: dict[str, FakeMesh] = {}
        self._ports: dict[str, str] = {}
        self._next_port = count(_FIRST_PORT)
        self._links: dict[frozenset[str], list[_Pipe]] = {}
        self._islands: dict[str, int] = {}
        self._held_back: dict[str, list[GossipMessage]] = {}
        self._posted = count()
        self._under_way: list[tuple[float, int, GossipMessage, set[str]]] = []

    def partition(self, groups: Sequence[Iterable[str]]) -> None:
        """Only peers of one group reach each other; whoever is in no group reaches nobody."""
        self._islands = {peer: number for number, group in enumerate(groups) for peer in group}
        for pair in [pair for pair in self._links if not self.reachable(*pair)]:
            self.unlink(pair)

    def heal(self) -> None:
        self._islands = {}

    def reachable(self, one: str, other: str) -> bool:
        if not self._islands:
            return True
        return self._islands.get(one, -1) == self._islands.get(other, -2)

    def listen(self, mesh: "FakeMesh", address: str) -> str:
        """The address with its port; `NotListening` when somebody has it."""
        host, _, port = address.rpartition("/")
        opened = f"{host}/{next(self._next_port) if port == '0' else port}"
        if opened in self._ports:
            raise NotListening(f"cannot listen on {opened}: the port is taken")
        self._ports[opened] = mesh.peer_id
        return opened

    def dial(self, dialler: "FakeMesh", peer_id: str, transport: str) -> None:
        found = self._ports.get(transport)
        target = self.meshes.get(found) if found else None
        if target is None or not self.reachable(dialler.peer_id, target.peer_id):
            raise DialFailed(f"{transport}/p2p/{peer_id} could not be reached: connection refused")
        if target.peer_id != peer_id:
            raise DialFailed(f"{transport} is {target.peer_id}, not {peer_id}")
        self._links.setdefault(frozenset((dialler.peer_id, peer_id)), [])
        dialler.announce_change()
        target.announce_change()

    def neighbours(self, peer_id: str) -> frozenset[str]:
        return frozenset(other for pair in self._links if peer_id in pair for other in pair if other != peer_id)

    def unlink(self, pair: frozenset[str]) -> None:
        for pipe in self._links.pop(pair, []):
            pipe.break_off()
        for peer in pair:
            if peer in self.meshes:
                self.meshes[peer].announce_change()

    def new_stream(self, opener: str, target: str) -> tuple[_Pipe, _Pipe]:
        forth, back = _Channel(self.delay_s), _Channel(self.delay_s)
        ours, theirs = _Pipe(back, forth), _Pipe(forth, back)
        pipes = self._links[frozenset((opener, target))]
        pipes[:] = [*pipes[-1023:], ours]
        return ours, theirs

    def leave(self, mesh: "FakeMesh") -> None:
        for other in self.neighbours(mesh.peer_id):
            self.unlink(frozenset((mesh.peer_id, other)))
        self._ports = {port: peer for port, peer in self._ports.items() if peer != mesh.peer_id}
        self.meshes.pop(mesh.peer_id, None)

    def post(self, message: GossipMessage) -> float:
        """Who may get it is decided now, by the links that stand; when it is due."""
        due_s = trio.current_time() + self.delay_s
        receivers = self._spread(message, lambda _: True)
        heappush(self._under_way, (due_s, next(self._posted), message, receivers))
        return due_s

    def deliver_due(self) -> None:
        """Everything that is due, in the order of its times, whichever task comes to it first."""
        while self._under_way and self._under_way[0][0] <= trio.current_time():
            _, _, message, receivers = heappop(self._under_way)
            self._deliver(message, receivers)

    def _deliver(self, message: GossipMessage, receivers: set[str]) -> None:
        self._spread(message, lambda peer: peer in receivers and self._carry(peer, message))

    def _spread(self, message: GossipMessage, passes_on: Callable[[str], bool]) -> set[str]:
        """Every subscriber that a chain of links reaches, each link between subscribers (or the author) counting."""
        seen, front = {message.author}, [message.author]
        while front:
            for peer in sorted(self.neighbours(front.pop())):
                if peer not in seen and self.meshes[peer].takes(message.topic):
                    seen.add(peer)
                    if passes_on(peer):
                        front.append(peer)
        return seen

    def _carry(self, peer: str, message: GossipMessage) -> bool:
        """One receiver's weather; True when the peer accepted the message and would pass it on."""
        mesh = self.meshes[peer]
        if self._chance.random() < self.drop:
            return False
        waiting = self._held_back.pop(peer, [])
        if self._chance.random() < self.reorder:
            self._held_back[peer] = [*waiting, message][-64:]
            return True
        accepted = mesh.accept(message)
        for late in waiting:
            mesh.accept(late)
        if self._chance.random() < self.duplicate:
            mesh.accept(message)
        return accepted


class FakeMesh:
    """A `port.Mesh`. Made by `open_fake_mesh`."""

    def __init__(self, network: FakeNetwork, seed: bytes, nursery: trio.Nursery) -> None:
        self.peer_id: str = SigningKey(seed).peer_id
        self.addresses: tuple[str, ...] = ()
        self.counters = Counters()
        self._network = network
        self._nursery = nursery
        self._handlers: dict[str, StreamHandler] = {}
        self._topics: dict[str, tuple[Validator, NewestQueue[GossipMessage]]] = {}
        self._changed = trio.Event()

    def on_stream(self, protocol: str, handler: StreamHandler) -> None:
        self._handlers[protocol] = handler

    async def open_stream(self, peer_id: str, protocol: str, *, timeout_s: float) -> Stream:
        if peer_id not in self.connected():
            raise NotConnected(f"no connection to {peer_id}")
        with trio.move_on_after(timeout_s):
            await trio.sleep(self._network.delay_s)
            target = self._network.meshes.get(peer_id)
            if peer_id not in self.connected() or target is None or protocol not in target._handlers:
                raise StreamClosed(f"{peer_id} gave no stream for {protocol}")
            ours, theirs = self._network.new_stream(self.peer_id, peer_id)
            target.serve(FramedStream(theirs, self.peer_id), protocol)
            return FramedStream(ours, peer_id)
        raise MeshTimeout(f"{peer_id} gave no stream for {protocol} within {timeout_s} s")

    def serve(self, stream: FramedStream, protocol: str) -> None:
        self._nursery.start_soon(self._serve, stream, self._handlers[protocol])

    async def _serve(self, stream: FramedStream, handler: Callable[[Stream], Awaitable[None]]) -> None:
        try:
            await handler(stream)
        except MeshError:
            await stream.abort()
        except Exception:  # noqa: BLE001  as in the real mesh: a handler's fault stays its own
            self.counters.handler_failed += 1
            await stream.abort()
        except BaseException:
            await stream.abort()
            raise
        else:
            await stream.close()

    async def connect(self, address: str, *, timeout_s: float) -> str:
        target = parse_peer(address)
        if target.peer_id == self.peer_id:
            raise BadAddress(f"{address} is our own address")
        if target.peer_id not in self.connected():
            await self._dial(target.peer_id, target.transport, timeout_s)
        return target.peer_id

    async def _dial(self, peer_id: str, transport: str, timeout_s: float) -> None:
        try:
            with trio.fail_after(timeout_s):
                await trio.sleep(self._network.delay_s)
            self._network.dial(self, peer_id, transport)
        except trio.TooSlowError:
            self.counters.dials_failed += 1
            raise DialFailed(f"{transport}/p2p/{peer_id}: no answer within {timeout_s} s") from None
        except DialFailed:
            self.counters.dials_failed += 1
            raise

    async def keep_connected(self, address: str) -> None:
        failures = 0
        while True:
            try:
                await self.wait_disconnected(await self.connect(address, timeout_s=10.0))
                failures = 0
            except DialFailed:
                failures += 1
            await trio.sleep(rules.backoff_s(failures, 0.0, first_s=0.02, max_s=1.0))

    async def disconnect(self, peer_id: str) -> None:
        self._network.unlink(frozenset((self.peer_id, _checked(peer_id))))
        await trio.lowlevel.checkpoint()

    def connected(self) -> frozenset[str]:
        return self._network.neighbours(self.peer_id)

    def remote_ip(self, peer_id: str) -> str:
        return "127.0.0.1" if peer_id in self.connected() else ""

    async def wait_connected(self, peer_id: str) -> None:
        while peer_id not in self.connected():
            await self._changed.wait()

    async def wait_disconnected(self, peer_id: str) -> None:
        while peer_id in self.connected():
            await self._changed.wait()

    def announce_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def publish(self, topic: str, data: bytes) -> None:
        if len(data) > GOSSIP_BYTES_MAX:
            raise FrameTooLarge(f"a gossip message of {len(data)} bytes is over the limit of {GOSSIP_BYTES_MAX}")
        due_s = self._network.post(GossipMessage(self.peer_id, topic, data))
        if due_s > trio.current_time():
            self._nursery.start_soon(self._deliver_at, due_s)
        else:
            self._network.deliver_due()
        await trio.lowlevel.checkpoint()

    async def _deliver_at(self, due_s: float) -> None:
        await trio.sleep_until(due_s)
        self._network.deliver_due()

    def takes(self, topic: str) -> bool:
        return topic in self._topics

    def accept(self, message: GossipMessage) -> bool:
        validator, queue = self._topics[message.topic]
        try:
            accepted = validator(message.author, message.data)
        except Exception:  # noqa: BLE001  any fault of a validator refuses the message and harms nothing else
            self.counters.validator_failed += 1
            return False
        if not accepted:
            self.counters.gossip_invalid += 1
        elif not queue.put(message):
            self.counters.gossip_overflow += 1
        return accepted

    def subscribe(
        self, topic: str, validator: Validator, *, capacity: int
    ) -> AbstractAsyncContextManager[Subscription]:
        return self._subscribed(topic, validator, capacity)

    @asynccontextmanager
    async def _subscribed(self, topic: str, validator: Validator, capacity: int) -> AsyncIterator[Subscription]:
        if topic in self._topics:
            raise AlreadySubscribed(f"{topic} is already subscribed to on this mesh")
        queue: NewestQueue[GossipMessage] = NewestQueue(capacity)
        self._topics[topic] = validator, queue
        try:
            yield queue
        finally:
            queue.close()
            del self._topics[topic]


@asynccontextmanager
async def open_fake_mesh(network: FakeNetwork, seed: bytes, *, listen: Sequence[str] = LOOPBACK) -> AsyncIterator[Mesh]:
    """As `host.open_mesh`, on a `FakeNetwork`."""
    addresses = [parse_listen(text) for text in listen]
    async with plain_nursery() as nursery:
        mesh = FakeMesh(network, seed, nursery)
        network.meshes[mesh.peer_id] = mesh
        try:
            mesh.addresses = tuple(f"{network.listen(mesh, text)}/p2p/{mesh.peer_id}" for text in addresses)
            yield mesh
        finally:
            network.leave(mesh)
            nursery.cancel_scope.cancel()


def _checked(peer_id: str) -> str:
    try:
        public_key_of(peer_id)
    except Malformed as error:
        raise BadAddress(str(error)) from error
    return peer_id
