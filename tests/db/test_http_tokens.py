# SPDX-License-Identifier: Apache-2.0
"""Tokens that people make for programs: what they open, when they end, and that they are told once."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from quart.typing import TestClientProtocol as Client

from qubix_coordinator.accounts import sessions
from qubix_coordinator.accounts.rules import Scope, grantable
from qubix_coordinator.accounts.service import TOKENS_MAX
from qubix_coordinator.db.database import Database, execute, value
from qubix_protocol.wallets import SessionsView, SessionView, TokenView
from tests.db.support_http import Person, assembled, make_person, served
from tests.db.test_http_api import ask, problem
from tests.db.test_live_feed import feed_of

API = "/api/v1"


@pytest_asyncio.fixture
async def client(db: Database, tmp_path: Path) -> Client:
    return (await assembled(db, tmp_path)).app.test_client()


async def made(client: Client, person: Person, **changed: Any) -> TokenView:
    body = {"name": "a program", "scopes": ["read"], "life_s": 3600, **changed}
    answer = await ask(client, "POST", f"{API}/tokens", person, json=body)
    assert answer.status_code == 201, await answer.get_data()
    assert answer.headers["Cache-Control"] == "no-store"
    return msgspec.json.decode(await answer.get_data(), type=TokenView)


async def listed(client: Client, person: Person) -> dict[str, SessionView]:
    answer = await ask(client, "GET", f"{API}/sessions", person)
    found = msgspec.json.decode(await answer.get_data(), type=SessionsView)
    return {one.session_id: one for one in found.sessions}


@pytest.mark.asyncio
async def test_a_token_is_told_once_and_listed_with_its_scopes_and_end(client: Client, db: Database) -> None:
    person = await make_person(db)
    view = await made(client, person, scopes=["user", "read"])
    assert view.token not in repr(view)
    found = (await listed(client, person))[view.session.session_id]
    assert (found.name, found.scopes, found.kind) == ("a program", ("read", "user"), "token")
    assert found.expires_ms is not None
    assert found.expires_ms - found.created_ms == 3_600_000
    assert view.token.encode() not in await (await ask(client, "GET", f"{API}/sessions", person)).get_data()
    async with db.transaction() as tx:
        assert await value(tx, "SELECT count(*) FROM api_token WHERE position($1 IN digest::text) > 0", view.token) == 0


@pytest.mark.asyncio
async def test_a_reading_token_looks_and_changes_nothing(client: Client, db: Database) -> None:
    person = await make_person(db)
    reader = Person(person.account_id, (await made(client, person)).token)
    for path in ("/account", "/jobs", "/offers", "/account/statement", "/sessions", "/provider/devices"):
        assert (await ask(client, "GET", API + path, reader)).status_code == 200, path
    for method, path in (
        ("POST", "/jobs/estimate"),
        ("POST", "/account/deposit-identity"),
        ("DELETE", "/sessions"),
        ("POST", "/tokens"),
        ("PATCH", "/provider/devices/00000000-0000-4000-8000-000000000001"),
    ):
        await problem(await ask(client, method, API + path, reader, json={}), 403, "forbidden", "Authorization")
    for path in ("/operator/overview", "/arbiter/disputes"):
        await problem(await ask(client, "GET", API + path, reader), 403, "forbidden", "Authorization")


@pytest.mark.asyncio
async def test_a_reading_token_follows_the_feed_and_signs_no_page_in(db: Database, tmp_path: Path) -> None:
    async with served(db, tmp_path) as running:
        person = await make_person(db)
        async with running.client(person) as http:
            body = {"name": "a screen", "scopes": ["read"]}
            token = (await http.post(f"{API}/tokens", json=body)).json()["token"]
            origin = {"Origin": running.url, "Authorization": ""}
            refused = await http.post(f"{API}/session", json={"token": token}, headers=origin)
            assert refused.status_code == 403
        async with feed_of(running, Person(person.account_id, token)) as feed:
            await feed.subscribe("account")
            assert (await feed.next()).kind == "snapshot"


@pytest.mark.asyncio
async def test_nobody_gives_what_they_have_not(client: Client, db: Database) -> None:
    for held, wanted in (
        ({Scope.USER}, "operator"),
        ({Scope.USER}, "gateway"),
        ({Scope.OPERATOR}, "user"),
        ({Scope.ARBITER}, "read"),
    ):
        person = await make_person(db, *held)
        body = {"name": "x", "scopes": [wanted]}
        await problem(await ask(client, "POST", f"{API}/tokens", person, json=body), 403, "forbidden", "scopes")
    operator = await make_person(db, Scope.USER, Scope.OPERATOR)
    program = Person(operator.account_id, (await made(client, operator, scopes=["operator"])).token)
    assert (await ask(client, "GET", f"{API}/operator/overview", program)).status_code == 200
    await problem(await ask(client, "GET", f"{API}/account", program), 403, "forbidden", "Authorization")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "changed",
    [{"scopes": []}, {"scopes": ["root"]}, {"name": ""}, {"life_s": 0}, {"life_s": 367 * 86_400}, {"token": "mine"}],
)
async def test_what_makes_no_sense_is_refused(client: Client, db: Database, changed: dict[str, Any]) -> None:
    person = await make_person(db)
    body = {"name": "a program", "scopes": ["read"], **changed}
    await problem(await ask(client, "POST", f"{API}/tokens", person, json=body), 422, "invalid_input")
    assert len(await listed(client, person)) == 1


@pytest.mark.asyncio
async def test_a_token_ends_by_itself_or_by_its_owner_s_word(client: Client, db: Database) -> None:
    person, stranger = await make_person(db), await make_person(db)
    late, revoked = await made(client, person), await made(client, person, life_s=None)
    async with db.transaction() as tx:
        await execute(
            tx,
            "UPDATE api_token SET created_at = created_at - interval '2 hours', expires_at = now() WHERE id = $1",
            late.session.session_id,
        )
    await problem(
        await ask(client, "GET", f"{API}/account", Person(person.account_id, late.token)), 401, "unauthorised", None
    )
    path = f"{API}/sessions/{revoked.session.session_id}"
    await problem(await ask(client, "DELETE", path, stranger), 404, "not_found", "session")
    program = Person(person.account_id, revoked.token)
    assert (await ask(client, "GET", f"{API}/account", program)).status_code == 200
    assert (await ask(client, "DELETE", path, person)).status_code == 200
    assert (await ask(client, "GET", f"{API}/account", program)).status_code == 401


@pytest.mark.asyncio
async def test_signing_out_everywhere_leaves_programs_at_work(client: Client, db: Database) -> None:
    person = await make_person(db)
    program = Person(person.account_id, (await made(client, person)).token)
    async with db.transaction() as tx:
        assert await sessions.revoke_all(tx, person.account_id) == 0
    assert (await ask(client, "GET", f"{API}/account", program)).status_code == 200


@pytest.mark.asyncio
async def test_there_are_only_so_many(client: Client, db: Database) -> None:
    person = await make_person(db)
    async with db.transaction() as tx:
        await execute(
            tx,
            "INSERT INTO api_token (id, digest, account_id, name, scopes, made_by_hand, expires_at)"
            " SELECT gen_random_uuid(), sha256(n::text::bytea), $1, 'x', ARRAY['read'], true, now() + interval '1 day'"
            " FROM generate_series(2, $2) n",
            person.account_id,
            TOKENS_MAX,
        )
    body = {"name": "one more", "scopes": ["read"]}
    await problem(await ask(client, "POST", f"{API}/tokens", person, json=body), 409, "conflict", "token")


@pytest.mark.parametrize(
    ("held", "may"),
    [
        ({Scope.USER}, {Scope.USER, Scope.READ}),
        ({Scope.READ}, {Scope.READ}),
        ({Scope.ARBITER}, {Scope.ARBITER}),
        ({Scope.USER, Scope.OPERATOR}, {Scope.USER, Scope.READ, Scope.OPERATOR}),
    ],
)
def test_reading_is_a_part_of_using(held: set[Scope], may: set[Scope]) -> None:
    assert grantable(frozenset(held)) == may
