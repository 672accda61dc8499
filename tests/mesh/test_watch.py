# SPDX-License-Identifier: Apache-2.0
"""What a watcher shows: on the fake mesh, where time is the test's, and on the real one."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from qubix_mesh.fake import FakeNetwork, open_fake_mesh
from qubix_mesh.host import open_mesh
from qubix_mesh.peerbook import PeerBook
from qubix_mesh.port import Mesh
from qubix_mesh.watch import Watch
from qubix_protocol.messages import Offer
from qubix_protocol.states import Availability
from tests.mesh.adverts_world import COORDINATOR, REGION, TOPIC, Speaker, judge, offer, speaker
from tests.mesh.mesh_world import DEADLINE_S, repeat_until, until

pytestmark = pytest.mark.trio


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps would run on while a thread writes a file: the work is done where it is asked for."""

    async def run_sync(work: Callable[..., Any], *given: Any, **_: object) -> Any:
        await trio.lowlevel.checkpoint()
        return work(*given)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


@asynccontextmanager
async def relay(network: FakeNetwork, number: int) -> AsyncIterator[tuple[Mesh, Speaker]]:
    """A node that passes on what it believes."""
    node = speaker(number)
    async with open_fake_mesh(network, node.key.seed) as mesh, trio.open_nursery() as nursery:
        await nursery.start(_pass_on, mesh)
        yield mesh, node
        nursery.cancel_scope.cancel()


