# SPDX-License-Identifier: Apache-2.0
"""A person's code, a node's signed word, one click: the node is the person's (trust A2). And what is refused."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
import pytest_asyncio
import websockets

from qubix_coordinator.accounts import pairing_rules, pairings
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import Conflict
from qubix_coordinator.ledger import read
from qubix_protocol.envelope import ANYONE, seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import KeySignIn
from qubix_protocol.pairing import Pair, PairingView, digest_of_code, fingerprint
from tests.db.support_http import Person, Running, make_person, served

pytestmark = pytest.mark.asyncio


@dataclass
class Door:
    running: Running
    http: httpx.AsyncClient
    person: Person

    async def make(self, person: Person | None = None) -> dict[str, Any]:
        headers = (person or self.person).headers
        answer = await self.http.post("/api/v1/pairings", json={"name": "desk"}, headers=headers)
        assert answer.status_code == 201, answer.text
        assert answer.headers["Cache-Control"] == "no-store"
        found: dict[str, Any] = answer.json()
        return found

    def statement(self, key: SigningKey, code: str, **changed: Any) -> bytes:
        context = self.running.coordinator.context
        said: dict[str, Any] = {
            "network": context.network,
            "audience": context.key.public,
            "incarnation": 0,
            "counter": secrets.randbits(52),
            "expires_ms": context.now_ms() + 60_000,
        }
        message = changed.pop("message", Pair(code=code, clock_ms=context.now_ms()))
        return seal(message, key, **{**said, **changed})

    async def say(self, raw: bytes) -> httpx.Response:
        return await self.http.post("/api/v1/nodes/pair", content=raw, headers={"Content-Type": "application/msgpack"})

    async def bring(self, key: SigningKey, code: str) -> httpx.Response:
        return await self.say(self.statement(key, code))

    async def get(self, made: dict[str, Any], person: Person | None = None) -> httpx.Response:
        headers = (person or self.person).headers
        return await self.http.get(f"/api/v1/pairings/{made['pairing']['pairing_id']}", headers=headers)

    async def confirm(self, made: dict[str, Any], shown: str, person: Person | None = None) -> httpx.Response:
        return await self.http.post(
            f"/api/v1/pairings/{made['pairing']['pairing_id']}/confirm",
            json={"fingerprint": shown},
            headers=(person or self.person).headers,
        )

    async def refuse(self, made: dict[str, Any]) -> httpx.Response:
        return await self.http.delete(f"/api/v1/pairings/{made['pairing']['pairing_id']}", headers=self.person.headers)

    async def owner(self, key: SigningKey) -> UUID | None:
        async with self.running.db.transaction() as tx:
            return await tx_owner(tx, key)


async def tx_owner(tx: Any, key: SigningKey) -> UUID | None:
    from qubix_coordinator.db.database import value

    return await value(tx, "SELECT account_id FROM node WHERE peer_id = $1", key.peer_id)  # type: ignore[no-any-return]


@pytest_asyncio.fixture
async def door(db: Database, tmp_path: Path) -> AsyncIterator[Door]:
    person = await make_person(db)
    async with served(db, tmp_path) as running, running.client() as http:
        yield Door(running, http, person)


async def test_a_node_is_the_persons_once_its_fingerprint_is_confirmed(door: Door) -> None:
    made, key = await door.make(), SigningKey.generate()
    assert made["pairing"]["state"] == "waiting"
    assert (await door.confirm(made, fingerprint(key.public))).status_code == 409
    told = (await door.bring(key, made["code"])).json()
    assert (told["state"], told["fingerprint"]) == ("seen", fingerprint(key.public))
    seen = (await door.get(made)).json()
    assert (seen["state"], seen["peer_id"], seen["fingerprint"]) == ("seen", key.peer_id, fingerprint(key.public))
    assert await door.owner(key) != door.person.account_id
    done = await door.confirm(made, fingerprint(key.public).lower())
    assert done.status_code == 200, done.text
    assert done.json()["state"] == "confirmed"
    assert await door.owner(key) == door.person.account_id
    assert (await door.bring(key, made["code"])).json()["state"] == "confirmed"
    assert (await door.confirm(made, fingerprint(key.public))).json()["state"] == "confirmed"
    listed = (await door.http.get("/api/v1/pairings", headers=door.person.headers)).json()["pairings"]
    assert [one["state"] for one in listed] == ["confirmed"]


async def test_only_a_hash_of_the_code_is_kept(door: Door) -> None:
    made = await door.make()
    rows = await door.running.db.fetch("SELECT * FROM pairing")
    assert [bytes(row["digest"]) for row in rows] == [digest_of_code(made["code"])]
    everything = str([dict(row) for row in rows]) + str(
        [dict(row) for row in await door.running.db.fetch("SELECT * FROM event")]
    )
    assert made["code"] not in everything
    assert made["code"].replace("-", "") not in everything


async def test_the_nodes_key_opens_its_own_account_and_never_the_persons(door: Door) -> None:
    """What it earned before stays reachable; what the person has is out of a node's reach."""
    made, key = await door.make(), SigningKey.generate()
    await door.bring(key, made["code"])
    own = await door.owner(key)
    await door.confirm(made, fingerprint(key.public))
    context = door.running.coordinator.context
    statement = door.statement(key, "", message=KeySignIn(name="x", clock_ms=context.now_ms()))
    opened = await door.http.post(
        "/api/v1/key/sign-in", content=statement, headers={"Content-Type": "application/msgpack"}
    )
    assert opened.json()["account_id"] == str(own)
    assert own != door.person.account_id


