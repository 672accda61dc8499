# SPDX-License-Identifier: Apache-2.0
"""A provider opens the node's account by the node's key (trust A1): each statement once, here alone, in time."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from click.testing import CliRunner

import qubix
from qubix.cli import main
from qubix.settings import Settings
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts import sessions
from qubix_coordinator.db.database import Database
from qubix_protocol.envelope import ANYONE, seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Enrol, Host, KeySignIn
from tests.db.support_http import Running, served

pytestmark = pytest.mark.asyncio
HOST = Host(system="Linux", cpu_model="x", cpu_cores=1, memory_bytes=1, agent="t")


@dataclass
class Door:
    running: Running
    http: httpx.AsyncClient
    key: SigningKey

    def statement(self, key: SigningKey | None = None, **changed: Any) -> bytes:
        context = self.running.coordinator.context
        said = {
            "network": context.network,
            "audience": context.key.public,
            "incarnation": 0,
            "counter": secrets.randbits(52),
            "expires_ms": context.now_ms() + 60_000,
        }
        message = changed.pop("message", KeySignIn(name="here", clock_ms=context.now_ms()))
        return seal(message, key or self.key, **{**said, **changed})

    async def sign_in(self, raw: bytes) -> httpx.Response:
        return await self.http.post("/api/v1/key/sign-in", content=raw, headers={"Content-Type": "application/msgpack"})


@pytest_asyncio.fixture
async def door(db: Database, tmp_path: Path) -> AsyncIterator[Door]:
    async with served(db, tmp_path) as running, running.client() as http:
        key = SigningKey.generate()
        async with db.transaction() as tx:
            await accounts.ensure_node(tx, key.peer_id)
        yield Door(running, http, key)


async def test_a_nodes_key_opens_the_nodes_account(door: Door) -> None:
    answer = await door.sign_in(door.statement())
    assert answer.status_code == 201, answer.text
    view = answer.json()
    async with door.running.db.transaction() as tx:
        assert view["account_id"] == str(await accounts.account_of_node(tx, door.key.peer_id))
    headers = {"Authorization": f"Bearer {view['token']}"}
    account = (await door.http.get("/api/v1/account", headers=headers)).json()
    assert account["account_id"] == view["account_id"]
    assert account["scopes"] == ["user"]
    listed = (await door.http.get("/api/v1/sessions", headers=headers)).json()["sessions"]
    assert [(one["name"], one["current"], one["identity"]) for one in listed] == [("here", True, "")]
    assert listed[0]["expires_ms"] > listed[0]["created_ms"]


async def test_a_statement_serves_once_also_after_its_session_ended(door: Door) -> None:
    raw = door.statement()
    view = (await door.sign_in(raw)).json()
    assert (await door.sign_in(raw)).status_code == 401
    headers = {"Authorization": f"Bearer {view['token']}"}
    ended = await door.http.delete(f"/api/v1/sessions/{view['session']['session_id']}", headers=headers)
    assert ended.status_code == 200
    assert (await door.sign_in(raw)).status_code == 401
    for _ in range(5):
        assert (await door.sign_in(door.statement())).status_code == 201
    assert (await door.sign_in(raw)).status_code == 401


async def test_what_is_not_to_be_believed_opens_nothing(door: Door) -> None:
    context = door.running.coordinator.context
    other = SigningKey.generate()
    good = door.statement()
    enrol = Enrol(host=HOST, clock_ms=context.now_ms())
    wrong = {
        "another network": door.statement(network="test"),
        "another coordinator": door.statement(audience=other.public),
        "anyone": door.statement(audience=ANYONE),
        "expired": door.statement(expires_ms=context.now_ms() - 1),
        "another statement": door.statement(message=enrol),
        "a key that nobody knows": door.statement(other),
        "a broken signature": good[:-1] + bytes([good[-1] ^ 1]),
        "rubbish": b"rubbish",
    }
    for what, raw in wrong.items():
        answer = await door.sign_in(raw)
        assert 400 <= answer.status_code < 500, what
        assert answer.json()["detail"], what
    assert await door.running.db.fetch_value("SELECT count(*) FROM api_token WHERE expires_at IS NOT NULL") == 0


async def test_sessions_of_a_key_are_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 3)
    tokens = []
    for _ in range(5):
        tokens.append((await door.sign_in(door.statement())).json()["token"])
    open_now = [
        (await door.http.get("/api/v1/account", headers={"Authorization": f"Bearer {token}"})).status_code == 200
        for token in tokens
    ]
    assert open_now == [False, False, True, True, True]


async def test_the_sdk_keeps_the_session_like_any_other(door: Door, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "client", coordinator_url=door.running.url)
    async with qubix.AsyncClient(settings=settings) as client:
        view = await client.sign_in_by_key(door.key, name="laptop")
        assert (await client.account()).account_id == view.account_id
    async with qubix.AsyncClient(settings=settings) as again:
        assert (await again.account()).account_id == view.account_id
        assert (await again.sign_out()).ended


async def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "short.key").write_bytes(b"x" * 31)
    (tmp_path / "short.key").chmod(0o600)
    (tmp_path / "open.key").write_bytes(b"x" * 32)
    (tmp_path / "open.key").chmod(0o644)
    for name, status, told in (
        ("none.key", 2, "there is no node's key"),
        ("short.key", 2, "holds no key"),
        ("open.key", 1, "chmod 600"),
    ):
        done = CliRunner().invoke(
            main, ["provider", "login", "--key-file", str(tmp_path / name)], env={"QUBIX_DATA_DIR": str(tmp_path)}
        )
        assert done.exit_code == status, name
        assert told in done.output + (done.stderr if done.stderr_bytes else ""), name
