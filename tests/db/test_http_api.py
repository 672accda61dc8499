# SPDX-License-Identifier: Apache-2.0
"""The API over a real database: every kind of bad input gets problem+json that names the field and the remedy."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from quart.typing import TestClientProtocol as Client

from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.app import Coordinator
from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.jobs import verifiers
from qubix_protocol import envelope
from qubix_protocol.api import AccountView, EnrolView, NetworkView, Problem, StatementView
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Enrol, Heartbeat, Host, Message
from tests.db.support_http import Person, assembled, make_person
from tests.support.funds import fund

pytestmark = pytest.mark.asyncio
JOB = "00000000-0000-4000-8000-000000000001"
HOST = Host(system="Linux", cpu_model="x", cpu_cores=2, memory_bytes=1, agent="test")


@pytest_asyncio.fixture
async def coordinator(db: Database, tmp_path: Path) -> AsyncIterator[Coordinator]:
    yield await assembled(db, tmp_path)


@pytest_asyncio.fixture
async def person(db: Database) -> Person:
    return await make_person(db)


@pytest.fixture
def client(coordinator: Coordinator) -> Client:
    return coordinator.app.test_client()


async def ask(client: Client, method: str, path: str, person: Person | None = None, **more: Any) -> Any:
    headers = {**(person.headers if person else {}), **more.pop("headers", {})}
    return await client.open(path, method=method, headers=headers, **more)


async def problem(response: Any, status: int, code: str, field: str | None = None) -> Problem:
    body = await response.get_data()
    assert response.status_code == status, body
    assert response.content_type == "application/problem+json"
    told = msgspec.json.decode(body, type=Problem)
    assert (told.status, told.code) == (status, code), told
    assert told.remedy
    if field is not None:
        assert told.field == field
    return told


async def test_network_tells_what_to_pin(client: Client, coordinator: Coordinator) -> None:
    response = await ask(client, "GET", "/api/v1/network")
    told = msgspec.json.decode(await response.get_data(), type=NetworkView)
    assert told.coordinator_key == coordinator.context.key.public.hex()
    assert told.network == "devnet"
    assert told.gateways == ()


async def test_a_deposit_shows_in_balance_and_statement(client: Client, person: Person, db: Database) -> None:
    for _ in range(2):
        await fund(db, person.account_id, 500, "once")
    response = await ask(client, "GET", "/api/v1/account", person)
    told = msgspec.json.decode(await response.get_data(), type=AccountView)
    assert (told.balance_qu, told.held_qu, told.scopes) == (500, 0, ("user",))
    response = await ask(client, "GET", "/api/v1/account/statement", person)
    lines = msgspec.json.decode(await response.get_data(), type=StatementView).lines
    assert [(line.kind, line.amount_qu) for line in lines] == [("deposit", 500)]


async def test_nobody_credits_an_account_by_asking(client: Client, person: Person) -> None:
    response = await ask(client, "POST", "/api/v1/account/credit", person, json={"amount_qu": 1})
    await problem(response, 404, "not_found", "path")


async def test_statement_pages_follow_each_other(client: Client, person: Person, db: Database) -> None:
    for amount in (1, 2, 3):
        await fund(db, person.account_id, amount)
    first = await ask(client, "GET", "/api/v1/account/statement?limit=2", person)
    page = msgspec.json.decode(await first.get_data(), type=StatementView)
    rest = await ask(client, "GET", f"/api/v1/account/statement?limit=2&after={page.next}", person)
    last = msgspec.json.decode(await rest.get_data(), type=StatementView)
    assert [line.amount_qu for line in (*page.lines, *last.lines)] == [3, 2, 1]
    assert last.next is None


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b"{", 400, "malformed_body", "body"),
        (b"\xff\xfe", 400, "malformed_body", "body"),
        (b"[" * 100_000, 422, "invalid_input", "body"),
        (b'{"kernel": "knn", "cap_qu": 1} trailing', 400, "malformed_body", "body"),
        (b'{"cap_qu": "5"}', 422, "invalid_input", "cap_qu"),
        (b'{"cap_qu": true}', 422, "invalid_input", "cap_qu"),
        (b'{"cap_qu": 1e99}', 422, "invalid_input", "cap_qu"),
        (b'{"cap_qu": 99999999999999999999999999}', 422, "invalid_input", "cap_qu"),
        (b"{}", 422, "invalid_input", "kernel"),
        (b'{"kernel": "knn", "amount": 6}', 422, "invalid_input", "amount"),
        (b"[]", 422, "invalid_input", "body"),
        (b"", 400, "malformed_body", "body"),
        (b" " * (1024 * 1024 + 1), 413, "request_entity_too_large", None),
    ],
)
async def test_bad_json_is_told_by_field(
    client: Client, person: Person, body: bytes, status: int, code: str, field: str | None
) -> None:
    headers = {"Content-Type": "application/json"}
    response = await ask(client, "POST", "/api/v1/jobs", person, data=body, headers=headers)
    await problem(response, status, code, field)


async def test_other_media_are_refused(client: Client, person: Person) -> None:
    headers = {"Content-Type": "text/xml"}
    response = await ask(client, "POST", "/api/v1/jobs", person, data=b"<x/>", headers=headers)
    await problem(response, 415, "wrong_media", "Content-Type")
    response = await ask(
        client, "POST", "/api/v1/nodes/enrol", data=b"{}", headers={"Content-Type": "application/json"}
    )
    await problem(response, 415, "wrong_media", "Content-Type")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer nonsense", "Bearer qx_" + "A" * 43, "Basic eDp5", "Qubix AAAA"]
)
async def test_wrong_tokens_are_401_with_a_challenge(client: Client, header: str) -> None:
    response = await ask(client, "GET", "/api/v1/account", headers={"Authorization": header})
    await problem(response, 401, "unauthorised", "Authorization")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_token_opens_only_its_scopes(client: Client, person: Person, db: Database) -> None:
    await problem(await ask(client, "GET", "/api/v1/audit", person), 403, "forbidden", "Authorization")
    gateway = await make_person(db, Scope.GATEWAY)
    await problem(await ask(client, "GET", "/api/v1/account", gateway), 403, "forbidden", "Authorization")
    operator = await make_person(db, Scope.OPERATOR)
    response = await ask(client, "GET", "/api/v1/audit", operator)
    assert response.status_code == 200
    assert (await response.get_json())["clean"] is True


WHATS = ("history", "readings", "reputation", "selftest", "trials", "work")
LOOKS = ("", *(f"/{uuid.UUID(int=7)}/{what}" for what in WHATS))


@pytest.mark.parametrize("path", LOOKS)
async def test_a_visitor_looks_at_the_market(client: Client, path: str) -> None:
    answer = await ask(client, "GET", f"/api/v1/offers{path}")
    if path:
        await problem(answer, 404, "not_found")
    else:
        assert answer.status_code == 200


@pytest.mark.parametrize("path", LOOKS)
async def test_who_shows_a_token_is_no_visitor(client: Client, db: Database, path: str) -> None:
    wrong = {"Authorization": "Bearer nonsense"}
    await problem(await ask(client, "GET", f"/api/v1/offers{path}", headers=wrong), 401, "unauthorised")
    gateway = await make_person(db, Scope.GATEWAY)
    await problem(await ask(client, "GET", f"/api/v1/offers{path}", gateway), 403, "forbidden")


async def test_a_visitor_is_let_in_where_the_list_says_so_and_nowhere_else(client: Client) -> None:
    document = await (await ask(client, "GET", "/openapi.json")).get_json()
    ways = {
        f"{method.upper()} {path.removeprefix('/api/v1')}": operation.get("security", [{}])
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    looks = {f"GET /offers/{{listing_id}}/{what}" for what in WHATS}
    assert {name for name, way in ways.items() if way == [{"token": []}, {}]} == {"GET /offers", "GET /session"} | looks
    facts = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/network", "/kernels", "/chain", "/reserves"}
    signed = {"/key/sign-in", "/nodes/enrol", "/nodes/pair", "/nodes/self", "/nodes/statements", "/wallet/sign-in"}
    by_token_or_node = {"GET /artifacts/{digest}", "PUT /artifacts/{digest}"}
    begin = {"POST /session", "POST /wallet/challenge"}
    open_to_all = {f"GET {path}" for path in facts} | {f"POST {path}" for path in signed} | by_token_or_node | begin
    assert {name for name, way in ways.items() if way == [{}]} == open_to_all
    others = {name: way for name, way in ways.items() if way not in ([{}], [{"token": []}, {}])}
    assert all(way == [{"token": []}] for way in others.values())
    assert len(others) > 60


async def test_a_token_in_the_address_is_refused(client: Client, person: Person) -> None:
    response = await ask(client, "GET", f"/api/v1/account?token={person.token}", person)
    await problem(response, 422, "invalid_input", "token")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/api/v1/network/", 404, "not_found"),
        ("GET", "/api//v1/network", 404, "not_found"),
        ("GET", "/api/v1/jobs/not-a-uuid", 404, "not_found"),
        ("DELETE", "/api/v1/jobs", 405, "method_not_allowed"),
        ("PATCH", "/api/v1/account", 405, "method_not_allowed"),
    ],
)
async def test_unknown_paths_and_methods(client: Client, method: str, path: str, status: int, code: str) -> None:
    response = await ask(client, method, path)
    await problem(response, status, code)
    assert ("Allow" in response.headers) == (status == 405)
    assert (await response.get_json())["field"] == {404: "path", 405: "method"}[status]


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Host": "evil.example"}, "Host"),
        ({"Host": "127.0.0.1.evil.example"}, "Host"),
        ({"Origin": "https://evil.example"}, "Origin"),
        ({"Origin": "null"}, "Origin"),
    ],
)
async def test_other_hosts_and_origins_get_nothing(
    client: Client, person: Person, headers: dict[str, str], field: str
) -> None:
    response = await ask(client, "POST", "/api/v1/account/payout/stop", person, headers=headers)
    await problem(response, 403, "forbidden", field)


@pytest.mark.parametrize("host", ["localhost", "localhost:8600", "127.0.0.1:1", "[::1]:8600", "LOCALHOST"])
async def test_our_own_names_are_accepted(client: Client, person: Person, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    response = await ask(client, "POST", "/api/v1/account/payout/stop", person, headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("colour=red", "colour"),
        ("kind=abacus", "kind"),
        ("kind=cpu&kind=cuda", "kind"),
        ("backend=UPPER", "backend"),
        ("provider=" + "x" * 65, "provider"),
    ],
)
async def test_filters_that_cannot_be_honoured_are_refused(
    client: Client, person: Person, query: str, field: str
) -> None:
    await problem(await ask(client, "GET", f"/api/v1/offers?{query}", person), 422, "invalid_input", field)


async def test_offers_of_an_empty_market_have_a_cursor(client: Client, person: Person) -> None:
    response = await ask(client, "GET", "/api/v1/offers?kind=cpu&backend=cpu", person)
    told = await response.get_json()
    assert told["offers"] == []
    assert told["cursor"]


async def test_kernels_are_listed(client: Client) -> None:
    response = await ask(client, "GET", "/api/v1/kernels")
    assert {kernel["name"] for kernel in (await response.get_json())["kernels"]} >= {"matmul", "knn"}


async def test_jobs_that_are_not_there(client: Client, person: Person) -> None:
    for path in (f"/api/v1/jobs/{JOB}", f"/api/v1/jobs/{JOB}/result", f"/api/v1/jobs/{JOB}/receipts"):
        await problem(await ask(client, "GET", path, person), 404, "not_found")
    await problem(await ask(client, "POST", f"/api/v1/jobs/{JOB}/cancel", person), 404, "not_found")


async def test_a_job_needs_an_idempotency_key(client: Client, person: Person) -> None:
    body = {"kernel": "matmul", "inputs": {}, "cap_qu": 1}
    response = await ask(client, "POST", "/api/v1/jobs", person, json=body)
    await problem(response, 422, "invalid_input", "Idempotency-Key")


async def test_an_unknown_kernel_is_named(client: Client, person: Person) -> None:
    body = {"kernel": "abacus", "inputs": {}, "cap_qu": 1}
    response = await ask(client, "POST", "/api/v1/jobs", person, json=body, headers={"Idempotency-Key": "k"})
    assert response.status_code in (404, 422)
    told = await response.get_json()
    assert told["field"] == "kernel"
    assert told["remedy"]


async def test_a_kernel_without_arrays_needs_no_inputs(client: Client, person: Person, db: Database) -> None:
    params = {"width": 40, "height": 30}
    asked = {"kernel": "mandelbrot", "params": params}
    estimate = await ask(client, "POST", "/api/v1/jobs/estimate", person, json=asked)
    assert estimate.status_code == 200
    told = await estimate.get_json()
    assert (told["units"], told["output"]["iterations"]["shape"]) == (30, [30, 40])
    await fund(db, person.account_id, 50)
    key = {"Idempotency-Key": "picture"}
    made = [
        await ask(client, "POST", "/api/v1/jobs", person, json={**asked, "cap_qu": 9, **more}, headers=key)
        for more in ({}, {"inputs": {}})
    ]
    jobs = [await one.get_json() for one in made]
    assert [one.status_code for one in made] == [201, 201], jobs
    assert jobs[0]["job_id"] == jobs[1]["job_id"], "nothing and no inputs are the same request"
    given = {**asked, "cap_qu": 9, "inputs": {"a": {"digest": "0" * 64, "size_bytes": 1, "meta": ["float32", [1]]}}}
    wrong = await ask(client, "POST", "/api/v1/jobs", person, json=given, headers={"Idempotency-Key": "k"})
    assert wrong.status_code == 422


def enrolment(coordinator: Coordinator, key: SigningKey, message: Message | None = None, **wrong: Any) -> bytes:
    now_ms = coordinator.context.now_ms()
    how: dict[str, Any] = {
        "network": "devnet",
        "audience": coordinator.context.key.public,
        "incarnation": 0,
        "counter": 1,
        "expires_ms": now_ms + 30_000,
    }
    return envelope.seal(message or Enrol(host=HOST, clock_ms=now_ms), key, **{**how, **wrong})


async def enrol(client: Client, raw: bytes) -> Any:
    return await ask(client, "POST", "/api/v1/nodes/enrol", data=raw, headers={"Content-Type": "application/msgpack"})


async def test_a_node_enrols_once_however_often(client: Client, coordinator: Coordinator) -> None:
    key, told = SigningKey.generate(), []
    for counter in (0, 0, 1):
        response = await enrol(client, enrolment(coordinator, key, counter=counter))
        assert response.status_code == 201
        told.append(msgspec.json.decode(await response.get_data(), type=EnrolView))
    assert told[0] == told[1] == told[2]
    assert told[0].peer_id == key.peer_id
    assert told[0].coordinator_key == coordinator.context.key.public.hex()


@pytest.mark.parametrize(
    ("wrong", "status", "code"),
    [
        ({"network": "main"}, 401, "wrong_network"),
        ({"audience": bytes(31) + b"x"}, 401, "wrong_audience"),
        ({"audience": envelope.ANYONE}, 422, "invalid_input"),
        ({"expires_ms": 1}, 401, "expired"),
        ({"expires_ms": 2**50}, 401, "expired"),
        ({"message": Heartbeat()}, 400, "malformed"),
    ],
)
async def test_enrolment_that_is_not_to_be_believed(
    client: Client, coordinator: Coordinator, wrong: dict[str, Any], status: int, code: str
) -> None:
    await problem(await enrol(client, enrolment(coordinator, SigningKey.generate(), **wrong)), status, code)


async def test_enrolment_with_junk_or_forged(client: Client, coordinator: Coordinator) -> None:
    raw = enrolment(coordinator, SigningKey.generate())
    forged = raw[:-1] + bytes([raw[-1] ^ 1])
    await problem(await enrol(client, forged), 401, "bad_signature")
    for junk in (b"", b"\xc1", b"\xdf\xff\xff\xff\xff", b"\x91" * 5000):
        await problem(await enrol(client, junk), 400, "malformed")
    await problem(await enrol(client, bytes(300_000)), 413, "too_large")
    assert (await enrol(client, raw)).status_code == 201


async def test_a_defect_shows_a_number_and_nothing_of_the_inside(
    client: Client, coordinator: Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    @coordinator.app.get("/defect")
    async def defect() -> str:
        raise KeyError("the secret inside")

    told = await problem(await ask(client, "GET", "/defect"), 500, "unexpected")
    assert told.instance.startswith("urn:uuid:")
    assert "secret" not in str(told)
    assert told.instance in {getattr(record, "instance", "") for record in caplog.records}


async def test_health_readiness_and_metrics(client: Client) -> None:
    assert (await ask(client, "GET", "/healthz")).status_code == 200
    ready = await ask(client, "GET", "/readyz")
    assert ready.status_code == 503
    told = await ready.get_json()
    assert told["database"] is True
    assert told["verifier"] is False
    assert told["missing"] == ["no gateway is connected", "no verifier was heard lately"]
    text = (await (await ask(client, "GET", "/metrics", headers={"Host": "10.0.0.1"})).get_data()).decode()
    assert 'qubix_http_requests_total{method="GET",route="/healthz",status="200"} 1.0' in text
    assert "qubix_messages_refused" in text
    assert "qubix_verifiers_heard 0.0" in text


async def test_readiness_tells_whether_a_verifier_lives(client: Client, db: Database) -> None:
    async def told() -> tuple[bool, list[str], str]:
        ready = await (await ask(client, "GET", "/readyz")).get_json()
        metrics = (await (await ask(client, "GET", "/metrics")).get_data()).decode()
        (gauge,) = (line for line in metrics.splitlines() if line.startswith("qubix_verifiers_heard "))
        return ready["verifier"], ready["missing"][1:], gauge.split()[1]

    async def silent_for(seconds: float) -> None:
        sql = "UPDATE verifier SET seen_at = now() - make_interval(secs => $1)"
        await db.run(lambda tx: execute(tx, sql, seconds))

    silent = ["no verifier was heard lately"]
    for process_id in (1, 2, 2):
        await db.run(lambda tx, process_id=process_id: verifiers.beat(tx, "here", process_id))
    assert await told() == (True, [], "2.0")
    await silent_for(verifiers.HEARD_S / 2)
    assert await told() == (True, [], "2.0")
    await silent_for(verifiers.HEARD_S + 1)
    assert await told() == (False, silent, "0.0")
    await db.run(lambda tx: verifiers.beat(tx, "here", 1))
    assert await told() == (True, [], "1.0")
    await db.run(lambda tx: verifiers.leave(tx, "here", 1))
    assert await told() == (False, silent, "0.0")
    await silent_for(2 * 86_400)
    await db.run(lambda tx: verifiers.beat(tx, "there", 7))
    assert await db.fetch_value("SELECT array_agg(host) FROM verifier") == ["there"]


async def test_keys_and_tokens_are_private_and_made_once(
    coordinator: Coordinator, client: Client, db: Database, tmp_path: Path
) -> None:
    names = ("coordinator.key", "artifact.key", "developer.token", "gateway.token")
    before = {name: (tmp_path / name).read_bytes() for name in names}
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in names} == {0o600}
    again = await assembled(db, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
    assert again.context.key.public == coordinator.context.key.public
    developer = {"Authorization": f"Bearer {before['developer.token'].decode().strip()}"}
    assert (await ask(client, "GET", "/api/v1/account", headers=developer)).status_code == 200
    assert (await ask(client, "GET", "/api/v1/audit", headers=developer)).status_code == 200