async def test_what_is_not_to_be_believed_pairs_nothing(door: Door) -> None:
    made, key, other = await door.make(), SigningKey.generate(), SigningKey.generate()
    context = door.running.coordinator.context
    good = door.statement(key, made["code"])
    wrong = {
        "another network": door.statement(key, made["code"], network="test"),
        "another coordinator": door.statement(key, made["code"], audience=other.public),
        "anyone": door.statement(key, made["code"], audience=ANYONE),
        "expired": door.statement(key, made["code"], expires_ms=context.now_ms() - 1),
        "another statement": door.statement(key, "", message=KeySignIn(name="x", clock_ms=0)),
        "a code that nobody made": door.statement(key, "7777-7777-7777-7777-7777-7777-77"),
        "no code": door.statement(key, "hello"),
        "a broken signature": good[:-1] + bytes([good[-1] ^ 1]),
        "rubbish": b"rubbish",
    }
    for what, raw in wrong.items():
        answer = await door.say(raw)
        assert 400 <= answer.status_code < 500, what
        assert answer.json()["detail"], what
    assert (await door.get(made)).json()["state"] == "waiting"
    assert await door.running.db.fetch_value("SELECT count(*) FROM node") == 0


async def test_a_replayed_statement_does_nothing_for_who_replays_it(door: Door) -> None:
    made, key = await door.make(), SigningKey.generate()
    raw = door.statement(key, made["code"])
    first = (await door.say(raw)).json()
    again = (await door.say(raw)).json()
    assert again == first
    await door.refuse(made)
    assert (await door.say(raw)).json()["state"] == "refused"
    assert await door.owner(key) != door.person.account_id


async def test_a_code_serves_one_node_and_the_person_sees_that_another_came(door: Door) -> None:
    made, first, second = await door.make(), SigningKey.generate(), SigningKey.generate()
    assert (await door.bring(first, made["code"])).status_code == 200
    late = await door.bring(second, made["code"])
    assert late.status_code == 409
    assert "another node" in late.json()["detail"]
    seen = (await door.get(made)).json()
    assert (seen["peer_id"], seen["others"]) == (first.peer_id, 1)
    assert (await door.confirm(made, fingerprint(second.public))).status_code == 422
    assert (await door.get(made)).json()["state"] == "seen"


async def test_of_two_nodes_at_once_one_is_seen(door: Door) -> None:
    made, keys = await door.make(), [SigningKey.generate() for _ in range(6)]
    answers = await asyncio.gather(*(door.bring(key, made["code"]) for key in keys))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]
    winner = keys[[answer.status_code for answer in answers].index(200)]
    seen = (await door.get(made)).json()
    assert (seen["peer_id"], seen["others"]) == (winner.peer_id, 5)


async def test_a_code_ends_after_ten_minutes_and_its_confirmation_after_an_hour(door: Door) -> None:
    early, late = await door.make(), await door.make()
    key = SigningKey.generate()
    await door.bring(key, late["code"])
    async with door.running.db.transaction() as tx:
        now_ms = door.running.coordinator.context.now_ms()
        account_id = door.person.account_id
        for made, life_ms, state in (
            (early, pairing_rules.CODE_LIFE_MS, "waiting"),
            (late, pairing_rules.CONFIRM_LIFE_MS, "seen"),
        ):
            pairing_id = UUID(made["pairing"]["pairing_id"])
            assert (await pairings.view(tx, account_id, pairing_id)).state == state
            if state == "waiting":
                found = await pairings.brought(tx, key.peer_id, made["code"], now_ms=now_ms + life_ms)
            else:
                found = await pairings.confirm(
                    tx, account_id, pairing_id, fingerprint(key.public), now_ms=now_ms + life_ms
                )
            assert isinstance(found, Conflict), state
            assert (await pairings.view(tx, account_id, pairing_id)).state == "expired"
        assert await tx_owner(tx, key) != account_id


async def test_what_nobody_brings_or_confirms_is_swept(door: Door) -> None:
    made, seen = await door.make(), await door.make()
    await door.bring(SigningKey.generate(), seen["code"])
    now_ms = door.running.coordinator.context.now_ms()
    assert await door.running.db.run(lambda tx: pairings.sweep(tx, now_ms=now_ms)) == 0
    later_ms = now_ms + pairing_rules.CONFIRM_LIFE_MS + 1_000
    assert await door.running.db.run(lambda tx: pairings.sweep(tx, now_ms=later_ms)) == 2
    assert [(await door.get(one)).json()["state"] for one in (made, seen)] == ["expired", "expired"]
    much_later_ms = later_ms + pairing_rules.KEPT_MS + 1_000
    await door.running.db.run(lambda tx: pairings.sweep(tx, now_ms=much_later_ms))
    assert await door.running.db.fetch_value("SELECT count(*) FROM pairing") == 0


