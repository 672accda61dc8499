# SPDX-License-Identifier: Apache-2.0
"""A signed request and its signed answer over our control stream, beside a bare libp2p stream and raw TCP.

All three carry the same bytes between two ends in one process. "Signed" means sealed, opened, verified and guarded
against replay on both sides, as every statement between a node and the coordinator is.
"""

import statistics
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as new_noise_key
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import PeerInfo
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from bench.figures import Figure, beside
from qubix_mesh.host import open_mesh
from qubix_mesh.port import Mesh, Stream
from qubix_protocol.channel import Channel, SessionKeys, Side
from qubix_protocol.envelope import ReplayGuard, Sealer, open_envelope
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Heartbeat
from qubix_protocol.units import CONTROL_PROTOCOL, FRAME_BYTES_MAX

_CALLS = 300
_ROUNDS = 5
_LENGTH = struct.Struct(">I")
Call = Callable[[], Awaitable[None]]


def run() -> list[Figure]:
    return trio.run(_run)


async def _run() -> list[Figure]:
    node, coordinator = SigningKey.generate(), SigningKey.generate()
    size = len(_sealer(node, coordinator).seal(Heartbeat()))
    async with _ours(node, coordinator) as ours, _bare(size) as bare, _tcp(size) as tcp:
        times: dict[str, list[float]] = {"ours": [], "bare": [], "tcp": []}
        for _ in range(_ROUNDS):  # interleaved, so that a noisy moment hits all three
            for name, call in (("ours", ours), ("bare", bare), ("tcp", tcp)):
                times[name].append(await _median_ms(call))
    found = {name: statistics.median(values) for name, values in times.items()}
    return [
        beside(
            "control round trip", found["ours"], "ms", limit=found["bare"], limit_name="bare libp2p stream", at_most=2
        ),
        beside("control round trip", found["ours"], "ms", limit=found["tcp"], limit_name="raw TCP, nothing signed"),
    ]


async def _median_ms(call: Call) -> float:
    await call()
    times = []
    for _ in range(_CALLS):
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _sealer(key: SigningKey, to: SigningKey) -> Sealer:
    return Sealer(key, network="devnet", audience=to.public, incarnation=1, clock_ms=_now_ms)


class _Side:
    """One end of a session: signs and encrypts what it says, believes only what it may."""

    def __init__(self, key: SigningKey, other: SigningKey, stream: Stream, side: Side) -> None:
        self._key, self._other, self._stream = key, other, stream
        self._sealer, self._guard = _sealer(key, other), ReplayGuard(1)
        self._channel = Channel(SessionKeys(b"n" * 32, b"c" * 32), side)

    async def say(self) -> None:
        await self._stream.send(self._channel.encrypt(self._sealer.seal(Heartbeat())), timeout_s=10)

    async def hear(self) -> None:
        raw = await self._stream.receive(limit_bytes=FRAME_BYTES_MAX, timeout_s=10)
        opened = open_envelope(
            self._channel.decrypt(raw),
            network="devnet",
            audience=self._key.public,
            now_ms=_now_ms(),
            sender=self._other.public,
        )
        self._guard.check(opened)
        opened.body(Heartbeat)


@asynccontextmanager
async def _ours(node: SigningKey, coordinator: SigningKey) -> AsyncIterator[Call]:
    async with open_mesh(node.seed) as a, open_mesh(coordinator.seed) as b:
        _answer(b, coordinator, node)
        await a.connect(b.addresses[0], timeout_s=10)
        side = _Side(node, coordinator, await a.open_stream(b.peer_id, CONTROL_PROTOCOL, timeout_s=10), Side.NODE)

        async def call() -> None:
            await side.say()
            await side.hear()

        yield call


def _answer(mesh: Mesh, key: SigningKey, other: SigningKey) -> None:
    async def serve(stream: Stream) -> None:
        side = _Side(key, other, stream, Side.COORDINATOR)
        while True:
            await side.hear()
            await side.say()

    mesh.on_stream(CONTROL_PROTOCOL, serve)


@asynccontextmanager
async def _bare(size: int) -> AsyncIterator[Call]:
    """py-libp2p as it is, with Noise and yamux, echoing frames of the same size."""
    a, b = _host(), _host()
    listen = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
    b.set_stream_handler("/echo/1", _echo)
    async with a.run(listen_addrs=listen), b.run(listen_addrs=listen):
        await a.connect(PeerInfo(b.get_id(), b.get_transport_addrs()))
        stream = await a.new_stream(b.get_id(), ["/echo/1"])
        frame = _LENGTH.pack(size) + bytes(size)

        async def call() -> None:
            await stream.write(frame)
            await _exactly(stream.read, len(frame))

        yield call


def _host() -> Any:
    pair = create_new_key_pair()
    noise = NoiseTransport(pair, noise_privkey=new_noise_key().private_key)
    return new_host(key_pair=pair, sec_opt={NOISE_ID: noise}, muxer_opt={TProtocol(YAMUX_ID): Yamux})


async def _echo(stream: Any) -> None:
    while True:
        head = await _exactly(stream.read, _LENGTH.size)
        await stream.write(head + await _exactly(stream.read, _LENGTH.unpack(head)[0]))


@asynccontextmanager
async def _tcp(size: int) -> AsyncIterator[Call]:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, _echo_tcp, listeners)
        stream = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
        frame = _LENGTH.pack(size) + bytes(size)

        async def call() -> None:
            await stream.send_all(frame)
            await _exactly(stream.receive_some, len(frame))

        yield call
        nursery.cancel_scope.cancel()


async def _echo_tcp(stream: trio.SocketStream) -> None:
    while True:
        head = await _exactly(stream.receive_some, _LENGTH.size)
        await stream.send_all(head + await _exactly(stream.receive_some, _LENGTH.unpack(head)[0]))


async def _exactly(read: Callable[[int], Awaitable[bytes]], size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await read(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data
