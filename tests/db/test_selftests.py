# SPDX-License-Identifier: Apache-2.0
"""Self-tests at the coordinator: heard, asked for by owners, read by all; and test artifacts of nodes (trust D1)."""

import base64
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.clock import FakeClock
from qubix_coordinator.db.database import Database, value
from qubix_coordinator.errors import LimitExceeded
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.ledger.audit import audit_all_now
from qubix_coordinator.market import service as market
from qubix_coordinator.outbox import events
from qubix_coordinator.outbox.rules import START
from qubix_coordinator.settings import Settings
from qubix_coordinator.trials import probes, selftests
from qubix_protocol import envelope
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import ArtifactRequest
from qubix_protocol.selftest import PROBE_BYTES_MAX, Check, CheckStatus, ProbeRequest, SelfTest
from qubix_protocol.units import DEVICES_MAX
from tests.db.support_http import Running, make_person, served, sha
from tests.db.test_market_service import NOW, offer

pytestmark = pytest.mark.asyncio


def selftest(status: CheckStatus = CheckStatus.PASS, **changes: object) -> SelfTest:
    bad = status is CheckStatus.FAIL
    check = Check(
        id="disk", title="Disk", status=status, actual="1.0", purpose="Room.", remedy="Free some." if bad else ""
    )
    plain: dict[str, object] = {
        "test_id": str(uuid.uuid4()),
        "device_id": "cpu-1",
        "at_ms": NOW,
        "took_ms": 7,
        "quick": False,
        "full": True,
        "checks": (check,),
    }
    return SelfTest(**(plain | changes))  # type: ignore[arg-type]


async def hear(db: Database, peer_id: str, test: SelfTest, now_ms: int) -> None:
    clock = FakeClock()
    clock.advance(now_ms / 1000 - clock.now().timestamp())
    desk = Desk(db, Settings(data_dir=Path("/nonexistent")), clock, SigningKey.generate(), "devnet")
    await selftests.on_selftest(desk, peer_id, test)


async def listed(db: Database) -> tuple[SigningKey, uuid.UUID]:
    key = SigningKey.generate()
    async with db.transaction() as tx:
        await accounts.ensure_node(tx, key.peer_id)
        await accounts.next_incarnation(tx, key.peer_id)
    await market.offer_received(db, key.peer_id, offer(), b"signed", now_ms=NOW)
    return key, market.listing_id(key.peer_id, "cpu-1")


async def test_the_newest_is_read_with_its_age_and_what_the_market_found_stands_beside_it(db: Database) -> None:
    key, listing = await listed(db)
    assert (await selftests.view(db, listing, now_ms=NOW)).at_ms is None
    first, second = selftest(), selftest(CheckStatus.FAIL)
    for at_ms, one in ((NOW, first), (NOW + 5, second), (NOW + 9, first)):
        await hear(db, key.peer_id, one, at_ms)
    found = await selftests.view(db, listing, now_ms=NOW + 1_005)
    assert (found.at_ms, found.age_ms, found.took_ms) == (NOW + 5, 1_000, 7), "a test that comes again is no news"
    assert (found.passed, found.full, found.verified, found.score) == (False, True, False, 0.0)
    assert found.checks == second.checks


async def test_tests_and_devices_are_bounded(db: Database) -> None:
    key, _ = await listed(db)
    for number in range(selftests.KEPT + 3):
        await hear(db, key.peer_id, selftest(), NOW + number)
    async with db.transaction() as tx:
        assert await value(tx, "SELECT count(*) FROM self_test") == selftests.KEPT
        assert await value(tx, "SELECT min(heard_ms) FROM self_test") == NOW + 3
    for number in range(DEVICES_MAX - 1):
        await hear(db, key.peer_id, selftest(device_id=f"made-up-{number}"), NOW)
    with pytest.raises(LimitExceeded):
        await hear(db, key.peer_id, selftest(device_id="one-too-many"), NOW)
    await hear(db, key.peer_id, selftest(), NOW)


