# SPDX-License-Identifier: Apache-2.0
"""The gateway between nodes (fake and real mesh) and a coordinator that speaks the link."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from qubix_mesh.errors import BadPin, MeshError, MeshTimeout, StreamClosed
from qubix_mesh.peerbook import PeerBook
from qubix_protocol.keys import SigningKey
from qubix_protocol.link import Drop, FromPeer, Gossip, LinkOpen, PeerDown, PeerUp, ToPeer
from qubix_protocol.units import CONTROL_PROTOCOL, FRAME_BYTES_MAX
from tests.mesh.adverts_world import Speaker, offer
from tests.mesh.gateway_world import (
    TOPIC,
    Desk,
    connected_node,
    control,
    eventually,
    ready,
    running_gateway,
    telemetry,
)
from tests.mesh.mesh_world import World, repeat_until, seed
from tests.support.ports import held_port

pytestmark = pytest.mark.trio


@pytest.fixture(params=["real", "fake"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


@pytest.fixture
def fake() -> World:
    return World("fake")


@pytest.fixture
def clock() -> MockClock:
    """The real time, which a test can turn on: sockets are real, and long waits are not."""
    return MockClock(rate=1.0)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    async with desk.serving():
        yield desk


async def test_words_pass_both_ways_unchanged_and_in_order(world: World, desk: Desk) -> None:
    async with running_gateway(world, desk) as (_, mesh), connected_node(world, 1, mesh) as node:
        await eventually(lambda: desk.live() == {node.peer_id})
        said = [telemetry(node.key) if number % 3 else control(node.key, str(number)) for number in range(90)]
        await node.say(*said)
        await eventually(lambda: len(desk.frames(node.peer_id)) == len(said))
        assert desk.frames(node.peer_id) == said
        answers = (b"one", b"two", bytes(FRAME_BYTES_MAX))
        await desk.say(ToPeer(peer_id=node.peer_id, frames=answers))
        assert tuple([await node.hear() for _ in answers]) == answers
        opening = desk.of(LinkOpen)[0]
        assert (opening.gateway_peer_id, opening.addresses) == (mesh.peer_id, mesh.addresses)


async def test_coming_and_going_is_told(world: World, desk: Desk) -> None:
    async with running_gateway(world, desk) as (gateway, mesh):
        async with connected_node(world, 1, mesh) as node:
            await eventually(lambda: desk.live() == {node.peer_id})
        await eventually(lambda: not desk.live())
        assert len(gateway.peers) == 0


async def test_where_a_node_comes_from_is_told_with_it(world: World, desk: Desk) -> None:
    async with running_gateway(world, desk) as (_, mesh), connected_node(world, 1, mesh) as node:
        await eventually(lambda: desk.of(PeerUp))
        assert desk.of(PeerUp)[0] == PeerUp(peer_id=node.peer_id, address="127.0.0.1")


async def test_a_node_that_comes_again_replaces_its_stream(world: World, desk: Desk) -> None:
    async with running_gateway(world, desk) as (gateway, mesh), connected_node(world, 1, mesh) as node:
        await eventually(lambda: desk.live() == {node.peer_id})
        second = await node.mesh.open_stream(mesh.peer_id, "/qubix/control/1", timeout_s=10)
        await eventually(lambda: [type(item) for item in desk.items[1:]] == [PeerUp, PeerDown, PeerUp])
        with pytest.raises(StreamClosed):
            await node.hear()
        await desk.say(ToPeer(peer_id=node.peer_id, frames=(b"hi",)))
        assert await second.receive(limit_bytes=10, timeout_s=10) == b"hi"
        assert gateway.counts()["replaced"] == 1


async def test_the_coordinators_drop_lets_the_last_words_arrive(world: World, desk: Desk) -> None:
    async with running_gateway(world, desk) as (_, mesh), connected_node(world, 1, mesh) as node:
        await eventually(lambda: desk.live())
        last = [b"%d" % number for number in range(20)]
        await desk.say(
            ToPeer(peer_id=node.peer_id, frames=tuple(last)), Drop(peer_id=node.peer_id, reason="test is over")
        )
        assert [await node.hear() for _ in last] == last
        with pytest.raises(StreamClosed):
            await node.hear()
        await eventually(lambda: not desk.live())


async def test_a_lost_link_keeps_nodes_and_announces_them_again(world: World, desk: Desk) -> None:
    async with (
        running_gateway(world, desk) as (gateway, mesh),
        connected_node(world, 1, mesh) as one,
        connected_node(world, 2, mesh) as two,
    ):
        await eventually(lambda: desk.live() == {one.peer_id, two.peer_id})
        await desk.hang_up()
        await eventually(lambda: desk.links == 2 and desk.live() == {one.peer_id, two.peer_id})
        last = control(one.key, "after")
        await one.say(last)
        await eventually(lambda: desk.frames(one.peer_id)[-1:] == [last])
        assert gateway.counts()["link_lost"] == 1


async def test_a_coordinator_that_comes_later_is_found(fake: World) -> None:
    desk = Desk()
    with held_port() as desk.port:
        async with running_gateway(fake, desk) as (gateway, mesh), connected_node(fake, 1, mesh) as node:
            await eventually(lambda: gateway.link.lost >= 2)
            await node.say(control(node.key, "nobody listens"))
            await eventually(lambda: gateway.counts().get("frames_while_down") == 1)
            async with desk.serving(desk.port):
                await eventually(lambda: desk.live() == {node.peer_id})
                assert desk.frames(node.peer_id) == []


async def test_a_gateway_without_coordinator_sends_nodes_away_and_takes_them_again_later(
    world: World, clock: MockClock
) -> None:
    desk = Desk()
    async with AsyncExitStack() as stack:
        desk.port = stack.enter_context(held_port())
        gateway, mesh = await stack.enter_async_context(running_gateway(world, desk, link_patience_s=60.0))
        node = await stack.enter_async_context(connected_node(world, 1, mesh))
        await eventually(lambda: node.peer_id in gateway.peers)
        clock.jump(61.0)
        with pytest.raises(StreamClosed):
            await node.hear()
        assert gateway.counts()["no_coordinator"] == 1
        with pytest.raises(MeshError):
            await (await node.mesh.open_stream(mesh.peer_id, CONTROL_PROTOCOL, timeout_s=10)).receive(
                limit_bytes=10, timeout_s=10
            )
        assert gateway.counts()["refused_no_coordinator"] == 1
        async with desk.serving(desk.port):
            await eventually(lambda: desk.links == 1)
            await node.mesh.open_stream(mesh.peer_id, CONTROL_PROTOCOL, timeout_s=10)
            await eventually(lambda: desk.live() == {node.peer_id})


async def test_a_refused_token_is_tried_again_and_told(fake: World, desk: Desk) -> None:
    async with running_gateway(fake, desk) as (gateway, _):
        await eventually(lambda: desk.links == 1)
    async with running_gateway(fake, desk, peers_max=1) as (gateway, _):
        gateway.link._headers = [(b"Authorization", b"Bearer wrong")]
        await eventually(lambda: gateway.link.refused >= 2)
        assert desk.refused >= 2


async def test_a_coordinator_of_another_network_is_refused(fake: World, desk: Desk) -> None:
    desk.ready = ready(network="test")
    async with running_gateway(fake, desk) as (gateway, mesh), connected_node(fake, 1, mesh):
        await eventually(lambda: gateway.link.refused >= 1)
        assert desk.of(PeerUp) == []


@pytest.mark.parametrize("nonsense", [b"\xff\xff", "text", b"", bytes(100)])
async def test_a_coordinator_that_talks_nonsense_is_left_and_dialled_again(
    fake: World, desk: Desk, nonsense: bytes | str
) -> None:
    async with running_gateway(fake, desk), trio.open_nursery() as nursery:
        await eventually(lambda: desk.links == 1)
        nursery.start_soon(desk.say_raw, nonsense)
        await eventually(lambda: desk.links == 2)


async def test_commands_for_unknown_nodes_are_counted(fake: World, desk: Desk) -> None:
    stranger = SigningKey(seed(77)).peer_id
    async with running_gateway(fake, desk) as (gateway, mesh), connected_node(fake, 1, mesh) as node:
        await eventually(lambda: desk.live())
        await desk.say(ToPeer(peer_id=stranger, frames=(b"x", b"y")), Drop(peer_id=stranger, reason="nobody"))
        await desk.say(ToPeer(peer_id=node.peer_id, frames=(b"z",)))
        assert await node.hear() == b"z"
        assert gateway.counts()["frames_for_nobody"] == 2


async def test_a_node_that_does_not_read_is_dropped_by_its_own_queue(fake: World, desk: Desk) -> None:
    big = bytes(FRAME_BYTES_MAX)
    async with (
        running_gateway(fake, desk, peer_queue_frames=4) as (gateway, mesh),
        connected_node(fake, 1, mesh) as slow,
        connected_node(fake, 2, mesh) as good,
    ):
        await eventually(lambda: len(desk.live()) == 2)
        await desk.say(ToPeer(peer_id=slow.peer_id, frames=(big,) * 12))
        await eventually(lambda: desk.live() == {good.peer_id})
        await desk.say(ToPeer(peer_id=good.peer_id, frames=(b"fine",)))
        assert await good.hear() == b"fine"
        assert gateway.counts()["outgoing_overflow"] == 1


async def test_a_stalled_coordinator_costs_the_noisy_node_its_stream(fake: World, desk: Desk) -> None:
    fast: dict[str, Any] = {"peer_frames_per_s": 100_000.0, "peer_frames_burst": 100_000}
    async with (
        running_gateway(fake, desk, peer_queue_frames=8, **fast) as (gateway, mesh),
        connected_node(fake, 1, mesh) as noisy,
        connected_node(fake, 2, mesh) as good,
    ):
        await eventually(lambda: len(desk.live()) == 2)
        desk.reads = False

        async def shout() -> None:
            for _ in range(20_000):  # more than all sockets on the way would hold
                await noisy.say(control(noisy.key, "x" * 1900))

        with pytest.raises((StreamClosed, MeshTimeout)):
            await shout()
        await eventually(lambda: noisy.peer_id not in gateway.peers)
        assert good.peer_id in gateway.peers
        desk.reads = True
        await eventually(lambda: desk.live() == {good.peer_id})
        assert gateway.counts()["incoming_overflow"] == 1


async def test_a_frame_over_the_limit_ends_the_stream(world: World, desk: Desk) -> None:
    async with running_gateway(world, desk) as (gateway, mesh), connected_node(world, 1, mesh) as node:
        await eventually(lambda: desk.live())
        with suppress(StreamClosed):
            await node.say(bytes(FRAME_BYTES_MAX + 1))
        await eventually(lambda: not desk.live())
        assert gateway.counts()["frame_too_large"] == 1


async def test_a_frame_that_is_no_envelope_ends_the_stream_and_is_not_passed_on(world: World, desk: Desk) -> None:
    async with running_gateway(world, desk) as (gateway, mesh), connected_node(world, 1, mesh) as node:
        await eventually(lambda: desk.live())
        await node.say(b"GET / HTTP/1.1")
        await eventually(lambda: not desk.live())
        assert gateway.counts()["malformed"] == 1
        assert desk.of(FromPeer) == []


async def test_a_node_that_never_speaks_is_dropped_and_one_that_spoke_stays(
    fake: World, desk: Desk, clock: MockClock
) -> None:
    async with (
        running_gateway(fake, desk, first_word_s=60.0) as (gateway, mesh),
        connected_node(fake, 1, mesh),
        connected_node(fake, 2, mesh) as good,
    ):
        await eventually(lambda: len(desk.live()) == 2)
        await good.say(control(good.key))
        await eventually(lambda: desk.frames(good.peer_id))
        clock.jump(61.0)
        await eventually(lambda: desk.live() == {good.peer_id})
        clock.jump(61.0)
        await good.say(control(good.key))
        await eventually(lambda: len(desk.frames(good.peer_id)) == 2)
        assert gateway.peers._peers.keys() == {good.peer_id}
        assert gateway.counts()["never_spoke"] == 1


async def test_more_nodes_than_allowed_are_turned_away(fake: World, desk: Desk) -> None:
    async with (
        running_gateway(fake, desk, peers_max=1) as (gateway, mesh),
        connected_node(fake, 1, mesh) as first,
        connected_node(fake, 2, mesh) as second,
    ):
        with pytest.raises(StreamClosed):
            await second.hear()
        await eventually(lambda: desk.live() == {first.peer_id})
        assert gateway.counts()["refused_full"] == 1


async def test_a_node_over_its_rate_is_read_more_slowly_and_loses_nothing(fake: World, desk: Desk) -> None:
    async with (
        running_gateway(fake, desk, peer_frames_per_s=100.0, peer_frames_burst=5) as (gateway, mesh),
        connected_node(fake, 1, mesh) as node,
    ):
        await eventually(lambda: desk.live())
        said = [control(node.key, str(number)) for number in range(40)]
        began_s = trio.current_time()
        await node.say(*said)
        await eventually(lambda: desk.frames(node.peer_id) == said)
        assert trio.current_time() - began_s >= 0.3
        assert gateway.counts()["throttled"] >= 1


async def test_gossip_of_named_topics_is_forwarded_with_its_author(world: World, desk: Desk) -> None:
    async with running_gateway(world, desk) as (_, mesh), connected_node(world, 1, mesh) as node:
        await eventually(lambda: desk.live())
        said = Speaker(node.key)
        adverts: list[bytes] = []

        async def say() -> None:
            adverts.append(said.advert())
            await node.mesh.publish(TOPIC, adverts[-1])

        await repeat_until(say, lambda: bool(desk.of(Gossip)))
        heard = desk.of(Gossip)[0]
        assert heard == Gossip(author=node.peer_id, topic=TOPIC, data=heard.data)
        assert heard.data in adverts


async def test_gossip_that_is_forged_foreign_or_too_fast_is_not_forwarded(fake: World, desk: Desk) -> None:
    async with (
        running_gateway(fake, desk, gossip_per_s=0.01, gossip_burst=2) as (gateway, mesh),
        connected_node(fake, 1, mesh) as node,
    ):
        await eventually(lambda: desk.live() and TOPIC in gateway.topics._running)
        said, stranger = Speaker(node.key), Speaker(SigningKey(seed(9)))
        good = said.advert()
        uncertified = said.advert(certificate=stranger.certificate)
        wrong = (stranger.advert(), said.advert(network="test"), b"nonsense", said.envelope(offer()), uncertified)
        for data in (*wrong, good, good, said.advert()):
            await node.mesh.publish(TOPIC, data)
        await eventually(lambda: gateway.counts().get("gossip_too_fast") == 1)
        await eventually(lambda: desk.of(Gossip))
        assert [message.data for message in desk.of(Gossip)] == [good]
        counts = {name: times for name, times in gateway.counts().items() if name.startswith("gossip_")}
        assert counts == {
            "gossip_bad_signature": 1,
            "gossip_wrong_network": 1,
            "gossip_malformed": 2,
            "gossip_not_certified": 1,
            "gossip_replayed": 1,
            "gossip_too_fast": 1,
            "gossip_invalid": 7,
        }


async def test_p3_the_key_of_the_first_coordinator_is_kept_and_no_other_is_believed(
    fake: World, desk: Desk, tmp_path: Path
) -> None:
    async with running_gateway(fake, desk, data_dir=tmp_path) as (gateway, _):
        await eventually(lambda: gateway.topics._running.keys() == {TOPIC})
    desk.ready = ready("qubix/devnet/offers/eu", coordinator=SigningKey(b"x" * 32).public)
    async with running_gateway(fake, desk, data_dir=tmp_path) as (gateway, mesh):
        await eventually(lambda: gateway.link.refused >= 2)
        assert gateway.topics._running.keys() == {TOPIC}, "what it remembers"
        async with connected_node(fake, 1, mesh) as node, fake.open(2) as other:
            await other.connect(mesh.addresses[0], timeout_s=10)
            heard: list[str] = []
            async with other.subscribe(TOPIC, lambda author, _: bool(heard.append(author)) or True, capacity=8):
                await node.mesh.publish(TOPIC, Speaker(node.key).advert())
                assert heard == [node.peer_id], "relayed without a coordinator"
    (tmp_path / "coordinator.json").write_text("{")
    with pytest.raises(BadPin, match="Delete it"):
        async with running_gateway(fake, desk, data_dir=tmp_path):
            pass


async def test_topics_follow_the_coordinators_last_word(fake: World, desk: Desk) -> None:
    async with running_gateway(fake, desk) as (gateway, _):
        await eventually(lambda: gateway.topics._running.keys() == {TOPIC})
        await desk.say(ready("qubix/devnet/offers/eu", TOPIC))
        await eventually(lambda: gateway.topics._running.keys() == {TOPIC, "qubix/devnet/offers/eu"})
        await desk.say(ready("qubix/devnet/offers/eu"))
        await eventually(lambda: gateway.topics._running.keys() == {"qubix/devnet/offers/eu"})


async def test_two_gateways_that_know_each_other_share_gossip(world: World, desk: Desk, tmp_path: Path) -> None:
    async with (
        world.open(50) as relay,
        relay.subscribe(TOPIC, lambda *_: True, capacity=8),
        running_gateway(world, desk, bootstrap=relay.addresses, data_dir=tmp_path) as (_, mesh),
        world.open(1, listen=()) as node,
    ):
        with trio.fail_after(30):
            await relay.wait_connected(mesh.peer_id)
        await node.connect(relay.addresses[0], timeout_s=10)
        said = Speaker(SigningKey(seed(1)))

        async def say() -> None:
            await node.publish(TOPIC, said.advert())

        await repeat_until(say, lambda: bool(desk.of(Gossip)))
        assert desk.of(Gossip)[0].author == node.peer_id
        await eventually(lambda: PeerBook(tmp_path / "peers.json").remembered() == relay.addresses)
