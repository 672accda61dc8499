# SPDX-License-Identifier: Apache-2.0
"""Whom a peering dials, in which order, and what it lets go."""

from pathlib import Path

import pytest
import trio

from qubix_mesh.fake import FakeNetwork, open_fake_mesh
from qubix_mesh.peerbook import PeerBook
from qubix_mesh.peering import LEARNED_MAX, Peering
from tests.mesh.mesh_world import seed, until

pytestmark = pytest.mark.trio


async def test_bootstrap_is_kept_in_full_and_of_the_others_some_relays_first(tmp_path: Path) -> None:
    network = FakeNetwork(1)
    async with trio.open_nursery() as nursery:
        others = [await _opened(network, number, nursery) for number in range(2, 12)]
        book = PeerBook(tmp_path / "peers.json")
        for address in others[:6]:
            book.remember(address)
        async with open_fake_mesh(network, seed(1), listen=()) as mesh:
            changes: list[int] = []
            peering = Peering(mesh, others[6:8], book, most=2, changed=lambda: changes.append(1))
            peering.learn(others[0], relay=True)
            peering.learn("nonsense", relay=True)
            peering.learn_of("somebody", others[1])
            nursery.start_soon(peering.run)
            wanted = {_peer(one) for one in (others[6], others[7], others[0], others[5])}
            await until(lambda: mesh.connected() == wanted)
            assert {one.peer_id for one in peering.peers() if one.connected} == wanted
            assert [one.peer_id for one in peering.peers() if one.relay] == [_peer(others[0])]
            await until(lambda: bool(changes))
            await until(lambda: set(book.remembered()[:4]) == {others[6], others[7], others[0], others[5]})
            await mesh.disconnect(_peer(others[0]))
            assert mesh.connected() != wanted
            await until(lambda: mesh.connected() >= wanted)
            nursery.cancel_scope.cancel()


async def test_only_relays_while_that_is_enough_and_an_address_that_changed_is_followed(
    tmp_path: Path,
) -> None:
    network = FakeNetwork(1)
    async with trio.open_nursery() as nursery:
        gateway, relay = [await _opened(network, number, nursery) for number in (2, 3)]
        book = PeerBook(tmp_path / "peers.json")
        book.remember(gateway)
        async with open_fake_mesh(network, seed(1), listen=()) as mesh:
            linked = True
            peering = Peering(mesh, (), book, relays_only=lambda: linked)
            nursery.start_soon(peering.run)
            peering.learn(relay.replace("127.0.0.1", "127.0.0.9"), relay=True)
            await until(lambda: mesh.counters.dials_failed > 0)
            assert mesh.connected() == frozenset()
            peering.learn(relay, relay=True)
            await until(lambda: mesh.connected() == {_peer(relay)})
            linked = False
            await until(lambda: mesh.connected() == {_peer(relay), _peer(gateway)})
            nursery.cancel_scope.cancel()


async def test_what_is_learned_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async with open_fake_mesh(FakeNetwork(1), seed(1)) as mesh:
        peering = Peering(mesh, (), None)
        peering.learn(mesh.addresses[0], relay=True)
        assert peering.peers() == (), "oneself"
        for number in range(2, LEARNED_MAX + 50):
            async with open_fake_mesh(FakeNetwork(1), seed(number)) as other:
                peering.learn(other.addresses[0], relay=True)
        assert len(peering.peers()) == LEARNED_MAX


def _peer(address: str) -> str:
    return address.rpartition("/p2p/")[2]


async def _opened(network: FakeNetwork, number: int, nursery: trio.Nursery) -> str:
    async def hold(task_status: trio.TaskStatus[str]) -> None:
        async with open_fake_mesh(network, seed(number)) as mesh:
            task_status.started(mesh.addresses[0])
            await trio.sleep_forever()

    address: str = await nursery.start(hold)
    return address
