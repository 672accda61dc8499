# SPDX-License-Identifier: Apache-2.0
"""A gateway that lies (trust.md P1, P2, P4): it can delay and drop, never speak for a node or make two fall out."""

from pathlib import Path
from typing import Any

import pytest

from qubix_coordinator.db.database import Database
from qubix_protocol import envelope
from qubix_protocol.keys import SigningKey
from qubix_protocol.link import FromPeer, Gossip, LinkReady, PeerUp, ToPeer
from qubix_protocol.messages import Challenge, Enrol, Heartbeat, Hello, Refused, Welcome
from tests.db.support_http import make_person, served
from tests.db.test_mesh_link import HOST, Node, gateway_of, market, offer, offers, refused, until

pytestmark = pytest.mark.asyncio


async def test_p4_offers_of_one_node_under_anothers_name_are_refused_and_blame_neither(
    db: Database, tmp_path: Path
) -> None:
    person = await make_person(db)
    async with market(db, tmp_path) as (running, gateway):
        one, other = Node(gateway), Node(gateway)
        await one.shake_hands()
        await other.shake_hands()
        swapped = [one.advert(offer(f"cpu-{n}")) for n in range(300)]
        for raw in swapped:
            await gateway.send(Gossip(author=other.peer_id, topic="t", data=raw))
        # 300 refusals would have ended the session of a node that said these things itself.
        await until(lambda: counted(running, "bad_signature", 300))
        await gateway.send(Gossip(author=other.peer_id, topic="t", data=other.advert(offer())))
        await until(lambda: listed(running, person, other.peer_id))
        assert [one["provider"] for one in await offers(running, person)] == [other.peer_id]


async def counted(running: Any, code: str, times: int) -> bool:
    return await refused(running, code) >= times


async def listed(running: Any, person: Any, peer_id: str) -> bool:
    return peer_id in [one["provider"] for one in await offers(running, person)]


async def test_p4_another_gateway_cannot_take_over_speak_for_or_end_a_session(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, gateway):
        token = (tmp_path / "gateway.token").read_text().strip()
        node = Node(gateway)
        await node.shake_hands()
        async with gateway_of(running, token) as rogue:
            await rogue.next(LinkReady)
            await rogue.send(PeerUp(peer_id=node.peer_id))
            await rogue.next(ToPeer, node.peer_id)
            recorded = node.seal(Heartbeat())
            await rogue.send(FromPeer(peer_id=node.peer_id, frames=(recorded,)))
            await until(lambda: counted(running, "out_of_order", 1))
        # The session on the other gateway goes on, and the statement was not used up by the refusal there.
        await node.say(recorded)
        await node.say(recorded)
        await until(lambda: counted(running, "replayed", 1))
        assert running.coordinator.context.mesh.reachable(node.peer_id)


async def test_p1_frames_reordered_repeated_or_of_another_session_are_refused(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, gateway):
        node = Node(gateway)
        await node.shake_hands()
        first, second = node.seal(Heartbeat()), node.seal(Heartbeat())
        await node.say(second, first, second)
        for _ in range(2):
            assert (await node.hear(Refused)).code == "replayed"
        old = node.seal(Heartbeat())
        await node.shake_hands()
        await node.say(old, node.seal(Heartbeat(), incarnation=node.incarnation - 1))
        await until(lambda: counted(running, "bad_signature", 1))
        await until(lambda: counted(running, "replayed", 3))


async def test_p1_a_hello_of_an_earlier_challenge_opens_no_session(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, gateway):
        node = Node(gateway)
        recorded = await node.hello()
        await node.say(recorded)
        welcome = await node._frame()
        assert envelope.read_evidence(welcome, network="devnet", sender=node.coordinator).body(Welcome)
        await gateway.send(PeerUp(peer_id=node.peer_id))
        await node.hear(Challenge)
        await node.say(recorded)
        await until(lambda: counted(running, "bad_signature", 1))
        assert not running.coordinator.context.mesh.reachable(node.peer_id)


async def test_p1_what_is_signed_as_one_type_is_not_taken_as_another(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, gateway):
        node = Node(gateway)
        await node.shake_hands()
        await node.say(
            node.seal(Enrol(host=HOST, clock_ms=1)),
            node.seal(Hello(nonce=b"n" * 32, exchange=b"e" * 32, clock_ms=1, host=HOST)),
        )
        await until(lambda: counted(running, "malformed", 2))


async def test_a1_enrolling_again_and_a_replayed_enrolment_change_nothing(db: Database, tmp_path: Path) -> None:
    key = SigningKey.generate()
    async with served(db, tmp_path) as running, running.client() as client:
        context = running.coordinator.context
        raw = envelope.seal(
            Enrol(host=HOST, clock_ms=1),
            key,
            network="devnet",
            audience=context.key.public,
            incarnation=0,
            counter=0,
            expires_ms=context.now_ms() + 60_000,
        )
        headers = {"Content-Type": "application/msgpack"}
        found = [
            (await client.post("/api/v1/nodes/enrol", content=raw, headers=headers)).json()["account_id"]
            for _ in range(3)
        ]
        assert len(set(found)) == 1
        assert await db.fetch_value("SELECT count(*) FROM node") == 1
        assert await db.fetch_value("SELECT incarnation FROM node") == 0