async def test_its_owner_asks_and_strangers_only_read(db: Database, tmp_path: Path) -> None:
    key, listing = await listed(db)
    stranger, operator = await make_person(db), await make_person(db, Scope.USER, Scope.OPERATOR)
    async with db.transaction() as tx:
        owner_id = await accounts.account_of_node(tx, key.peer_id)
        owner = type(stranger)(owner_id, await accounts.create_token(tx, owner_id, (Scope.USER,)))
    path = f"/api/v1/offers/{listing}/selftest"
    async with served(db, tmp_path) as running, running.client() as client:
        refused = await client.post(path, json={}, headers=stranger.headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        asked = await client.post(path, json={"quick": True}, headers=owner.headers)
        assert (asked.status_code, asked.json()["asked_ms"] is not None) == (202, True)
        again = await client.post(path, json={}, headers=operator.headers)
        assert (again.status_code, again.json()["code"]) == (409, "conflict")
        assert (await client.get(path, headers=stranger.headers)).json()["asked_ms"] == asked.json()["asked_ms"]
        nobody = await client.get(f"/api/v1/offers/{uuid.uuid4()}/selftest", headers=stranger.headers)
        assert nobody.status_code == 404
        misspelt = await client.post(path, json={"quik": True}, headers=owner.headers)
        assert misspelt.status_code == 422
    told = [event.payload for event in await events.read(db, START, [f"node:{key.peer_id}"])]
    assert told == [{"t": "selftest_ask", "device_id": "cpu-1", "quick": True}]


async def test_a_node_that_is_away_is_not_asked(db: Database, tmp_path: Path) -> None:
    key, listing = await listed(db)
    await market.node_offline(db, key.peer_id, incarnation=1, now_ms=NOW)
    operator = await make_person(db, Scope.USER, Scope.OPERATOR)
    async with served(db, tmp_path) as running, running.client(operator) as client:
        answer = await client.post(f"/api/v1/offers/{listing}/selftest", json={})
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert "qubix selftest" in answer.json()["remedy"]


# Test artifacts -----------------------------------------------------------------------------------------------------


class Signer:
    """A node that signs requests, each with a counter of its own."""

    def __init__(self, running: Running, key: SigningKey) -> None:
        self._context, self._key, self._count = running.coordinator.context, key, 0

    def headers(self, method: str, data: bytes, **changes: Any) -> dict[str, str]:
        request = ProbeRequest(method=method, digest=bytes.fromhex(sha(data)), size_bytes=len(data))
        return self._sealed(msgspec.structs.replace(request, **changes))

    def _sealed(self, request: Any) -> dict[str, str]:
        self._count += 1
        raw = envelope.seal(
            request,
            self._key,
            network="devnet",
            audience=self._context.key.public,
            incarnation=1,
            counter=self._count,
            expires_ms=self._context.now_ms() + 50_000,
        )
        return {"Authorization": f"Qubix {base64.b64encode(raw).decode()}"}

    def as_attempt(self, data: bytes) -> dict[str, str]:
        return self._sealed(
            ArtifactRequest(
                method="GET",
                digest=bytes.fromhex(sha(data)),
                size_bytes=len(data),
                attempt_id=str(uuid.uuid4()),
                fence=1,
            )
        )


async def test_a_node_sends_and_reads_back_a_test_artifact_and_nobody_else_does(db: Database, tmp_path: Path) -> None:
    (key, _), (other, _) = await listed(db), await listed(db)
    data = os.urandom(100_000)
    path = f"/api/v1/artifacts/{sha(data)}"
    async with served(db, tmp_path) as running, running.client() as client:
        node, stranger, person = Signer(running, key), Signer(running, other), await make_person(db)
        early = await client.get(path, headers=node.headers("GET", data))
        assert (early.status_code, early.json()["code"]) == (403, "forbidden")
        sent = await client.put(path, content=data, headers=node.headers("PUT", data))
        assert (sent.status_code, sent.json()["complete"]) == (201, True)
        assert (await client.get(path, headers=node.headers("GET", data))).content == data
        for headers, status in (
            (stranger.headers("GET", data), 403),
            (node.headers("GET", data, size_bytes=99_999), 403),
            (node.headers("PUT", data), 401),
            (node.headers("GET", os.urandom(9)), 401),
            (node.as_attempt(data), 403),
            (person.headers, 404),
        ):
            assert (await client.get(path, headers=headers)).status_code == status


async def test_test_artifacts_are_bounded_and_removed_after_their_time(db: Database, tmp_path: Path) -> None:
    key, _ = await listed(db)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(
            {"t": "probe_request", "method": "PUT", "digest": bytes(32), "size_bytes": PROBE_BYTES_MAX + 1},
            ProbeRequest,
        )
    async with served(db, tmp_path) as running, running.client() as client:
        context, node = running.coordinator.context, Signer(running, key)
        several = [os.urandom(1_000) for _ in range(probes.LIVE_MAX + 1)]
        answers = [
            (
                await client.put(f"/api/v1/artifacts/{sha(one)}", content=one, headers=node.headers("PUT", one))
            ).status_code
            for one in several
        ]
        assert answers == [201] * probes.LIVE_MAX + [429]
        assert (await audit_all_now(db, context.now_ms())).violations == ()
        now_ms = context.now_ms()
        assert await probes.sweep(db, context.uploads, now_ms=now_ms) == 0
        later_ms = now_ms + probes.LIFE_MS
        assert await probes.sweep(db, context.uploads, now_ms=later_ms) == probes.LIVE_MAX
        async with db.transaction() as tx:
            assert await value(tx, "SELECT count(*) FROM artifact") == 0
            assert await value(tx, "SELECT count(*) FROM probe") == 0
        gone = await client.get(f"/api/v1/artifacts/{sha(several[0])}", headers=node.headers("GET", several[0]))
        assert gone.status_code == 403


@pytest.mark.parametrize("unpaid", [False, True])
async def test_who_knows_a_digest_reads_nothing_by_a_test_that_was_never_sent(
    db: Database, tmp_path: Path, unpaid: bool
) -> None:
    """Trust D1: neither what the account's owner keeps, nor what another's attempt has made and nobody has paid."""
    key, _ = await listed(db)
    data = os.urandom(1_000)
    path, digest = f"/api/v1/artifacts/{sha(data)}", bytes.fromhex(sha(data))
    async with db.transaction() as tx:
        owner_id = await accounts.account_of_node(tx, key.peer_id)
        token = await accounts.create_token(tx, owner_id, (Scope.USER,))
    async with served(db, tmp_path) as running, running.client() as client:
        node, uploads = Signer(running, key), running.coordinator.context.uploads
        if unpaid:
            await uploads.receive(owner_id, digest, len(data), parts(data), first=0, last=999, writer="an attempt")
        else:
            await client.put(path, content=data, headers={"Authorization": f"Bearer {token}"})
        wrong = await client.put(path, content=bytes(len(data)), headers=node.headers("PUT", data))
        assert wrong.status_code == 422
        stolen = await client.get(path, headers=node.headers("GET", data))
        assert (stolen.status_code, stolen.json()["code"]) == (403, "forbidden")
        await client.put(path, content=data, headers=node.headers("PUT", data))
        assert (await client.get(path, headers=node.headers("GET", data))).content == data, "who sent it knows it"


async def parts(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_what_is_an_input_as_well_is_not_removed_with_the_test(db: Database, tmp_path: Path) -> None:
    key, _ = await listed(db)
    data = os.urandom(1_000)
    path = f"/api/v1/artifacts/{sha(data)}"
    async with db.transaction() as tx:
        owner_id = await accounts.account_of_node(tx, key.peer_id)
        token = await accounts.create_token(tx, owner_id, (Scope.USER,))
    async with served(db, tmp_path) as running, running.client() as client:
        owner = {"Authorization": f"Bearer {token}"}
        await client.put(path, content=data, headers=owner)
        await client.put(path, content=data, headers=Signer(running, key).headers("PUT", data))
        context = running.coordinator.context
        assert await probes.sweep(db, context.uploads, now_ms=context.now_ms() + probes.LIFE_MS) == 1
        assert (await client.get(path, headers=owner)).content == data
        assert (await audit_all_now(db, context.now_ms())).violations == ()