async def _pass_on(mesh: Mesh, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    async with mesh.subscribe(TOPIC, judge().validator(TOPIC), capacity=64) as heard:
        task_status.started()
        async for _ in heard:
            pass


@asynccontextmanager
async def watching(
    network: FakeNetwork, bootstrap: Sequence[str], remembered: Path | None = None, regions: Sequence[str] = (REGION,)
) -> AsyncIterator[Watch]:
    watch = Watch(
        network="devnet",
        coordinator=COORDINATOR.public,
        bootstrap=bootstrap,
        remembered=remembered,
        regions=regions,
        open_mesh=lambda seed: open_fake_mesh(network, seed, listen=()),
        steady_s=trio.current_time,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        yield watch
        nursery.cancel_scope.cancel()


async def connected(watch: Watch, count: int = 1) -> None:
    await until(lambda: sum(peer.connected for peer in watch.peers()) >= count)


def shown(watch: Watch) -> list[tuple[str, str, int, bool]]:
    return [(one.peer_id, one.offer.device.device_id, one.offer.rate_qu_per_h, one.stale) for one in watch.offers()]


async def test_a_watcher_shows_the_newest_offer_of_each_device(autojump_clock: trio.testing.MockClock) -> None:
    network = FakeNetwork(1)
    async with relay(network, 1) as (mesh, node), watching(network, mesh.addresses) as watch:
        await connected(watch)
        assert watch.offers() == ()
        assert watch.now_ms() is None
        with trio.fail_after(DEADLINE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch.changed)
                await trio.testing.wait_all_tasks_blocked()
                await mesh.publish(TOPIC, node.advert(offer("a")))
        await mesh.publish(TOPIC, node.advert(offer("b")))
        await mesh.publish(TOPIC, node.advert(offer("a", rate_qu_per_h=55)))
        assert shown(watch) == [(node.peer_id, "a", 55, False), (node.peer_id, "b", 100, False)]
        await mesh.publish(TOPIC, node.advert(offer("a", availability=Availability.OFFLINE)))
        assert shown(watch) == [(node.peer_id, "b", 100, False)]


async def test_what_expired_is_marked_then_hidden(autojump_clock: trio.testing.MockClock) -> None:
    network = FakeNetwork(1)
    async with relay(network, 1) as (mesh, node), watching(network, mesh.addresses) as watch:
        await connected(watch)
        await mesh.publish(TOPIC, node.advert())
        await trio.sleep(58)
        assert [stale for *_, stale in shown(watch)] == [False]
        await trio.sleep(5)
        assert [stale for *_, stale in shown(watch)] == [True]
        await mesh.publish(TOPIC, node.advert())
        assert [stale for *_, stale in shown(watch)] == [False]
        await trio.sleep(95)
        assert shown(watch) == []


async def test_what_is_not_certified_is_not_shown_and_a_certificate_that_ends_hides_its_offers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = FakeNetwork(1)
    async with relay(network, 1) as (mesh, node), watching(network, mesh.addresses) as watch:
        await connected(watch)
        stranger = Speaker(node.key, certificate=speaker(2).certificate)
        await mesh.publish(TOPIC, stranger.advert())
        assert watch.offers() == ()
        assert watch.counts["gossip_not_certified"] == 1
        node.certify(node.clock_ms() + 10_000)
        await mesh.publish(TOPIC, node.advert())
        assert len(watch.offers()) == 1
        await trio.sleep(12)
        assert watch.offers() == ()


@pytest.mark.usefixtures("no_threads")
async def test_p5_relays_that_were_heard_of_are_dialled_and_remembered(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    network, book = FakeNetwork(1), tmp_path / "peers.json"
    async with relay(network, 2) as (second, node):
        at = offer(relays_at=second.addresses)
        async with relay(network, 1) as (first, _):
            await second.connect(first.addresses[0], timeout_s=5)
            async with watching(network, first.addresses, book) as watch:
                await connected(watch)
                await second.publish(TOPIC, node.advert(at))
                await connected(watch, 2)
                seen = {(one.peer_id, one.address, one.relay) for one in watch.peers()}
                assert seen == {
                    (first.peer_id, first.addresses[0], False),
                    (second.peer_id, second.addresses[0], True),
                }
                await until(lambda: book.exists() and len(PeerBook(book).remembered()) == 2)
                for other in first.connected():
                    await first.disconnect(other)
                await second.publish(TOPIC, node.advert(offer(relays_at=second.addresses, rate_qu_per_h=3)))
                assert [one.offer.rate_qu_per_h for one in watch.offers()] == [3]
        async with watching(network, (), book) as again:
            await connected(again)
            await second.publish(TOPIC, node.advert(at))
            assert [one.peer_id for one in again.offers()] == [node.peer_id]


async def test_p5_an_address_that_is_another_peers_is_not_dialled(autojump_clock: trio.testing.MockClock) -> None:
    network = FakeNetwork(1)
    async with (
        relay(network, 1) as (mesh, node),
        relay(network, 2) as (victim, _),
        watching(network, mesh.addresses) as watch,
    ):
        await connected(watch)
        await mesh.publish(TOPIC, node.advert(offer(relays_at=(victim.addresses[0], "nonsense"))))
        await trio.sleep(30)
        assert [one.peer_id for one in watch.peers()] == [mesh.peer_id]


async def test_regions_that_are_not_watched_are_not_heard(autojump_clock: trio.testing.MockClock) -> None:
    network = FakeNetwork(1)
    async with relay(network, 1) as (mesh, node), watching(network, mesh.addresses, regions=("eu",)) as watch:
        await connected(watch)
        await mesh.publish(TOPIC, node.advert())
        assert watch.offers() == ()


async def _watch_all(network: FakeNetwork, meshes: Sequence[Mesh], nursery: trio.Nursery) -> list[dict[str, Offer]]:
    """Every mesh relays, and keeps what it believed newest of each node."""
    tables: list[dict[str, Offer]] = []

    async def listen(mesh: Mesh, table: dict[str, Offer], task_status: trio.TaskStatus[None]) -> None:
        def take(heard: object) -> None:
            table[heard.peer_id] = heard.offer  # type: ignore[attr-defined]

        async with mesh.subscribe(TOPIC, judge().validator(TOPIC, take), capacity=64) as messages:
            task_status.started()
            async for _ in messages:
                pass

    for mesh in meshes:
        tables.append({})

        async def start(
            mesh: Mesh = mesh,
            table: dict[str, Offer] = tables[-1],
            *,
            task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
        ) -> None:
            await listen(mesh, table, task_status)

        await nursery.start(start)
    return tables


@pytest.mark.parametrize("count", [30, pytest.param(100, marks=pytest.mark.slow)])
async def test_p5_nodes_partitioned_and_healed_agree_again_within_three_adverts(
    count: int, autojump_clock: trio.testing.MockClock
) -> None:
    network = FakeNetwork(7)
    nodes = [speaker(number) for number in range(1, count + 1)]
    async with trio.open_nursery() as nursery:
        meshes = [await _opened(network, node, nursery) for node in nodes]
        tables = await _watch_all(network, meshes, nursery)
        for number, mesh in enumerate(meshes):
            for step in (1, 7, 12):
                nursery.start_soon(mesh.keep_connected, meshes[(number + step) % count].addresses[0])
        await until(lambda: all(len(mesh.connected()) >= 6 for mesh in meshes))

        async def round_of(rate: int) -> None:
            for number, (node, mesh) in enumerate(zip(nodes, meshes, strict=True)):
                await mesh.publish(TOPIC, node.advert(offer(rate_qu_per_h=rate + number)))

        await round_of(1_000)
        assert all(len(table) == count - 1 for table in tables)
        network.partition([[mesh.peer_id for mesh in meshes[part::3]] for part in range(3)])
        await trio.sleep(20)
        await round_of(2_000)
        assert not _agree(nodes, tables, 2_000), "the parts do not hear each other"
        network.heal()
        adverts = 0
        while not _agree(nodes, tables, 3_000):
            adverts += 1
            assert adverts <= 3
            await trio.sleep(10)
            await round_of(3_000)
        nursery.cancel_scope.cancel()


def _agree(nodes: Sequence[Speaker], tables: Sequence[dict[str, Offer]], rate: int) -> bool:
    """Everybody has the newest of everybody else."""
    newest = {node.peer_id: rate + number for number, node in enumerate(nodes)}
    return all(
        {peer: said.rate_qu_per_h for peer, said in table.items()} == {p: r for p, r in newest.items() if p != own}
        for own, table in zip(newest, tables, strict=True)
    )


async def _opened(network: FakeNetwork, node: Speaker, nursery: trio.Nursery) -> Mesh:
    async def hold(task_status: trio.TaskStatus[Mesh]) -> None:
        async with open_fake_mesh(network, node.key.seed) as mesh:
            task_status.started(mesh)
            await trio.sleep_forever()

    mesh: Mesh = await nursery.start(hold)
    return mesh


async def test_over_libp2p() -> None:
    """A relay that another node dials; the watcher knows the relay alone."""
    node = speaker(2)
    async with (
        open_mesh(speaker(1).key.seed) as first,
        open_mesh(node.key.seed, listen=()) as second,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(_pass_on, first)
        await second.connect(first.addresses[0], timeout_s=10)
        watch = Watch(network="devnet", coordinator=COORDINATOR.public, bootstrap=first.addresses)
        nursery.start_soon(watch.run)

        async def say() -> None:
            await second.publish(TOPIC, node.advert(offer(rate_qu_per_h=42)))

        await repeat_until(say, lambda: bool(watch.offers()))
        assert {(one.peer_id, one.offer.rate_qu_per_h) for one in watch.offers()} == {(node.peer_id, 42)}
        assert [(one.peer_id, one.connected) for one in watch.peers()] == [(first.peer_id, True)]
        nursery.cancel_scope.cancel()
