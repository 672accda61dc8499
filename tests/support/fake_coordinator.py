# SPDX-License-Identifier: Apache-2.0
"""A small coordinator that speaks the protocol to nodes over a mesh: it is its own gateway, and decides nothing."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from qubix_mesh.errors import MeshError
from qubix_mesh.port import Mesh, Stream
from qubix_node.clock import wall_ms
from qubix_protocol.adverts import decode_advert
from qubix_protocol.channel import Channel, Exchange, Side, exchange_in, label_of
from qubix_protocol.envelope import ANYONE, Opened, Sealer, open_envelope
from qubix_protocol.errors import BadSignature
from qubix_protocol.keys import SigningKey, peer_id, public_key_of
from qubix_protocol.messages import (
    Acknowledged,
    Certificate,
    Challenge,
    Hello,
    Message,
    Offer,
    Progress,
    Report,
    Welcome,
)
from qubix_protocol.statements import FromNode
from qubix_protocol.units import CONTROL_PROTOCOL, FRAME_BYTES_MAX, Network, offers_topic

M = TypeVar("M", bound=Message)
NETWORK: Network = "devnet"
ACCOUNT = "00000000-0000-0000-0000-00000000acc0"
DEADLINE_S = 60.0


@dataclass
class Peer:
    """One handshake: the stream and how to speak on it."""

    stream: Stream
    sealer: Sealer
    channel: Channel
    node: bytes
    raw: list[bytes] = field(default_factory=list)
    """Frames as they were sent to the node."""

    async def send(self, message: Message) -> None:
        await self.send_envelope(self.sealer.seal(message))

    async def send_envelope(self, envelope: bytes) -> None:
        await self.send_raw(self.channel.encrypt(envelope))

    async def send_raw(self, frame: bytes) -> None:
        self.raw.append(frame)
        await self.stream.send(frame, timeout_s=10)


class FakeCoordinator:
    """`heard` has every statement in order. `acknowledges` says whether links and reports are answered."""

    def __init__(self, key: SigningKey, mesh: Mesh, *, clock_skew_ms: int = 0) -> None:
        self.key, self.mesh, self.clock_skew_ms = key, mesh, clock_skew_ms
        self.heard: list[Message] = []
        self.opened: list[Opened] = []
        self.challenges = 0
        self.hellos: list[Hello] = []
        self.offers: list[Offer] = []
        self.acknowledges = True
        self.answers_hello = True
        self.incarnation = 0
        self.heartbeat_s = 0.2
        self.region = "test-region"
        self.artifact_url = "http://store.invalid/api/v1/artifacts"
        self.peer: Peer | None = None
        self.on_hello: Callable[[bytes], Awaitable[None]] | None = None
        """Answers a hello that comes on a stream with a session."""
        self.again: tuple[Exchange, bytes] | None = None
        """The key and the nonce of the challenge that such a hello answers."""
        self._changed = trio.Event()
        mesh.on_stream(CONTROL_PROTOCOL, self._serve)

    def clock_ms(self) -> int:
        return wall_ms() + self.clock_skew_ms

    def sealer(self, node: bytes, incarnation: int, key: SigningKey | None = None) -> Sealer:
        return Sealer(key or self.key, network=NETWORK, audience=node, incarnation=incarnation, clock_ms=self.clock_ms)

    async def listen_to_offers(self, region: str) -> None:
        """Run in a nursery."""
        async with self.mesh.subscribe(offers_topic(NETWORK, region), lambda *_: True, capacity=256) as offers:
            async for message in offers:
                raw = decode_advert(message.data).offer
                opened = open_envelope(raw, network=NETWORK, audience=self.key.public, now_ms=self.clock_ms())
                self.offers.append(opened.body(Offer))
                self._tell()

    async def _serve(self, stream: Stream) -> None:
        try:
            await self.shake_hands(stream)
            while True:
                await self._hear(stream, await stream.receive(limit_bytes=FRAME_BYTES_MAX, timeout_s=None))
        except MeshError:
            self.peer = None
            self._tell()

    async def shake_hands(self, stream: Stream) -> None:
        """From the challenge to the welcome; again on a stream that stands, as after a coordinator's restart."""
        node = public_key_of(stream.peer_id)
        exchange = Exchange(os.urandom(32))
        challenge = Challenge(nonce=os.urandom(32), clock_ms=self.clock_ms(), exchange=exchange.public)
        await stream.send(self.sealer(node, 0).seal(challenge), timeout_s=10)
        self.challenges += 1
        self._tell()
        while True:
            raw = await stream.receive(limit_bytes=FRAME_BYTES_MAX, timeout_s=10)
            if label_of(raw) == "hello":
                break
        channel = exchange.channel(exchange_in(raw), nonce=challenge.nonce, side=Side.COORDINATOR)
        opened = open_envelope(
            channel.decrypt(raw), network=NETWORK, audience=self.key.public, now_ms=self.clock_ms(), sender=node
        )
        hello = opened.body(Hello)
        assert (hello.nonce, hello.exchange, opened.header.incarnation) == (challenge.nonce, exchange_in(raw), 0)
        self.hellos.append(hello)
        if self.answers_hello:
            self.incarnation += 1
            self.peer = Peer(stream, self.sealer(node, self.incarnation), channel, node)
            await self.peer.send(self.welcome(node, hello.region))
        self._tell()

    def certificate(self, node: bytes, region: str = "", life_ms: int = 86_400_000) -> bytes:
        said = Certificate(peer_id=peer_id(node), region=region or self.region, expires_ms=self.clock_ms() + life_ms)
        return self.sealer(ANYONE, self.incarnation).seal(said)

    def welcome(self, node: bytes, region: str = "") -> Welcome:
        return Welcome(
            incarnation=self.incarnation,
            account_id=ACCOUNT,
            clock_ms=self.clock_ms(),
            heartbeat_s=self.heartbeat_s,
            offer_s=30,
            telemetry_s=0.2,
            artifact_url=self.artifact_url,
            certificate=self.certificate(node, region),
        )

    async def _hear(self, stream: Stream, raw: bytes) -> None:
        if label_of(raw) == "hello" and self.on_hello is not None:
            await self._hear_hello(raw, self.on_hello)
            return
        assert self.peer is not None
        try:
            envelope = self.peer.channel.decrypt(raw)
        except BadSignature:
            return  # said before the session was renewed
        opened = open_envelope(envelope, network=NETWORK, audience=self.key.public, now_ms=self.clock_ms())
        if opened.header.incarnation != self.incarnation:
            return  # said before the session was renewed
        message: Message = opened.body(FromNode)  # type: ignore[arg-type]
        self.heard.append(message)
        self.opened.append(opened)
        self._tell()
        if self.acknowledges and self.peer is not None:
            if isinstance(message, Progress) and message.link is not None:
                index = message.link.index
                await self.peer.send(Acknowledged(attempt_id=message.attempt_id, fence=message.fence, link=index))
            elif isinstance(message, Report):
                await self.peer.send(Acknowledged(attempt_id=message.attempt_id, fence=message.fence))

    async def _hear_hello(self, raw: bytes, answer: Callable[[bytes], Awaitable[None]]) -> None:
        assert self.peer is not None
        assert self.again is not None
        exchange, nonce = self.again
        self.peer.channel = exchange.channel(exchange_in(raw), nonce=nonce, side=Side.COORDINATOR)
        envelope = self.peer.channel.decrypt(raw)
        opened = open_envelope(envelope, network=NETWORK, audience=self.key.public, now_ms=self.clock_ms())
        self.hellos.append(opened.body(Hello))
        await answer(self.hellos[-1].nonce)
        self._tell()

    async def send(self, message: Message) -> None:
        """On the session of now, or the next one."""
        await self.until(lambda: self.peer is not None)
        assert self.peer is not None
        await self.peer.send(message)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Looked at whenever something is heard."""
        with trio.fail_after(DEADLINE_S):
            while not condition():
                await self._changed.wait()

    def all(self, kind: type[M]) -> list[M]:
        return [message for message in self.heard if isinstance(message, kind)]

    def links(self) -> list[Progress]:
        """Progress with a link, each index once, in order of first hearing."""
        found = {(p.attempt_id, p.link.index): p for p in reversed(self.all(Progress)) if p.link is not None}
        return [found[key] for key in sorted(found)]

    async def wait_for(self, kind: type[M], which: Callable[[M], bool] = lambda _: True) -> M:
        """The first one heard that fits, now or later."""
        await self.until(lambda: any(which(message) for message in self.all(kind)))
        return next(message for message in self.all(kind) if which(message))

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
