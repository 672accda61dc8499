# SPDX-License-Identifier: Apache-2.0
"""The conversation with the coordinator: whom the node believes (trust P2), and how it finds its way back."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio

from qubix_mesh.adverts import Adverts
from qubix_mesh.fake import open_fake_mesh
from qubix_node.node import Node
from qubix_protocol.channel import Channel, Exchange, SessionKeys, Side
from qubix_protocol.envelope import Sealer, seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Accept, Challenge, Heartbeat, Renewal, Report, Telemetry
from qubix_protocol.states import Availability, Outcome
from qubix_protocol.units import offers_topic
from tests.support.fake_coordinator import NETWORK, FakeCoordinator
from tests.support.node_world import COORDINATOR_KEY, DEVICE, NODE_KEY, World, matrices, open_world

pytestmark = pytest.mark.trio
MALLORY = SigningKey(b"m" * 32)


async def refused(node: Node, code: str) -> None:
    with trio.fail_after(60):
        while not node.link.refused[code]:  # noqa: ASYNC110
            await trio.sleep(0.01)


def forged(world: World) -> bytes:
    return world.coordinator.sealer(NODE_KEY.public, world.coordinator.incarnation, MALLORY).seal(
        world.assign(matrices(8))
    )


def for_somebody_else(world: World) -> bytes:
    return world.coordinator.sealer(MALLORY.public, world.coordinator.incarnation).seal(world.assign(matrices(8)))


def of_an_old_session(world: World) -> bytes:
    return world.coordinator.sealer(NODE_KEY.public, world.coordinator.incarnation - 1).seal(world.assign(matrices(8)))


def expired(world: World) -> bytes:
    return seal(
        world.assign(matrices(8)),
        COORDINATOR_KEY,
        network=NETWORK,
        audience=NODE_KEY.public,
        incarnation=world.coordinator.incarnation,
        counter=1_000,
        expires_ms=world.coordinator.clock_ms() - 1_000,
    )


def of_another_network(world: World) -> bytes:
    sealer = Sealer(
        COORDINATOR_KEY,
        network="main",
        audience=NODE_KEY.public,
        incarnation=world.coordinator.incarnation,
        clock_ms=world.coordinator.clock_ms,
    )
    return sealer.seal(world.assign(matrices(8)))


def flipped(world: World) -> bytes:
    frame = bytearray(genuine(world))
    frame[len(frame) // 2] ^= 1
    return bytes(frame)


def genuine(world: World) -> bytes:
    """Signed by the coordinator, and not encrypted."""
    assert world.coordinator.peer is not None
    return world.coordinator.peer.sealer.seal(world.assign(matrices(8)))


def nonsense(world: World) -> bytes:
    return b"\xc1" * 100


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (forged, "bad_signature"),
        (for_somebody_else, "wrong_audience"),
        (of_an_old_session, "replayed"),
        (expired, "expired"),
        (of_another_network, "wrong_network"),
        (nonsense, "malformed"),
    ],
)
async def test_a_command_that_is_not_to_be_believed_is_refused_and_counted(
    tmp_path: Path, make: Callable[[World], bytes], code: str
) -> None:
    async with open_world(tmp_path) as world, world.node() as node:
        assert world.coordinator.peer is not None
        await world.coordinator.peer.send_envelope(make(world))
        await refused(node, code)
        assert node.desk.live_attempts() == ()
        await still_works(world)


def for_another_session(world: World) -> bytes:
    return Channel(SessionKeys(b"a" * 32, b"b" * 32), Side.COORDINATOR).encrypt(genuine(world))


def with_a_changed_bit(world: World) -> bytes:
    assert world.coordinator.peer is not None
    frame = bytearray(world.coordinator.peer.channel.encrypt(genuine(world)))
    frame[len(frame) // 2] ^= 1
    return bytes(frame)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (genuine, "malformed"),
        (nonsense, "malformed"),
        (for_another_session, "bad_signature"),
        (with_a_changed_bit, "bad_signature"),
    ],
)
async def test_p4_a_command_that_others_could_read_or_change_is_refused(
    tmp_path: Path, make: Callable[[World], bytes], code: str
) -> None:
    async with open_world(tmp_path) as world, world.node() as node:
        assert world.coordinator.peer is not None
        await world.coordinator.peer.send_raw(make(world))
        await refused(node, code)
        assert node.desk.live_attempts() == ()
        await still_works(world)


async def test_a_changed_bit_is_never_obeyed(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node() as node:
        assert world.coordinator.peer is not None
        await world.coordinator.peer.send_envelope(flipped(world))
        with trio.fail_after(60):
            while not node.link.refused:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert node.desk.live_attempts() == ()
        await still_works(world)


async def test_a_replayed_command_is_refused(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node() as node:
        await world.coordinator.send(world.assign(matrices(8)))
        await world.coordinator.wait_for(Report)
        assert world.coordinator.peer is not None
        for frame in list(world.coordinator.peer.raw):
            await world.coordinator.peer.send_raw(frame)
        await refused(node, "replayed")
        await still_works(world)
        assert len(world.coordinator.all(Accept)) == 2, "one for each real job"


async def still_works(world: World) -> None:
    before = len(world.coordinator.all(Report))
    await world.coordinator.send(world.assign(matrices(8)))
    await world.coordinator.until(lambda: len(world.coordinator.all(Report)) > before)


async def test_an_impostor_gets_no_session(tmp_path: Path) -> None:
    """Somebody else at the gateway's address: the node's pin is another key."""
    async with open_world(tmp_path) as world:
        world.coordinator.key = MALLORY
        async with world.node(wait=False):
            await world.coordinator.until(lambda: world.coordinator.challenges >= 3)
        assert world.coordinator.heard == []
        assert world.coordinator.hellos == []


async def test_a_recording_of_an_old_session_is_refused(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        async with world.node():
            # It speaks only once it has written the session's number down; before that it has not used it.
            await world.coordinator.wait_for(Heartbeat)
            assert world.coordinator.incarnation == 1
        await world.coordinator.until(lambda: world.coordinator.peer is None)
        world.coordinator.incarnation = 0
        world.coordinator.heard.clear()
        async with world.node():
            # Number 1 was used before: the node hangs up and comes again until it is given a newer one.
            await world.coordinator.wait_for(Heartbeat)
            assert world.coordinator.incarnation == 2


@pytest.mark.parametrize("skew_ms", [-3_600_000, 3_600_000])
async def test_clocks_an_hour_apart_do_not_matter(tmp_path: Path, skew_ms: int) -> None:
    async with open_world(tmp_path, clock_skew_ms=skew_ms) as world, world.node():
        await world.coordinator.send(world.assign(matrices(8)))
        assert (await world.coordinator.wait_for(Report)).outcome is Outcome.COMPLETED


async def test_a_new_challenge_on_the_same_stream_begins_a_new_session(tmp_path: Path) -> None:
    """As when the coordinator restarts behind a gateway that stays."""
    async with open_world(tmp_path) as world, world.node():
        coordinator = world.coordinator
        assert coordinator.peer is not None
        node = coordinator.peer.node
        restarted = FakeCoordinatorAgain(coordinator)
        exchange = Exchange(b"\7" * 32)
        coordinator.again = exchange, restarted.nonce
        challenge = Challenge(nonce=restarted.nonce, clock_ms=coordinator.clock_ms(), exchange=exchange.public)
        await coordinator.peer.send_raw(coordinator.sealer(node, 0).seal(challenge))
        await coordinator.until(lambda: restarted.done)
        await still_works(world)


class FakeCoordinatorAgain:
    """Answers the hello to its challenge with the next incarnation, on the stream that stands."""

    def __init__(self, coordinator: FakeCoordinator) -> None:
        self.nonce, self.done = b"\7" * 32, False
        self._coordinator = coordinator
        coordinator.on_hello = self.welcome

    async def welcome(self, nonce: bytes) -> None:
        coordinator = self._coordinator
        assert nonce == self.nonce
        assert coordinator.peer is not None
        coordinator.incarnation += 1
        coordinator.peer.sealer = coordinator.sealer(coordinator.peer.node, coordinator.incarnation)
        await coordinator.send(coordinator.welcome(coordinator.peer.node))
        self.done = True


async def test_offers_are_published_and_follow_what_the_device_does(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        coordinator = world.coordinator

        def seen(availability: Availability) -> bool:
            return any(offer.availability is availability for offer in coordinator.offers)

        await coordinator.until(lambda: seen(Availability.AVAILABLE))
        first = coordinator.offers[0]
        assert (first.device, first.rate_qu_per_h, first.region) == (DEVICE, 1_000, "test-region")
        assert [rate.kernel for rate in first.rates] == ["matmul"]
        world.store.puts_allowed = 0
        await coordinator.send(world.assign(matrices(8)))
        await coordinator.until(lambda: seen(Availability.BUSY))
        world.probe.lose(DEVICE.device_id)
        await coordinator.until(lambda: seen(Availability.OFFLINE))


async def test_a_node_that_stops_says_so_and_reports_what_ran(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        # It says farewell for some seconds only, in which it cannot wait for a zygote that begins.
        await world.workers.warm()
        async with world.node():
            world.store.puts_allowed = 0
            await world.coordinator.send(world.assign(matrices(8)))
            await world.coordinator.wait_for(Accept)
            world.stop.set()
            report = await world.coordinator.wait_for(Report)
            assert report.failure is not None
            assert report.failure.code == "node_stopped"
            await gone_from_the_market(world)


async def gone_from_the_market(world: World) -> None:
    """Off it, and nothing that says otherwise follows."""
    coordinator = world.coordinator

    def offline() -> bool:
        return bool(coordinator.offers) and coordinator.offers[-1].availability is Availability.OFFLINE

    await coordinator.until(offline)
    await coordinator.until(lambda: coordinator.peer is None)
    assert offline()


async def test_telemetry_is_sent(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        told = await world.coordinator.wait_for(Telemetry)
        assert told.samples[0].device_id == DEVICE.device_id


async def test_it_comes_back_after_every_break(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        for number in (1, 2, 3):
            await world.coordinator.until(lambda number=number: len(world.coordinator.hellos) == number)
            await world.coordinator.until(lambda: world.coordinator.peer is not None)
            for peer in world.coordinator.mesh.connected():
                await world.coordinator.mesh.disconnect(peer)
        await world.coordinator.until(lambda: len(world.coordinator.hellos) == 4)
        assert world.coordinator.incarnation == 4


async def test_a_dead_gateway_is_passed_over_and_the_good_one_remembered(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        world.gateways = (f"/ip4/192.0.2.1/tcp/9/p2p/{MALLORY.peer_id}",)
        async with world.node():
            await world.coordinator.wait_for(Heartbeat)
        assert world.coordinator.mesh.addresses[0] in (tmp_path / "node" / "peers.json").read_text()


async def test_p5_offers_are_said_on_without_a_coordinator_until_the_certificate_ends(tmp_path: Path) -> None:
    """And a relay passes on what others say, believing what it is told by a clock that a session once told."""
    async with open_world(tmp_path) as world:
        folder = tmp_path / "node"
        async with (
            world.node(relay=True, listen=("/ip4/127.0.0.1/tcp/0",)) as node,
            open_fake_mesh(world.network, b"w" * 32, listen=()) as watcher,
        ):
            coordinator = world.coordinator
            await coordinator.until(lambda: bool(coordinator.offers))
            assert coordinator.offers[0].relays_at == node._mesh.addresses
            await watcher.connect(node._mesh.addresses[0], timeout_s=10)
            await coordinator.mesh.disconnect(NODE_KEY.peer_id)
            world.network.partition([[NODE_KEY.peer_id, watcher.peer_id], [coordinator.mesh.peer_id]])
            heard: list[int] = []
            adverts = Adverts(network=NETWORK, coordinator=COORDINATOR_KEY.public, steady_s=trio.current_time)
            topic = offers_topic(NETWORK, "test-region")
            take = adverts.validator(topic, lambda one: heard.append(one.offer.rate_qu_per_h))
            async with watcher.subscribe(topic, take, capacity=8):
                (folder / "rate.json").write_text('{"rate_qu_per_h": 77, "setting_qu_per_h": 1000}')
                with trio.fail_after(60):
                    while 77 not in heard:  # noqa: ASYNC110
                        await trio.sleep(0.05)
                assert not node.link.linked
                voice = node.publisher._voice
                assert voice is not None
                voice.licence = msgspec.structs.replace(voice.licence, expires_ms=0)
                heard.clear()
                (folder / "rate.json").write_text('{"rate_qu_per_h": 78, "setting_qu_per_h": 1000}')
                with trio.fail_after(60):
                    while node._price.qu_per_h != 78:  # noqa: ASYNC110
                        await trio.sleep(0.05)
                await trio.sleep(1)
                assert heard == [], "nobody would believe it"


async def test_p3_a_renewed_certificate_is_what_offers_carry_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node() as node:
        coordinator = world.coordinator
        await coordinator.until(lambda: bool(coordinator.offers))
        voice = node.publisher._voice
        assert voice is not None
        first = voice.licence
        await coordinator.send(Renewal(certificate=coordinator.certificate(MALLORY.public)))
        await refused(node, "not_certified")
        assert voice.licence == first
        await coordinator.send(Renewal(certificate=coordinator.certificate(NODE_KEY.public, life_ms=172_800_000)))
        with trio.fail_after(60):
            while voice.licence == first:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert voice.licence.expires_ms >= first.expires_ms + 80_000_000
        await still_works(world)
