# SPDX-License-Identifier: Apache-2.0
"""`/mesh/link` against a gateway written out in the test: handshakes, refusals, commands, offers."""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from qubix_coordinator import outbox
from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.db.database import Database
from qubix_coordinator.jobs import verifiers
from qubix_protocol import envelope
from qubix_protocol.adverts import encode_advert
from qubix_protocol.channel import Channel, Exchange, Side, label_of
from qubix_protocol.keys import SigningKey
from qubix_protocol.link import (
    CoordinatorBatch,
    Drop,
    FromPeer,
    Gossip,
    LinkOpen,
    LinkReady,
    PeerDown,
    PeerUp,
    ToPeer,
    decode_coordinator,
    encode_gateway,
)
from qubix_protocol.messages import (
    Accept,
    Cancel,
    Certificate,
    Challenge,
    Device,
    DeviceSample,
    Heartbeat,
    Hello,
    Host,
    Message,
    Offer,
    Refused,
    Sample,
    Telemetry,
    Welcome,
)
from qubix_protocol.statements import FromCoordinator
from qubix_protocol.states import Availability, DeviceKind, Reason
from qubix_protocol.units import FRAME_BYTES_MAX
from tests.db.support_http import Person, Running, make_person, served

pytestmark = pytest.mark.asyncio
HOST = Host(system="Linux", cpu_model="x", cpu_cores=2, memory_bytes=1, agent="test")
ATTEMPT = "00000000-0000-4000-8000-000000000001"
DEADLINE_S = 20


def offer(device_id: str = "cpu-1") -> Offer:
    device = Device(device_id=device_id, kind=DeviceKind.CPU, model="x", memory_bytes=1, backends=("cpu",))
    return Offer(device=device, rate_qu_per_h=1, region="local", availability=Availability.AVAILABLE)


class Gateway:
    """What a gateway does with its WebSocket, and what the nodes behind it say."""

    def __init__(self, socket: ClientConnection, running: Running) -> None:
        self._socket, self.running = socket, running
        self._waiting: list[Any] = []

    async def send(self, *items: Any) -> None:
        await self._socket.send(encode_gateway(items))

    async def next(self, kind: type[Any], peer_id: str | None = None) -> Any:
        """The next item of a kind (for a peer); others wait for their turn."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for item in self._waiting:
                    if isinstance(item, kind) and peer_id in (None, getattr(item, "peer_id", None)):
                        self._waiting.remove(item)
                        return item
                self._waiting += decode_coordinator(bytes(await self._socket.recv()))


class Node:
    """One node's half of the control session."""

    def __init__(self, gateway: Gateway, key: SigningKey | None = None) -> None:
        self.gateway, self.key = gateway, key or SigningKey.generate()
        self.coordinator = gateway.running.coordinator.context.key.public
        self.incarnation, self._counter = 0, itertools.count(1)
        self.welcome: Welcome | None = None
        self.channel: Channel | None = None

    @property
    def peer_id(self) -> str:
        return self.key.peer_id

    def seal(self, message: Message, **wrong: Any) -> bytes:
        """Signed, and encrypted unless it is gossip."""
        signed = self.sign(message, **wrong)
        if self.channel is None or wrong.get("audience") == envelope.ANYONE:
            return signed
        return self.channel.encrypt(signed)

    def sign(self, message: Message, **wrong: Any) -> bytes:
        how: dict[str, Any] = {
            "network": "devnet",
            "audience": self.coordinator,
            "incarnation": self.incarnation,
            "counter": next(self._counter),
            "expires_ms": self.gateway.running.coordinator.context.now_ms() + 60_000,
        }
        return envelope.seal(message, wrong.pop("key", self.key), **{**how, **wrong})

    def advert(self, message: Message, **wrong: Any) -> bytes:
        """An offer for gossip, under the certificate of the newest welcome."""
        assert self.welcome is not None
        return encode_advert(self.welcome.certificate, self.sign(message, **{"audience": envelope.ANYONE, **wrong}))

    async def say(self, *raw: bytes) -> None:
        await self.gateway.send(FromPeer(peer_id=self.peer_id, frames=raw))

    async def hear(self, kind: type[Any]) -> Any:
        opened = envelope.open_envelope(
            await self._frame(),
            network="devnet",
            audience=self.key.public,
            now_ms=self.gateway.running.coordinator.context.now_ms(),
            sender=self.coordinator,
        )
        assert opened.header.incarnation == self.incarnation
        return opened.body(kind)

    async def _frame(self) -> bytes:
        """The envelope in the next frame for this node."""
        item = await self.gateway.next(ToPeer, self.peer_id)
        frame: bytes = item.frames[0]
        if label_of(frame) == "challenge":
            return frame
        assert self.channel is not None
        return self.channel.decrypt(frame)

    async def hello(self, **wrong: Any) -> bytes:
        await self.gateway.send(PeerUp(peer_id=self.peer_id))
        challenge = await self.hear(Challenge)
        exchange = Exchange(secrets.token_bytes(32))
        self.channel = exchange.channel(challenge.exchange, nonce=challenge.nonce, side=Side.NODE)
        nonce = wrong.pop("nonce", challenge.nonce)
        hello = Hello(nonce=nonce, exchange=exchange.public, clock_ms=1, host=HOST)
        return self.channel.encrypt(self.sign(hello, **wrong), exchange.public)

    async def shake_hands(self) -> Welcome:
        self.incarnation = 0
        await self.say(await self.hello())
        opened = envelope.read_evidence(await self._frame(), network="devnet", sender=self.coordinator)
        welcome = opened.body(Welcome)
        assert opened.header.incarnation == welcome.incarnation
        self.incarnation, self.welcome = welcome.incarnation, welcome
        return welcome


