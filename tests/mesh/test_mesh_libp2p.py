# SPDX-License-Identifier: Apache-2.0
"""What only the real mesh can show: encryption, strangers' nonsense, stopped processes."""

import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from qubix_mesh.errors import DialFailed, NotListening, StreamClosed
from qubix_mesh.framing import FramedStream
from qubix_mesh.host import Health, open_mesh
from qubix_mesh.p2p import libp2p
from qubix_mesh.p2p.connection import STREAMS_PER_PEER_MAX
from qubix_mesh.port import Mesh, Stream
from qubix_protocol.keys import SigningKey
from tests.mesh.mesh_world import DEADLINE_S, ECHO, LIMIT, echo, repeat_until, seed, until
from tests.support.ports import held_port

from libp2p.crypto.ed25519 import create_new_key_pair  # isort: skip
from libp2p.network.exceptions import SwarmException  # isort: skip
from libp2p.peer.id import ID  # isort: skip
from libp2p.peer.peerinfo import info_from_p2p_addr  # isort: skip
from libp2p.pubsub.pb import rpc_pb2  # isort: skip
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport  # isort: skip
from libp2p.utils import encode_varint_prefixed  # isort: skip
from multiaddr import Multiaddr  # isort: skip

pytestmark = pytest.mark.trio
GOSSIP = "/meshsub/1.1.0"
TOPIC = "test/offers"


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Mesh, Mesh]]:
    async with open_mesh(seed(1)) as one, open_mesh(seed(2)) as two:
        two.on_stream(ECHO, echo)
        await one.connect(two.addresses[0], timeout_s=10)
        await two.wait_connected(one.peer_id)
        yield one, two


async def assert_echoes(one: Mesh, two: Mesh) -> None:
    stream = await one.open_stream(two.peer_id, ECHO, timeout_s=10)
    await stream.send(b"alive", timeout_s=10)
    assert await stream.receive(limit_bytes=LIMIT, timeout_s=10) == b"alive"


async def test_a_plaintext_host_is_refused() -> None:
    keys = create_new_key_pair()
    plain = libp2p.new_host(key_pair=keys, sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(keys)})
    async with open_mesh(seed(1)) as mesh, plain.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        with pytest.raises(SwarmException):
            await plain.connect(info_from_p2p_addr(Multiaddr(mesh.addresses[0])))
        with pytest.raises(DialFailed):
            await mesh.connect(f"{plain.get_transport_addrs()[0]}/p2p/{plain.get_id()}", timeout_s=10)
        assert mesh.connected() == frozenset()
        await plain.close()


async def test_noise_is_what_a_connection_uses() -> None:
    async with pair() as (one, _):
        network = one._network  # type: ignore[attr-defined]
        (connection,) = network.get_connections()
        assert type(connection.muxed_conn.secured_conn).__module__.startswith("libp2p.security.secure_session")
        assert list(network.upgrader.security_multistream.transports) == ["/noise"]


async def test_nonsense_on_the_port_harms_nobody() -> None:
    async with pair() as (one, two):
        host, port = two.addresses[0].split("/")[2], int(two.addresses[0].split("/")[4])
        noise = random.Random(1).randbytes(4096)
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", noise, b"\x13/multistream/1.0.0\n\xff\xff\xff\xff"):
            socket = await trio.open_tcp_stream(host, port)
            await socket.send_all(garbage)
            await socket.aclose()
        await assert_echoes(one, two)


async def test_nonsense_on_a_gossip_stream_harms_nobody() -> None:
    async with pair() as (one, two), two.subscribe(TOPIC, lambda *_: True, capacity=8) as heard:
        noise = random.Random(1).randbytes(200)
        for garbage in (b"\xff" * 64, encode_varint_prefixed(noise), encode_varint_prefixed(b"\x0a\xff")):
            stream = await one.open_stream(two.peer_id, GOSSIP, timeout_s=10)
            assert isinstance(stream, FramedStream)
            await stream._pipe.write(garbage)
        await assert_echoes(one, two)
        await repeat_until(lambda: one.publish(TOPIC, b"fine"), lambda: len(heard) > 0)  # type: ignore[arg-type]


