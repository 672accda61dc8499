# SPDX-License-Identifier: Apache-2.0
"""Withdrawals over HTTP and the SDK: what a user sees, what is refused and how it is said, live events."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from qubix import AsyncClient
from qubix.errors import ApiError
from qubix_chain import identity
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.db.database import Database
from qubix_protocol.account_news import AccountNews, WithdrawalNews
from qubix_protocol.withdrawals import WithdrawalReason, WithdrawalState
from tests.db.support_http import Running, make_person, served
from tests.support.withdrawal_world import RICH, Bank, Person

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def running(db: Database, tmp_path: Path) -> AsyncIterator[Running]:
    async with served(db, tmp_path, withdrawal_min_qu=10, withdrawal_approval_above_qu=500_000) as found:
        yield found


@pytest_asyncio.fixture
async def person(db: Database) -> Person:
    return await Bank(db).person(listed=False)


async def token(db: Database, person: Person) -> str:
    return await db.run(lambda tx: accounts.create_token(tx, person.account_id, [Scope.USER]))


@pytest_asyncio.fixture
async def client(running: Running, person: Person, tmp_path: Path) -> AsyncIterator[AsyncClient]:
    held = await token(running.db, person)
    async with AsyncClient(running.url, token=held, data_dir=tmp_path / "sdk") as found:
        yield found


async def test_a_users_way_from_address_to_cancel(client: AsyncClient, person: Person) -> None:
    limits = await client.withdrawable()
    assert (limits.balance_qu, limits.withdrawable_qu) == (RICH, RICH)
    assert f"{RICH} QU can be withdrawn" in limits.text
    added = await client.add_address(person.destination, "my wallet")
    assert added.usable_ms - added.added_ms == limits.address_delay_s * 1000
    assert await client.addresses() == (added,)
    asked = await client.withdraw(person.destination, 400, idempotency_key="once")
    assert asked == await client.withdraw(person.destination, 400, idempotency_key="once")
    assert (asked.state, asked.reason) == (WithdrawalState.WAITING, WithdrawalReason.DELAY)
    assert asked.text.endswith("The address is new: nothing leaves for it before the delay is over.")
    assert (await client.balance()).available_qu == RICH - 400
    assert (await client.withdrawals()).withdrawals == (asked,)
    ended = await client.cancel_withdrawal(asked.withdrawal_id)
    assert ended == await client.withdrawal(asked.withdrawal_id)
    assert ended.state is WithdrawalState.CANCELLED
    assert (await client.balance()).available_qu == RICH
    order = await client.set_payout(person.destination, keep_qu=1000)
    assert (order.keep_qu, order.least_qu) == (1000, 10)
    assert (await client.stop_payout()).destination is None
    assert await client.remove_address(person.destination) == ()


async def test_an_operator_decides_what_is_large(
    client: AsyncClient, person: Person, running: Running, tmp_path: Path
) -> None:
    await client.add_address(person.destination)
    asked = await client.withdraw(person.destination, 500_001)
    assert asked.reason is WithdrawalReason.APPROVAL
    operator = await make_person(running.db, Scope.OPERATOR)
    async with AsyncClient(running.url, token=operator.token, data_dir=tmp_path / "operator") as desk:
        waiting = (await desk.all_withdrawals(reason="approval")).withdrawals
        assert [one.withdrawal_id for one in waiting] == [asked.withdrawal_id]
        assert (await desk.approve_withdrawal(asked.withdrawal_id)).reason is WithdrawalReason.DELAY
        refused = await desk.refuse_withdrawal(asked.withdrawal_id, "the account is under review")
        assert (refused.state, refused.detail) == (WithdrawalState.REFUSED, "the account is under review")
        assert (await desk.all_withdrawals(state="waiting")).withdrawals == ()
    with pytest.raises(ApiError, match="no scope"):
        await client.all_withdrawals()


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"amount_qu": 0}, 422, "invalid_input", "amount_qu"),
        ({"amount_qu": -1}, 422, "invalid_input", "amount_qu"),
        ({"amount_qu": 10**15 + 1}, 422, "invalid_input", "amount_qu"),
        ({"amount_qu": 2**63}, 422, "invalid_input", "amount_qu"),
        ({"amount_qu": 2**200}, 422, "invalid_input", "amount_qu"),
        ({"amount_qu": 1.5}, 422, "invalid_input", "amount_qu"),
        ({"amount_qu": "10"}, 422, "invalid_input", "amount_qu"),
        ({"amount_qu": 9}, 429, "limit_exceeded", "amount_qu"),
        ({"amount_qu": RICH + 1}, 402, "not_enough_balance", "amount_qu"),
        ({"destination": "A" * 60}, 422, "invalid_input", "destination"),
        ({"destination": "short"}, 422, "invalid_input", "destination"),
        ({"destination": identity.encode(bytes(32))}, 403, "forbidden", "destination"),
        ({"destination": identity.encode(b"\x01" * 32)}, 403, "forbidden", "destination"),
        ({"to": "x"}, 422, "invalid_input", "to"),
    ],
)
async def test_bad_requests_say_what_is_wrong_and_what_to_do(
    client: AsyncClient,
    running: Running,
    person: Person,
    body: dict[str, object],
    status: int,
    code: str,
    field: str,
) -> None:
    await client.add_address(person.destination)
    asked = {"destination": person.destination, "amount_qu": 400} | body
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {await token(running.db, person)}"}) as http:
        answer = await http.post(
            f"{running.url}/api/v1/withdrawals", json=asked, headers={"Idempotency-Key": uuid.uuid4().hex}
        )
    told = answer.json()
    assert (answer.status_code, told["code"], told["field"]) == (status, code, field), told
    assert told["remedy"]
    assert told["detail"]
    assert (await client.balance()).available_qu == RICH


async def test_a_missing_key_and_a_strangers_withdrawal(client: AsyncClient, running: Running, person: Person) -> None:
    await client.add_address(person.destination)
    asked = await client.withdraw(person.destination, 400)
    stranger = await make_person(running.db)
    async with running.client(stranger) as http:
        for answer in (
            await http.get(f"/api/v1/withdrawals/{asked.withdrawal_id}"),
            await http.post(f"/api/v1/withdrawals/{asked.withdrawal_id}/cancel"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        body = {"destination": person.destination, "amount_qu": 400}
        answer = await http.post("/api/v1/withdrawals", json=body)
        assert (answer.status_code, answer.json()["field"]) == (422, "Idempotency-Key")


async def test_the_account_topic_tells_each_step(client: AsyncClient, running: Running, person: Person) -> None:
    await client.add_address(person.destination)
    headers = {"Authorization": f"Bearer {await token(running.db, person)}"}
    async with asyncio.timeout(60), connect(f"{running.ws}/live", additional_headers=headers) as live:
        await live.send(json.dumps({"subscribe": ["account"]}))
        assert json.loads(await live.recv())["kind"] == "snapshot"
        asked = await client.withdraw(person.destination, 400)
        await client.cancel_withdrawal(asked.withdrawal_id)
        states, balances = [], []
        while len(states) < 2 or len(balances) < 2:
            news = msgspec.convert(json.loads(await live.recv())["data"], AccountNews)
            if isinstance(news, WithdrawalNews):
                states.append(news.withdrawal.state)
            else:
                balances.append(news.account.balance_qu)
    assert states == ["waiting", "cancelled"]
    assert balances == [RICH - 400, RICH]
