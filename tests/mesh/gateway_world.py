# SPDX-License-Identifier: Apache-2.0
"""What the gateway tests share: a stand-in for the coordinator that speaks the link, and nodes that speak envelopes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from qubix_mesh.gateway.app import Gateway
from qubix_mesh.gateway.settings import Settings
from qubix_mesh.nursery import plain_nursery
from qubix_mesh.port import Mesh, Stream
from qubix_protocol.envelope import ANYONE, seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.link import (
    LINK_PATH,
    FromGateway,
    FromPeer,
    LinkOpen,
    LinkReady,
    PeerDown,
    PeerUp,
    ToGateway,
    decode_gateway,
    encode_coordinator,
)
from qubix_protocol.messages import Message, Refused, Telemetry
from qubix_protocol.units import CONTROL_PROTOCOL, FRAME_BYTES_MAX
from tests.mesh.adverts_world import COORDINATOR, START_MS, coordinator_ms
from tests.mesh.mesh_world import DEADLINE_S, World, seed, until

TOKEN = "gateway-secret"
TOPIC = "qubix/devnet/offers/local"
T = TypeVar("T")
_numbers = count(1)


def ready(*topics: str, **changes: Any) -> LinkReady:
    given: dict[str, Any] = {"network": "devnet", "coordinator": COORDINATOR.public, "clock_ms": START_MS}
    return LinkReady(topics=topics, **{**given, **changes})


class Desk:
    """The coordinator's end of the link. `batches` is what came, message by message."""

    def __init__(self) -> None:
        self.port = 0
        self.ready = ready(TOPIC)
        self.batches: list[tuple[FromGateway, ...]] = []
        self.links = 0
        self.refused = 0
        self.reads = True
        self._socket: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def items(self) -> list[FromGateway]:
        return [item for batch in self.batches for item in batch]

    def of(self, kind: type[T]) -> list[T]:
        return [item for item in self.items if isinstance(item, kind)]

    def frames(self, peer_id: str) -> list[bytes]:
        return [frame for item in self.of(FromPeer) if item.peer_id == peer_id for frame in item.frames]

    def live(self) -> set[str]:
        """Whom the gateway says it has, by its last words on the newest link."""
        live: set[str] = set()
        for item in self.items:
            if isinstance(item, LinkOpen):
                live.clear()
            elif isinstance(item, PeerUp):
                live.add(item.peer_id)
            elif isinstance(item, PeerDown):
                live.discard(item.peer_id)
        return live

    async def say(self, *items: ToGateway) -> None:
        await self._socket.send_message(encode_coordinator(items))

    async def say_raw(self, message: bytes | str) -> None:
        await self._socket.send_message(message)

    async def hang_up(self) -> None:
        await self._socket.aclose()

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_websocket, self._handle, "127.0.0.1", port, None)
            self.port = server.port
            yield
            nursery.cancel_scope.cancel()

    async def _handle(self, request: WebSocketRequest) -> None:
        headers = dict(request.headers)
        if request.path != LINK_PATH or headers.get(b"authorization") != b"Bearer " + TOKEN.encode():
            self.refused += 1
            await request.reject(401)
            return
        socket = await request.accept()
        try:
            self.batches.append(await _batch(socket))
            self._socket = socket
            self.links += 1
            await self.say(msgspec.structs.replace(self.ready, clock_ms=coordinator_ms()))
            while True:
                await self._until_reading()
                self.batches.append(await _batch(socket))
        except ConnectionClosed:
            return

    async def _until_reading(self) -> None:
        while not self.reads:  # noqa: ASYNC110  a test flips it
            await trio.sleep(0.01)


async def _batch(socket: Any) -> tuple[FromGateway, ...]:
    return decode_gateway(await socket.get_message())


@asynccontextmanager
async def running_gateway(world: World, desk: Desk, **changes: Any) -> AsyncIterator[tuple[Gateway, Mesh]]:
    """However slow the link comes, nodes wait for it, unless a test says otherwise."""
    with TemporaryDirectory() as folder:
        given = {"data_dir": Path(folder), "link_patience_s": 3600.0, **changes}
        async with plain_nursery() as nursery, world.open(100) as mesh:
            gateway = Gateway(mesh, Settings(token=TOKEN, coordinator_url=desk.url, **given))
            nursery.start_soon(gateway.run)
            yield gateway, mesh
            nursery.cancel_scope.cancel()


class Node:
    """A node's side of the control stream."""

    def __init__(self, key: SigningKey, mesh: Mesh, stream: Stream) -> None:
        self.key, self.mesh, self.stream = key, mesh, stream
        self.peer_id = key.peer_id

    async def say(self, *frames: bytes) -> None:
        for frame in frames:
            await self.stream.send(frame, timeout_s=10)

    async def hear(self) -> bytes:
        return await self.stream.receive(limit_bytes=FRAME_BYTES_MAX, timeout_s=10)


@asynccontextmanager
async def connected_node(world: World, number: int, gateway: Mesh) -> AsyncIterator[Node]:
    async with world.open(number, listen=()) as mesh:
        await mesh.connect(gateway.addresses[0], timeout_s=10)
        stream = await mesh.open_stream(gateway.peer_id, CONTROL_PROTOCOL, timeout_s=10)
        yield Node(SigningKey(seed(number)), mesh, stream)


def envelope(message: Message, key: SigningKey, network: str = "devnet") -> bytes:
    return seal(
        message,
        key,
        network=network,  # type: ignore[arg-type]
        audience=ANYONE,
        incarnation=1,
        counter=next(_numbers),
        expires_ms=1_000,
    )


def control(key: SigningKey, text: str = "x") -> bytes:
    return envelope(Refused(code="test", detail=text), key)


def telemetry(key: SigningKey) -> bytes:
    return envelope(Telemetry(samples=()), key)


async def eventually(condition: Callable[[], object]) -> None:
    with trio.fail_after(DEADLINE_S):
        await until(lambda: bool(condition()))