async def test_a_message_in_another_authors_name_is_dropped() -> None:
    author = ID.from_base58(SigningKey(seed(3)).peer_id).to_bytes()
    forged = rpc_pb2.Message(data=b"forged", topicIDs=[TOPIC], from_id=author, seqno=b"1" * 8, signature=bytes(64))
    async with pair() as (one, two), two.subscribe(TOPIC, lambda *_: True, capacity=8) as heard:
        stream = await one.open_stream(two.peer_id, GOSSIP, timeout_s=10)
        assert isinstance(stream, FramedStream)
        await stream._pipe.write(encode_varint_prefixed(rpc_pb2.RPC(publish=[forged]).SerializeToString()))
        await repeat_until(lambda: one.publish(TOPIC, b"fine"), lambda: len(heard) > 0)  # type: ignore[arg-type]
        async for message in heard:
            assert (message.author, message.data) == (one.peer_id, b"fine")
            break


async def test_one_peer_gets_a_limited_number_of_streams() -> None:
    async with pair() as (one, two):
        waiting: list[Stream] = []

        async def wait(stream: Stream) -> None:
            waiting.append(stream)
            await trio.sleep_forever()

        two.on_stream("/test/wait/1", wait)

        async def open_too_many() -> None:
            for _ in range(STREAMS_PER_PEER_MAX + 1):
                await one.open_stream(two.peer_id, "/test/wait/1", timeout_s=10)

        with pytest.raises(StreamClosed):
            await open_too_many()
        assert len(waiting) <= STREAMS_PER_PEER_MAX
        assert one.peer_id in two.connected()


async def test_a_restarted_author_is_heard_at_once() -> None:
    """Its numbers go on where those of the life before ended: what has a number from before is a replay to others."""
    heard: list[bytes] = []
    numbers: list[int] = []

    def judge(author: str, data: bytes) -> bool:
        heard.append(data)
        return True

    async with open_mesh(seed(2)) as two, two.subscribe(TOPIC, judge, capacity=8):
        for data in (b"first life", b"second life"):
            async with open_mesh(seed(1)) as one:
                numbers.append(one._gossip.counter)  # type: ignore[attr-defined]
                await one.connect(two.addresses[0], timeout_s=10)
                await repeat_until(lambda: one.publish(TOPIC, data), lambda: data in heard)  # noqa: B023
                numbers.append(one._gossip.counter)  # type: ignore[attr-defined]
    assert numbers == sorted(set(numbers))


async def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.RaisesGroup(NotListening, flatten_subgroups=True, allow_unwrapped=True):
        async with open_mesh(seed(1), listen=("/ip4/203.0.113.1/tcp/4001",)):
            pass


async def test_an_open_mesh_survives_a_dead_dial_and_dials_again_at_once() -> None:
    """libp2p alone would refuse the peer for 60 s after the first failure."""
    with held_port() as port:
        transport = f"/ip4/127.0.0.1/tcp/{port}"
        address = f"{transport}/p2p/{SigningKey(seed(2)).peer_id}"
        async with open_mesh(seed(1)) as one:
            with pytest.raises(DialFailed):
                await one.connect(address, timeout_s=10)
            async with open_mesh(seed(2), listen=(transport,)):
                await one.connect(address, timeout_s=10)


_CHILD = """
import sys, trio
from qubix_mesh.host import open_mesh
async def main():
    async with open_mesh(bytes([2]) * 32, listen=()) as mesh:
        await mesh.keep_connected(sys.argv[1])
trio.run(main)
"""


def start_child(address: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _CHILD, address])


async def test_a_stopped_peer_is_noticed_and_heard_again_when_it_goes_on() -> None:
    health = Health(interval_s=0.1, ping_s=2.0, misses=2)
    async with open_mesh(seed(1), health=health) as mesh:
        child = start_child(mesh.addresses[0])
        try:
            with trio.fail_after(2 * DEADLINE_S):
                await until(lambda: bool(mesh.connected()))
                (peer,) = mesh.connected()
                await trio.sleep(1)
                assert mesh.connected() == {peer}, "an answering peer keeps its connection"
                child.send_signal(signal.SIGSTOP)
                await mesh.wait_disconnected(peer)
                child.send_signal(signal.SIGCONT)
                await mesh.wait_connected(peer)
        finally:
            child.kill()
            child.wait()
