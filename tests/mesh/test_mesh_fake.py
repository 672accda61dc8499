# SPDX-License-Identifier: Apache-2.0
"""The fake mesh's weather: repeatable from its seed, and felt where it should be."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from qubix_mesh.errors import DialFailed, MeshTimeout, StreamClosed
from qubix_mesh.fake import FakeNetwork, open_fake_mesh
from qubix_mesh.port import Mesh
from tests.mesh.mesh_world import DEADLINE_S, ECHO, LIMIT, echo, seed

pytestmark = pytest.mark.trio
TOPIC = "test/offers"


@asynccontextmanager
async def pair(network: FakeNetwork) -> AsyncIterator[tuple[Mesh, Mesh]]:
    async with open_fake_mesh(network, seed(1)) as one, open_fake_mesh(network, seed(2)) as two:
        two.on_stream(ECHO, echo)
        await one.connect(two.addresses[0], timeout_s=10)
        yield one, two


async def heard_of(network: FakeNetwork, count: int) -> list[bytes]:
    """What arrives of `count` numbered messages."""
    async with pair(network) as (one, two), two.subscribe(TOPIC, lambda *_: True, capacity=10_000) as heard:
        for number in range(count):
            await one.publish(TOPIC, b"%d" % number)
            await wait_all_tasks_blocked()
        return [message.data for message in heard.take_all()]  # type: ignore[attr-defined]


async def test_fair_weather_brings_everything_once_and_in_order() -> None:
    assert await heard_of(FakeNetwork(1), 200) == [b"%d" % number for number in range(200)]


async def test_the_same_seed_is_the_same_weather() -> None:
    def storm(seed_number: int) -> FakeNetwork:
        return FakeNetwork(seed_number, drop=0.3, duplicate=0.3, reorder=0.3)

    first = await heard_of(storm(5), 200)
    assert first == await heard_of(storm(5), 200)
    assert first != await heard_of(storm(6), 200)


async def test_drop_loses_about_its_share() -> None:
    got = await heard_of(FakeNetwork(1, drop=0.5), 400)
    assert 120 < len(got) < 280
    assert len(set(got)) == len(got)


async def test_duplicate_repeats_and_reorder_swaps_without_losing() -> None:
    doubled = await heard_of(FakeNetwork(1, duplicate=1.0), 10)
    assert doubled == [b"%d" % number for number in range(10) for _ in range(2)]
    shuffled = await heard_of(FakeNetwork(1, reorder=0.5), 200)
    assert shuffled != sorted(shuffled, key=int)
    assert set(shuffled) >= {b"%d" % number for number in range(190)}


async def test_a_partition_cuts_streams_dials_and_gossip_until_it_heals() -> None:
    network = FakeNetwork(1)
    async with pair(network) as (one, two), two.subscribe(TOPIC, lambda *_: True, capacity=8) as heard:
        stream = await one.open_stream(two.peer_id, ECHO, timeout_s=10)
        network.partition([[one.peer_id], [two.peer_id]])
        with pytest.raises(StreamClosed):
            await stream.receive(limit_bytes=LIMIT, timeout_s=10)
        with pytest.raises(DialFailed):
            await one.connect(two.addresses[0], timeout_s=10)
        await one.publish(TOPIC, b"lost")
        network.heal()
        await one.connect(two.addresses[0], timeout_s=10)
        await one.publish(TOPIC, b"kept")
        with trio.fail_after(DEADLINE_S):
            async for message in heard:
                assert message.data == b"kept"
                break


@pytest.mark.parametrize("cut", ["before", "between"])
async def test_late_gossip_needs_a_way_both_when_it_leaves_and_when_it_arrives(
    cut: str, autojump_clock: MockClock
) -> None:
    network = FakeNetwork(1, delay_s=3.0)
    async with pair(network) as (one, two), two.subscribe(TOPIC, lambda *_: True, capacity=8) as heard:
        apart = [[one.peer_id], [two.peer_id]]
        if cut == "before":
            network.partition(apart)
            await one.publish(TOPIC, b"lost")
            network.heal()
            network.dial(one, two.peer_id, two.addresses[0].partition("/p2p/")[0])  # type: ignore[arg-type]
        else:
            await one.publish(TOPIC, b"lost")
            network.partition(apart)
        await trio.sleep(4)
        assert heard.take_all() == []  # type: ignore[attr-defined]
        network.heal()
        await one.connect(two.addresses[0], timeout_s=10)
        await one.publish(TOPIC, b"kept")
        await trio.sleep(4)
        assert [message.data for message in heard.take_all()] == [b"kept"]  # type: ignore[attr-defined]


async def test_late_gossip_keeps_its_order(autojump_clock: MockClock) -> None:
    async with (
        pair(FakeNetwork(1, delay_s=0.5)) as (one, two),
        two.subscribe(TOPIC, lambda *_: True, capacity=300) as heard,
    ):
        for number in range(200):
            await one.publish(TOPIC, b"%d" % number)
        await trio.sleep(1)
        assert [message.data for message in heard.take_all()] == [b"%d" % number for number in range(200)]  # type: ignore[attr-defined]


async def test_keep_connected_outlives_a_partition() -> None:
    network = FakeNetwork(1)
    async with pair(network) as (one, two), trio.open_nursery() as nursery:
        nursery.start_soon(one.keep_connected, two.addresses[0])
        await wait_all_tasks_blocked()
        network.partition([[one.peer_id], [two.peer_id]])
        assert one.connected() == frozenset()
        network.heal()
        with trio.fail_after(DEADLINE_S):
            await one.wait_connected(two.peer_id)
        nursery.cancel_scope.cancel()


async def test_delay_is_felt_by_streams(autojump_clock: MockClock) -> None:
    async with pair(FakeNetwork(1, delay_s=3.0)) as (one, two):
        stream = await one.open_stream(two.peer_id, ECHO, timeout_s=10)
        before = trio.current_time()
        await stream.send(b"x", timeout_s=1)
        with pytest.raises(MeshTimeout):
            await stream.receive(limit_bytes=LIMIT, timeout_s=5)
        assert await stream.receive(limit_bytes=LIMIT, timeout_s=5) == b"x"
        assert trio.current_time() - before == pytest.approx(6.0)
