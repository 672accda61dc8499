# SPDX-License-Identifier: Apache-2.0
"""One suite that the real mesh and the fake one both pass."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.lowlevel import current_statistics

from qubix_mesh.errors import (
    AlreadySubscribed,
    BadAddress,
    DialFailed,
    FrameTooLarge,
    MeshTimeout,
    NotConnected,
    StreamClosed,
)
from qubix_mesh.framing import FramedStream
from qubix_mesh.port import Mesh, Stream
from qubix_protocol.keys import SigningKey
from qubix_protocol.units import GOSSIP_BYTES_MAX
from tests.mesh.mesh_world import DEADLINE_S, ECHO, LIMIT, World, echo, open_sockets, repeat_until, seed, until
from tests.support.ports import held_port

pytestmark = pytest.mark.trio
TOPIC = "test/offers"


@pytest.fixture(params=["real", "fake"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


@asynccontextmanager
async def pair(world: World) -> AsyncIterator[tuple[Mesh, Mesh]]:
    async with world.open(1) as one, world.open(2) as two:
        two.on_stream(ECHO, echo)
        await one.connect(two.addresses[0], timeout_s=10)
        await two.wait_connected(one.peer_id)
        yield one, two


@asynccontextmanager
async def at_a_port() -> AsyncIterator[str]:
    """An address to listen on more than once, which nobody else gets in between."""
    with held_port() as port:
        yield f"/ip4/127.0.0.1/tcp/{port}"


async def ask(mesh: Mesh, peer_id: str, protocol: str) -> bytes:
    stream = await mesh.open_stream(peer_id, protocol, timeout_s=10)
    return await stream.receive(limit_bytes=LIMIT, timeout_s=10)


async def test_the_peer_id_is_the_key_of_the_seed(world: World) -> None:
    async with world.open(7) as mesh:
        assert mesh.peer_id == SigningKey(seed(7)).peer_id
        assert mesh.addresses[0].endswith(f"/p2p/{mesh.peer_id}")
        assert "/tcp/0/" not in mesh.addresses[0]


async def test_each_side_sees_where_the_other_comes_from(world: World) -> None:
    async with world.open(1) as one, world.open(2, listen=()) as two:
        assert one.remote_ip(two.peer_id) == ""
        await two.connect(one.addresses[0], timeout_s=10)
        await until(lambda: two.peer_id in one.connected())
        assert (one.remote_ip(two.peer_id), two.remote_ip(one.peer_id)) == ("127.0.0.1", "127.0.0.1")


async def test_frames_go_both_ways_whole_and_in_order(world: World) -> None:
    frames = [b"", b"a", b"x" * LIMIT, *(b"%d" % number for number in range(50))]
    async with pair(world) as (one, two):
        stream = await one.open_stream(two.peer_id, ECHO, timeout_s=10)
        assert stream.peer_id == two.peer_id
        for frame in frames:
            await stream.send(frame, timeout_s=10)
        assert [await stream.receive(limit_bytes=LIMIT, timeout_s=10) for _ in frames] == frames


async def test_both_sides_of_one_connection_open_streams_and_know_each_other(world: World) -> None:
    async with pair(world) as (one, two):
        seen: list[str] = []

        async def note(stream: Stream) -> None:
            seen.append(stream.peer_id)
            await stream.send(b"noted", timeout_s=10)

        one.on_stream("/test/note/1", note)
        stream = await two.open_stream(one.peer_id, "/test/note/1", timeout_s=10)
        assert await stream.receive(limit_bytes=LIMIT, timeout_s=10) == b"noted"
        assert seen == [two.peer_id]


async def test_many_streams_at_once(world: World) -> None:
    answers: dict[int, bytes] = {}
    async with pair(world) as (one, two), trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            stream = await one.open_stream(two.peer_id, ECHO, timeout_s=20)
            await stream.send(b"%d" % number, timeout_s=20)
            answers[number] = await stream.receive(limit_bytes=LIMIT, timeout_s=20)
            await stream.close()

        for number in range(100):
            nursery.start_soon(ask, number)
    assert answers == {number: b"%d" % number for number in range(100)}


async def test_sends_of_several_tasks_on_one_stream_stay_whole(world: World) -> None:
    frames = {bytes([number]) * 20_000 for number in range(20)}
    async with pair(world) as (one, two):
        stream = await one.open_stream(two.peer_id, ECHO, timeout_s=10)
        async with trio.open_nursery() as nursery:
            for frame in frames:
                nursery.start_soon(lambda frame=frame: stream.send(frame, timeout_s=20))
            back = {await stream.receive(limit_bytes=LIMIT, timeout_s=20) for _ in frames}
    assert back == frames


async def test_a_frame_over_the_limit_is_refused_and_the_sender_learns_it(world: World) -> None:
    refused = trio.Event()
    async with pair(world) as (one, two):

        async def small(stream: Stream) -> None:
            with pytest.raises(FrameTooLarge):
                await stream.receive(limit_bytes=10, timeout_s=10)
            refused.set()
            await trio.sleep_forever()

        two.on_stream("/test/small/1", small)
        stream = await one.open_stream(two.peer_id, "/test/small/1", timeout_s=10)
        await stream.send(b"x" * 11, timeout_s=10)
        with pytest.raises(StreamClosed):
            await stream.receive(limit_bytes=10, timeout_s=10)
        assert refused.is_set()


async def test_a_claim_of_2_gib_is_refused_without_its_bytes(world: World) -> None:
    refused = trio.Event()
    async with pair(world) as (one, two):

        async def generous(stream: Stream) -> None:
            with pytest.raises(FrameTooLarge):
                await stream.receive(limit_bytes=2**30, timeout_s=10)
            refused.set()

        two.on_stream("/test/generous/1", generous)
        stream = await one.open_stream(two.peer_id, "/test/generous/1", timeout_s=10)
        assert isinstance(stream, FramedStream)
        await stream._pipe.write((2**31).to_bytes(4, "big"))
        with trio.fail_after(DEADLINE_S):
            await refused.wait()


async def test_a_receive_that_times_out_loses_nothing(world: World) -> None:
    async with pair(world) as (one, two):
        stream = await one.open_stream(two.peer_id, ECHO, timeout_s=10)
        with pytest.raises(MeshTimeout):
            await stream.receive(limit_bytes=LIMIT, timeout_s=0.05)
        await stream.send(b"later", timeout_s=10)
        assert await stream.receive(limit_bytes=LIMIT, timeout_s=10) == b"later"


async def test_a_send_that_nobody_reads_times_out_and_ends_the_stream(world: World) -> None:
    async with pair(world) as (one, two):

        async def deaf(stream: Stream) -> None:
            await trio.sleep_forever()

        two.on_stream("/test/deaf/1", deaf)
        stream = await one.open_stream(two.peer_id, "/test/deaf/1", timeout_s=10)
        with pytest.raises(MeshTimeout):
            await stream.send(b"x" * 4_000_000, timeout_s=0.3)
        with pytest.raises(StreamClosed):
            await stream.send(b"more", timeout_s=1)
        echoed = await one.open_stream(two.peer_id, ECHO, timeout_s=10)
        await echoed.send(b"the connection stands", timeout_s=10)
        assert await echoed.receive(limit_bytes=LIMIT, timeout_s=10) == b"the connection stands"


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_the_end_of_a_stream_is_seen_by_the_other_side(world: World, how: str) -> None:
    async with pair(world) as (one, two):
        ended = trio.Event()

        async def wait(stream: Stream) -> None:
            with pytest.raises(StreamClosed):
                await stream.receive(limit_bytes=LIMIT, timeout_s=None)
            ended.set()

        two.on_stream("/test/wait/1", wait)
        stream = await one.open_stream(two.peer_id, "/test/wait/1", timeout_s=10)
        await getattr(stream, how)()
        with trio.fail_after(DEADLINE_S):
            await ended.wait()


async def test_what_was_sent_before_close_arrives(world: World) -> None:
    async with pair(world) as (one, two):
        got: list[bytes] = []

        async def collect(stream: Stream) -> None:
            try:
                while True:
                    got.append(await stream.receive(limit_bytes=LIMIT, timeout_s=None))
            except StreamClosed:
                got.append(b"end")

        two.on_stream("/test/collect/1", collect)
        stream = await one.open_stream(two.peer_id, "/test/collect/1", timeout_s=10)
        await stream.send(b"last", timeout_s=10)
        await stream.close()
        await until(lambda: got[-1:] == [b"end"])
        assert got == [b"last", b"end"]


async def test_a_handler_that_raises_ends_its_own_stream_and_nothing_else(world: World) -> None:
    async with pair(world) as (one, two):

        async def faulty(stream: Stream) -> None:
            raise RuntimeError("planted")

        two.on_stream("/test/faulty/1", faulty)
        with pytest.raises(StreamClosed):
            await ask(one, two.peer_id, "/test/faulty/1")
        echoed = await one.open_stream(two.peer_id, ECHO, timeout_s=10)
        await echoed.send(b"still here", timeout_s=10)
        assert await echoed.receive(limit_bytes=LIMIT, timeout_s=10) == b"still here"
        assert two.counters.handler_failed == 1


async def test_a_protocol_that_nobody_answers_is_refused(world: World) -> None:
    async with pair(world) as (one, two):
        with pytest.raises(StreamClosed):
            await one.open_stream(two.peer_id, "/test/unknown/1", timeout_s=10)


async def test_no_stream_without_a_connection(world: World) -> None:
    async with world.open(1) as one:
        with pytest.raises(NotConnected):
            await one.open_stream(SigningKey(seed(9)).peer_id, ECHO, timeout_s=10)


async def test_disconnect_is_seen_by_both_and_ends_streams(world: World) -> None:
    async with pair(world) as (one, two):
        stream = await one.open_stream(two.peer_id, ECHO, timeout_s=10)
        await two.disconnect(one.peer_id)
        with trio.fail_after(DEADLINE_S):
            await one.wait_disconnected(two.peer_id)
            await two.wait_disconnected(one.peer_id)
        with pytest.raises(StreamClosed):
            await stream.receive(limit_bytes=LIMIT, timeout_s=10)
        assert one.connected() == two.connected() == frozenset()


@pytest.mark.parametrize("address", ["", "nonsense", "/ip4/127.0.0.1/tcp/1", "/ip4/1.2.3.4/udp/1/quic-v1", "/p2p/x"])
async def test_a_bad_address_says_so(world: World, address: str) -> None:
    async with world.open(1) as one:
        with pytest.raises(BadAddress):
            await one.connect(address, timeout_s=1)
        with pytest.raises(BadAddress), trio.fail_after(DEADLINE_S):
            await one.keep_connected(address)


async def test_our_own_address_is_not_dialled(world: World) -> None:
    async with world.open(1) as one:
        with pytest.raises(BadAddress):
            await one.connect(one.addresses[0], timeout_s=1)


async def test_an_address_with_another_peers_id_is_refused(world: World) -> None:
    async with world.open(1) as one, world.open(2) as two:
        transport = two.addresses[0].partition("/p2p/")[0]
        with pytest.raises(DialFailed):
            await one.connect(f"{transport}/p2p/{SigningKey(seed(9)).peer_id}", timeout_s=10)
        assert one.connected() == frozenset()
        assert one.counters.dials_failed == 1


async def test_nobody_there_is_a_failed_dial(world: World) -> None:
    async with world.open(1) as one:
        async with world.open(2) as two:
            address = two.addresses[0]
        with pytest.raises(DialFailed):
            await one.connect(address, timeout_s=10)


async def test_an_address_that_is_no_plain_tcp_address_is_not_listened_on(world: World) -> None:
    with pytest.raises(BadAddress):
        async with world.open(1, listen=("/ip4/127.0.0.1/tcp/0/ws",)):
            pass


async def test_keep_connected_comes_back_when_the_peer_does(world: World) -> None:
    async with world.open(1) as one, trio.open_nursery() as nursery, at_a_port() as address:
        async with world.open(2, listen=(address,)) as two:
            nursery.start_soon(one.keep_connected, two.addresses[0])
            with trio.fail_after(DEADLINE_S):
                await one.wait_connected(two.peer_id)
        with trio.fail_after(DEADLINE_S):
            await one.wait_disconnected(two.peer_id)
        async with world.open(2, listen=(address,)) as again:
            again.on_stream(ECHO, echo)
            with trio.fail_after(DEADLINE_S):
                await one.wait_connected(again.peer_id)
            stream = await one.open_stream(again.peer_id, ECHO, timeout_s=10)
            await stream.send(b"back", timeout_s=10)
            assert await stream.receive(limit_bytes=LIMIT, timeout_s=10) == b"back"
            nursery.cancel_scope.cancel()


async def test_keep_connected_tries_until_the_peer_appears(world: World) -> None:
    async with world.open(1) as one, trio.open_nursery() as nursery, at_a_port() as address:
        nursery.start_soon(one.keep_connected, f"{address}/p2p/{SigningKey(seed(2)).peer_id}")
        await until(lambda: one.counters.dials_failed >= 2)
        async with world.open(2, listen=(address,)) as two:
            with trio.fail_after(DEADLINE_S):
                await one.wait_connected(two.peer_id)
            nursery.cancel_scope.cancel()


async def test_a_message_reaches_a_subscriber_with_its_author(world: World) -> None:
    async with pair(world) as (one, two), two.subscribe(TOPIC, lambda *_: True, capacity=8) as heard:
        found: list[tuple[str, str, bytes]] = []

        async def listen() -> None:
            async for message in heard:
                found.append((message.author, message.topic, message.data))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await repeat_until(lambda: one.publish(TOPIC, b"offer"), lambda: bool(found))
            nursery.cancel_scope.cancel()
        assert found[0] == (one.peer_id, TOPIC, b"offer")


async def test_a_message_crosses_a_subscriber_to_the_next_one(world: World) -> None:
    async with pair(world) as (one, two), world.open(3) as three:
        await three.connect(two.addresses[0], timeout_s=10)
        found: list[str] = []

        async def listen() -> None:
            async with three.subscribe(TOPIC, lambda *_: True, capacity=8) as heard:
                async for message in heard:
                    found.append(message.author)

        async with two.subscribe(TOPIC, lambda *_: True, capacity=8), trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await repeat_until(lambda: one.publish(TOPIC, b"offer"), lambda: bool(found))
            nursery.cancel_scope.cancel()
        assert set(found) == {one.peer_id}
        assert one.peer_id not in three.connected()


async def test_refused_and_raising_validators_drop_the_message_alone(world: World) -> None:
    def judge(author: str, data: bytes) -> bool:
        if data == b"raise":
            raise RuntimeError("planted")
        return data != b"refuse"

    async with pair(world) as (one, two), two.subscribe(TOPIC, judge, capacity=64) as heard:
        found: list[bytes] = []

        async def listen() -> None:
            async for message in heard:
                found.append(message.data)

        async def say() -> None:
            for data in (b"refuse", b"raise", b"good"):
                await one.publish(TOPIC, data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await repeat_until(say, lambda: found.count(b"good") >= 3)
            nursery.cancel_scope.cancel()
        assert set(found) == {b"good"}
        assert two.counters.validator_failed >= 1
        assert two.counters.gossip_invalid >= 1
        stream = await one.open_stream(two.peer_id, ECHO, timeout_s=10)
        await stream.send(b"alive", timeout_s=10)
        assert await stream.receive(limit_bytes=LIMIT, timeout_s=10) == b"alive"


async def test_a_full_topic_keeps_the_newest_and_counts_the_rest(world: World) -> None:
    """What is said at one moment may arrive in any order: each of the newest waits for the one before it."""
    come: list[bytes] = []

    def judge(author: str, data: bytes) -> bool:
        come.append(data)
        return True

    async with pair(world) as (one, two), two.subscribe(TOPIC, judge, capacity=3) as heard:
        await repeat_until(lambda: one.publish(TOPIC, b"early"), lambda: heard.dropped >= 1)
        latest = [b"late-%d" % number for number in range(3)]
        for data in latest:
            await one.publish(TOPIC, data)
            await until(lambda data=data: data in come)
        await until(lambda: heard.dropped == len(come) - len(latest))
        kept: list[bytes] = []
        async for message in heard:
            kept.append(message.data)
            if len(kept) == len(latest):
                break
        assert kept == latest
        assert two.counters.gossip_overflow == heard.dropped


async def test_an_oversized_message_is_refused_where_it_is_written(world: World) -> None:
    async with world.open(1) as one:
        with pytest.raises(FrameTooLarge):
            await one.publish(TOPIC, bytes(GOSSIP_BYTES_MAX + 1))


async def test_one_subscription_a_topic_and_again_after_it_ended(world: World) -> None:
    async with world.open(1) as one:
        async with one.subscribe(TOPIC, lambda *_: True, capacity=1):
            with pytest.raises(AlreadySubscribed):
                async with one.subscribe(TOPIC, lambda *_: True, capacity=1):
                    pass
        async with one.subscribe(TOPIC, lambda *_: True, capacity=1):
            pass


async def test_a_node_does_not_hear_itself(world: World) -> None:
    async with pair(world) as (one, two), one.subscribe(TOPIC, lambda *_: True, capacity=8) as heard:
        await one.publish(TOPIC, b"mine")
        await repeat_until(lambda: two.publish(TOPIC, b"yours"), lambda: len(heard) >= 1)  # type: ignore[arg-type]
        async for message in heard:
            assert message.data == b"yours"
            break


async def test_leaving_a_mesh_leaves_no_tasks_and_no_sockets(world: World) -> None:
    tasks, sockets = current_statistics().tasks_living, open_sockets()
    async with pair(world) as (one, two), two.subscribe(TOPIC, lambda *_: True, capacity=8):
        stream = await one.open_stream(two.peer_id, ECHO, timeout_s=10)
        await stream.send(b"x", timeout_s=10)
        await one.publish(TOPIC, b"x")
        assert current_statistics().tasks_living > tasks
    await until(lambda: current_statistics().tasks_living <= tasks and open_sockets() <= sockets)


async def test_cancelling_a_mesh_from_outside_leaves_nothing_either(world: World) -> None:
    tasks, sockets = current_statistics().tasks_living, open_sockets()
    with trio.CancelScope() as scope:
        async with pair(world) as (one, two):
            stream = await one.open_stream(two.peer_id, ECHO, timeout_s=10)
            scope.cancel()
            await stream.receive(limit_bytes=LIMIT, timeout_s=None)
    assert scope.cancelled_caught
    await until(lambda: current_statistics().tasks_living <= tasks and open_sockets() <= sockets)