@contextlib.asynccontextmanager
async def gateway_of(running: Running, token: str, network: Any = "devnet") -> AsyncIterator[Gateway]:
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(f"{running.ws}/mesh/link", additional_headers=headers) as socket:
        gateway = Gateway(socket, running)
        await gateway.send(LinkOpen(gateway_peer_id="gw", addresses=("/ip4/1.2.3.4/tcp/1",), network=network))
        yield gateway


@contextlib.asynccontextmanager
async def market(db: Database, data_dir: Path) -> AsyncIterator[tuple[Running, Gateway]]:
    async with served(db, data_dir) as running:
        token = (data_dir / "gateway.token").read_text().strip()
        async with gateway_of(running, token) as gateway:
            ready = await gateway.next(LinkReady)
            assert ready.topics == ("qubix/devnet/offers/local",)
            assert ready.coordinator == running.coordinator.context.key.public
            yield running, gateway


async def refused(running: Running, code: str) -> float:
    text = await scrape(running)
    found = [line for line in text.splitlines() if line.startswith(f'qubix_messages_refused_total{{code="{code}"}}')]
    return float(found[0].split()[-1]) if found else 0.0


async def scrape(running: Running) -> str:
    async with running.client() as client:
        return (await client.get("/metrics")).text


async def until(condition: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 - what it waits for is seen from outside only
            await asyncio.sleep(0.02)


async def offers(running: Running, person: Person) -> list[Any]:
    async with running.client(person) as client:
        return list((await client.get("/api/v1/offers")).json()["offers"])


async def test_handshake_gives_incarnations_that_rise_and_a_certificate(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, gateway):
        node = Node(gateway)
        first = await node.shake_hands()
        said = envelope.read_evidence(first.certificate, network="devnet", sender=node.coordinator).body(Certificate)
        assert (said.peer_id, said.region) == (node.peer_id, "local")
        assert first.artifact_url == f"{running.url}/api/v1/artifacts"
        second = await node.shake_hands()
        assert second.incarnation == first.incarnation + 1
        assert second.account_id == first.account_id
        async with running.client() as client:
            assert (await client.get("/api/v1/network")).json()["gateways"] == ["/ip4/1.2.3.4/tcp/1"]
            await db.run(lambda tx: verifiers.beat(tx, "here", 1))
            assert (await client.get("/readyz")).json()["ready"] is True


HELLOS: dict[str, tuple[dict[str, Any], str]] = {
    "forged": ({"key": SigningKey(b"x" * 32)}, "bad_signature"),
    "wrong network": ({"network": "main"}, "wrong_network"),
    "wrong audience": ({"audience": b"y" * 32}, "wrong_audience"),
    "expired": ({"expires_ms": 1}, "expired"),
    "wrong nonce": ({"nonce": b"z" * 32}, "replayed"),
}


async def test_hellos_that_are_not_to_be_believed_are_counted_and_the_right_one_still_works(
    db: Database, tmp_path: Path
) -> None:
    async with market(db, tmp_path) as (running, gateway):
        for wrong, code in HELLOS.values():
            node = Node(gateway)
            before = await refused(running, code)
            await node.say(await node.hello(**wrong))

            async def counted(code: str = code, before: float = before) -> bool:
                return await refused(running, code) == before + 1

            await until(counted)
            await node.shake_hands()


async def test_statements_that_are_not_to_be_believed_are_refused_and_the_session_goes_on(
    db: Database, tmp_path: Path
) -> None:
    async with market(db, tmp_path) as (running, gateway):
        node = Node(gateway)
        await node.shake_hands()
        good = node.seal(Heartbeat())
        await node.say(good)
        for raw, code in (
            (good, "replayed"),
            (node.seal(Heartbeat(), incarnation=node.incarnation - 1), "replayed"),
            (node.seal(Heartbeat(), expires_ms=1), "expired"),
            (node.seal(Heartbeat(), network="test"), "wrong_network"),
            (node.seal(Heartbeat(), audience=b"y" * 32), "wrong_audience"),
            (b"\xc1 junk", "malformed"),
            (node.seal(Challenge(nonce=b"n" * 32, clock_ms=1, exchange=b"e" * 32)), "malformed"),
            (node.sign(Heartbeat()), "malformed"),
            (node.seal(Accept(attempt_id=ATTEMPT, fence=1)), "not_found"),
        ):
            before = await refused(running, code)
            await node.say(raw)
            answer = await node.hear(Refused)
            assert answer.code == code
            assert await refused(running, code) == before + 1
        forged = node.seal(Heartbeat(), key=SigningKey.generate())
        await node.say(forged, node.seal(Accept(attempt_id=ATTEMPT, fence=1)))
        assert (await node.hear(Refused)).code == "not_found"
        assert await refused(running, "bad_signature") == 1


async def test_an_oversized_frame_ends_the_link_and_is_counted(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, gateway):
        raw = msgspec.msgpack.encode({"items": [{"t": "from", "peer_id": "p", "frames": [bytes(FRAME_BYTES_MAX + 1)]}]})
        await gateway._socket.send(raw)
        with pytest.raises(ConnectionClosed) as closed:
            await gateway.next(CoordinatorBatch)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        assert await refused(running, "malformed") == 1


async def test_offers_reach_the_market_and_leave_with_their_node(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    async with market(db, tmp_path) as (running, gateway):
        node, stranger = Node(gateway), Node(gateway)
        await node.shake_hands()
        raw = node.advert(offer())
        await gateway.send(
            Gossip(author=stranger.peer_id, topic="t", data=raw),
            Gossip(author=node.peer_id, topic="t", data=raw),
            Gossip(author=node.peer_id, topic="t", data=raw),
        )

        async def listed() -> bool:
            return len(await offers(running, person)) == 1

        async def gone() -> bool:
            return not await offers(running, person)

        await until(listed)
        assert await refused(running, "no_session") == 1
        sample = Sample(at_ms=running.coordinator.context.now_ms(), utilisation_pct=12.5)
        await node.say(node.seal(Telemetry(samples=(DeviceSample(device_id="cpu-1", sample=sample),))))

        async def measured() -> bool:
            found = (await offers(running, person))[0]["metrics"]
            return found is not None and found["utilisation_pct"] == 12.5

        await until(measured)
        key = (await offers(running, person))[0]["listing_id"]
        async with running.client(person) as client:
            told = await client.get(f"/api/v1/offers/{key}/readings?minutes=5")
            assert [one["utilisation_pct"] for one in told.json()["readings"]] == [12.5]
            assert told.json()["listing_id"] == key
            assert (await client.get(f"/api/v1/offers/{key}/readings?minutes=0")).status_code == 422
            nobody = await client.get("/api/v1/offers/7d444840-9dc0-11d1-b245-5ffdce74fad2/readings")
            assert (nobody.status_code, nobody.json()["field"]) == (404, "listing_id")
        await gateway.send(PeerDown(peer_id=node.peer_id))
        await until(gone)


async def test_p5_relays_are_named_to_others_while_they_are_here(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, gateway):
        node = Node(gateway)
        await node.shake_hands()
        own, others = f"/ip4/1.2.3.4/tcp/5/p2p/{node.peer_id}", f"/ip4/1.2.3.4/tcp/5/p2p/{Node(gateway).peer_id}"

        async def told() -> list[str]:
            async with running.client() as client:
                return list((await client.get("/api/v1/network")).json()["relays"])

        async def named() -> bool:
            return await told() == [own]

        async def nobody() -> bool:
            return await told() == []

        relaying = msgspec.structs.replace(offer(), relays_at=(own, others))
        await gateway.send(Gossip(author=node.peer_id, topic="t", data=node.advert(relaying)))
        await until(named)
        await gateway.send(Gossip(author=node.peer_id, topic="t", data=node.advert(offer())))
        await until(nobody)
        await gateway.send(Gossip(author=node.peer_id, topic="t", data=node.advert(relaying)))
        await until(named)
        await gateway.send(PeerDown(peer_id=node.peer_id))
        await until(nobody)


async def test_offers_that_come_late_are_counted_and_the_node_is_not_blamed(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    async with market(db, tmp_path) as (running, gateway):
        node = Node(gateway)
        await node.shake_hands()
        expired_ms = running.coordinator.context.now_ms() - 600_000
        first = node.advert(offer())
        of_another_session = node.advert(offer(), incarnation=node.incarnation - 1)
        expired = node.advert(offer(), expires_ms=expired_ms)
        newest = node.advert(offer())
        # More than a node may say wrong things before it is cut off.
        late = [first, of_another_session, expired] * 100
        await gateway.send(*(Gossip(author=node.peer_id, topic="t", data=raw) for raw in [newest, *late]))
        assert node.channel is not None
        await node.say(node.channel.encrypt(node.sign(Heartbeat(), audience=envelope.ANYONE)))
        assert (await node.hear(Refused)).code == "wrong_audience", "nothing was refused before"
        assert await refused(running, "replayed") == 200
        assert await refused(running, "expired") == 100
        assert len(await offers(running, person)) == 1


async def test_commands_reach_the_node_signed_for_it(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, gateway):
        node = Node(gateway)
        await node.shake_hands()
        command = Cancel(attempt_id=ATTEMPT, fence=3, reason=Reason.SUPERSEDED)
        async with db.transaction() as tx:
            await outbox.emit(tx, f"node:{node.peer_id}", msgspec.to_builtins(command))
        assert await node.hear(Cancel) == command
        assert msgspec.convert(msgspec.to_builtins(command), FromCoordinator) == command
        assert running.coordinator.context.mesh.reachable(node.peer_id)


async def test_the_newest_session_speaks_for_a_node_and_the_older_is_dropped(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, gateway):
        other = await make_person(db, Scope.GATEWAY)
        async with gateway_of(running, other.token) as second:
            await second.next(LinkReady)
            key = SigningKey.generate()
            older, newer = Node(gateway, key), Node(second, key)
            await older.shake_hands()
            await newer.shake_hands()
            assert (await gateway.next(Drop)).peer_id == key.peer_id
            command = Cancel(attempt_id=ATTEMPT, fence=3, reason=Reason.SUPERSEDED)
            async with db.transaction() as tx:
                await outbox.emit(tx, f"node:{key.peer_id}", msgspec.to_builtins(command))
            assert await newer.hear(Cancel) == command


async def test_a_peer_up_alone_takes_nothing_from_a_live_session(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, gateway):
        other = await make_person(db, Scope.GATEWAY)
        async with gateway_of(running, other.token) as second:
            node = Node(gateway)
            await node.shake_hands()
            await second.send(PeerUp(peer_id=node.peer_id))
            await second.next(ToPeer)
            await node.say(node.seal(Accept(attempt_id=ATTEMPT, fence=1)))
            assert (await node.hear(Refused)).code == "not_found"


async def test_a_peer_id_of_no_ed25519_key_is_dropped(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, gateway):
        await gateway.send(PeerUp(peer_id="nonsense"))
        assert (await gateway.next(Drop)).peer_id == "nonsense"
        assert await refused(running, "malformed") == 1


async def test_only_gateways_of_this_network_get_a_link(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    async with served(db, tmp_path) as running:
        for token, status in (("", 401), ("qx_" + "A" * 43, 401), (person.token, 403)):
            with pytest.raises(InvalidStatus) as caught:
                async with gateway_of(running, token):
                    pass
            assert caught.value.response.status_code == status
            assert caught.value.response.headers["Content-Type"] == "application/problem+json"
        headers = {"Authorization": f"Bearer {(tmp_path / 'gateway.token').read_text().strip()}"}
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"{running.ws}/mesh/link", additional_headers=headers, origin="https://evil.example"):  # type: ignore[arg-type]
                pass
        assert caught.value.response.status_code == 403
        async with gateway_of(running, headers["Authorization"][7:], network="main") as gateway:
            with pytest.raises(ConnectionClosed):
                await gateway.next(LinkReady)
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{running.url}/healthz")).status_code == 200