async def test_a_pairing_is_its_accounts_alone(door: Door) -> None:
    made, key = await door.make(), SigningKey.generate()
    await door.bring(key, made["code"])
    other = await make_person(door.running.db)
    assert (await door.get(made, other)).status_code == 404
    assert (await door.confirm(made, fingerprint(key.public), other)).status_code == 404
    listed = await door.http.get("/api/v1/pairings", headers=other.headers)
    assert listed.json()["pairings"] == []
    assert (await door.http.post("/api/v1/pairings", json={})).status_code == 401


async def test_a_node_that_belongs_to_somebody_is_not_taken(door: Door) -> None:
    other, key = await make_person(door.running.db), SigningKey.generate()
    mine, yours, again = await door.make(), await door.make(other), await door.make()
    assert (await door.bring(key, mine["code"])).status_code == 200
    assert (await door.bring(key, yours["code"])).status_code == 200
    assert (await door.confirm(mine, fingerprint(key.public))).status_code == 200
    taken = await door.confirm(yours, fingerprint(key.public), other)
    assert taken.status_code == 409
    assert "another account" in taken.json()["detail"]
    assert await door.owner(key) == door.person.account_id
    third = await door.make(other)
    assert (await door.bring(key, third["code"])).status_code == 409
    assert (await door.get(third, other)).json()["state"] == "waiting"
    assert (await door.bring(key, again["code"])).status_code == 200
    assert (await door.confirm(again, fingerprint(key.public))).json()["state"] == "confirmed"


async def test_two_people_who_confirm_one_node_at_once_get_it_once(door: Door) -> None:
    other, key = await make_person(door.running.db), SigningKey.generate()
    mine, yours = await door.make(), await door.make(other)
    for made in (mine, yours):
        assert (await door.bring(key, made["code"])).status_code == 200
    shown = fingerprint(key.public)
    answers = await asyncio.gather(door.confirm(mine, shown), door.confirm(yours, shown, other))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    winner = door.person if answers[0].status_code == 200 else other
    assert await door.owner(key) == winner.account_id


async def test_the_oldest_of_too_many_codes_gives_way(door: Door) -> None:
    made = [await door.make() for _ in range(pairing_rules.OPEN_MAX + 2)]
    states = [(await door.get(one)).json()["state"] for one in made]
    assert states == ["refused", "refused"] + ["waiting"] * pairing_rules.OPEN_MAX
    assert (await door.bring(SigningKey.generate(), made[0]["code"])).status_code == 409


async def test_guessing_is_stopped_and_says_how_long_to_wait(door: Door) -> None:
    answers = [await door.bring(SigningKey.generate(), f"{n:026d}") for n in range(12)]
    assert [answer.status_code for answer in answers] == [404] * 10 + [429] * 2
    assert int(answers[-1].headers["Retry-After"]) >= 1
    made = await door.make()
    assert (await door.bring(SigningKey.generate(), made["code"])).status_code == 429


async def test_no_money_moves(door: Door) -> None:
    made, key = await door.make(), SigningKey.generate()
    await door.bring(key, made["code"])
    own = await door.owner(key)
    assert own is not None
    await door.confirm(made, fingerprint(key.public))
    assert await door.running.db.fetch_value("SELECT count(*) FROM transfer") == 0
    async with door.running.db.transaction() as tx:
        assert [(await read.balance(tx, one)).available_qu for one in (own, door.person.account_id)] == [0, 0]
        assert await accounts.account_of_key(tx, key.public) == own


async def test_a_page_follows_its_pairing(door: Door) -> None:
    made, key = await door.make(), SigningKey.generate()
    topic = f"pairing:{made['pairing']['pairing_id']}"

    async def state(socket: websockets.ClientConnection) -> PairingView:
        async with asyncio.timeout(30):
            frame = msgspec.json.decode(await socket.recv())
        assert frame["topic"] == topic
        return msgspec.convert(frame["data"], PairingView)

    async with websockets.connect(f"{door.running.ws}/live", additional_headers=door.person.headers) as socket:
        await socket.send(msgspec.json.encode({"subscribe": [topic]}).decode())
        assert (await state(socket)).state == "waiting"
        await door.bring(key, made["code"])
        seen = await state(socket)
        assert (seen.state, seen.fingerprint) == ("seen", fingerprint(key.public))
        await door.confirm(made, fingerprint(key.public))
        assert (await state(socket)).state == "confirmed"
    other = await make_person(door.running.db)
    async with websockets.connect(f"{door.running.ws}/live", additional_headers=other.headers) as socket:
        await socket.send(msgspec.json.encode({"subscribe": [topic]}).decode())
        async with asyncio.timeout(30):
            assert b"not_found" in str(await socket.recv()).encode()
