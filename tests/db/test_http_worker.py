# SPDX-License-Identifier: Apache-2.0
"""What workers are installed from, over HTTP: by hash, never changed, nothing beside it. And what a node hears."""

import base64
import functools
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
import pytest_asyncio

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.clock import FakeClock
from qubix_coordinator.db.database import Database
from qubix_coordinator.workers import shelf as shelves
from qubix_coordinator.workers import wheels
from qubix_protocol.envelope import seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.pairing import Pair, fingerprint
from qubix_protocol.worker import Manifest, NodeAsk, NodeSelfView, SignedManifest, believed
from tests.db.support_http import Person, Running, make_person, served

pytestmark = pytest.mark.asyncio
OWN, COMPILED = functools.cache(wheels.own), functools.cache(wheels.compiled)


@pytest.fixture(autouse=True)
def wheels_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For all coordinators here: they are the same files, and packing them takes a second or two."""
    monkeypatch.setattr(wheels, "own", OWN)
    monkeypatch.setattr(wheels, "compiled", COMPILED)


@pytest_asyncio.fixture
async def running(db: Database, tmp_path: Path) -> AsyncIterator[Running]:
    async with served(db, tmp_path) as found:
        yield found


async def manifest(http: httpx.AsyncClient, running: Running) -> Manifest:
    answer = await http.get("/worker/manifest")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-cache"
    signed = msgspec.json.decode(answer.content, type=SignedManifest)
    return believed(signed, running.coordinator.context.key.public)


async def test_every_file_of_the_list_is_there_by_its_hash_for_good(running: Running) -> None:
    async with running.client() as http:
        found = await manifest(http, running)
        assert await manifest(http, running) == found
        files = [*found.wheels, *found.requirements.values()]
        assert len(files) >= 11
        for file in files:
            answer = await http.get(f"/worker/files/{file.sha256}/{file.name}")
            assert answer.status_code == 200
            assert hashlib.sha256(answer.content).hexdigest() == file.sha256
            assert len(answer.content) == file.size_bytes
            assert "immutable" in answer.headers["Cache-Control"]
            assert answer.headers["Content-Disposition"] == "attachment"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        page = (await http.get("/worker/links")).text
        assert all(f"files/{file.sha256}/{file.name}#sha256={file.sha256}" in page for file in found.wheels)


async def test_nothing_beside_it_can_be_reached(running: Running) -> None:
    async with running.client() as http:
        found = await manifest(http, running)
        sha256, name = found.wheels[0].sha256, found.wheels[0].name
        other = found.wheels[-1].name if len(found.wheels) > 1 else "requirements-py3.11.txt"
        for path in (
            f"/worker/files/{sha256}/{other}",
            f"/worker/files/{'0' * 64}/{name}",
            f"/worker/files/{sha256}/..%2F..%2Fdeveloper.token",
            f"/worker/files/..%2f..%2f/{name}",
            f"/worker/files/{sha256}/../../developer.token",
            f"/worker/files/{sha256}/{name}%00",
            f"/worker/files/{sha256}/%2e%2e",
            "/worker/files/developer.token",
            "/worker/",
            "/worker/locks/py3.11.txt",
        ):
            answer = await http.get(path)
            assert answer.status_code == 404, path
            assert answer.json()["detail"], path


async def test_downloads_are_limited_by_address(db: Database, tmp_path: Path) -> None:
    """While the clock stands, so that none is granted anew however long these take."""
    async with served(db, tmp_path, clock=FakeClock()) as running, running.client() as http:
        answers = [(await http.get("/worker/manifest")) for _ in range(61)]
        assert [answer.status_code for answer in answers] == [200] * 60 + [429]
        assert int(answers[-1].headers["Retry-After"]) >= 1


@pytest.mark.parametrize("system", ["linux", "macos", "windows"])
async def test_a_person_gets_one_file_with_a_fresh_code(running: Running, system: str) -> None:
    person = await make_person(running.db)
    async with running.client(person) as http:
        views = [(await http.post("/api/v1/worker/installer", json={"system": system})).json() for _ in range(2)]
        assert all(view["pairing"]["state"] == "waiting" for view in views)
        assert views[0]["pairing"]["pairing_id"] != views[1]["pairing"]["pairing_id"]
        contents = [base64.b64decode(view["content_base64"]) for view in views]
        assert contents[0] != contents[1]
        if system == "linux":
            key = running.coordinator.context.key.public.hex()
            assert running.url.encode() in contents[0]
            assert key.encode() in contents[0]
    async with running.client() as http:
        assert (await http.post("/api/v1/worker/installer", json={"system": system})).status_code == 401
    async with running.client(person) as http:
        assert (await http.post("/api/v1/worker/installer", json={"system": "beos"})).status_code == 422


async def ask(running: Running, key: SigningKey) -> NodeSelfView:
    context = running.coordinator.context
    raw = seal(
        NodeAsk(clock_ms=context.now_ms()),
        key,
        network=context.network,
        audience=context.key.public,
        incarnation=0,
        counter=secrets.randbits(52),
        expires_ms=context.now_ms() + 60_000,
    )
    async with running.client() as http:
        answer = await http.post("/api/v1/nodes/self", content=raw, headers={"Content-Type": "application/msgpack"})
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=NodeSelfView)


async def test_a_node_hears_of_itself_and_asking_makes_nothing(running: Running) -> None:
    key, person = SigningKey.generate(), await make_person(running.db)
    stranger = await ask(running, key)
    assert stranger == NodeSelfView(fingerprint=fingerprint(key.public), paired=False, own_balance_qu=0)
    assert await running.db.fetch_value("SELECT count(*) FROM node") == 0
    async with running.db.transaction() as tx:
        await accounts.ensure_node(tx, key.peer_id)
    assert not (await ask(running, key)).paired
    await _pair(running, person, key)
    assert (await ask(running, key)).paired


async def _pair(running: Running, person: Person, key: SigningKey) -> None:
    context = running.coordinator.context
    async with running.client(person) as http:
        made = (await http.post("/api/v1/pairings", json={})).json()
        raw = seal(
            Pair(code=made["code"], clock_ms=context.now_ms()),
            key,
            network=context.network,
            audience=context.key.public,
            incarnation=0,
            counter=secrets.randbits(52),
            expires_ms=context.now_ms() + 60_000,
        )
        await http.post("/api/v1/nodes/pair", content=raw, headers={"Content-Type": "application/msgpack"})
        path = f"/api/v1/pairings/{made['pairing']['pairing_id']}/confirm"
        done = await http.post(path, json={"fingerprint": fingerprint(key.public)})
        assert done.json()["state"] == "confirmed"


async def test_the_files_are_made_once(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running.client() as http:
        await manifest(http, running)
        made = running.coordinator.context.worker_files.made
        assert isinstance(made, shelves.Shelf)
        await manifest(http, running)
        assert running.coordinator.context.worker_files.made is made
