# SPDX-License-Identifier: Apache-2.0
"""A wallet that cannot sign is proved by an exact payment: for pay-outs, never for signing in (trust A3)."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from qubix_chain import identity
from qubix_chain.rpc import Client
from qubix_coordinator.db.database import Database
from qubix_protocol.payment_uri import parse
from tests.chain.vectors import OTHER_SEED, SEED
from tests.db.deposits_world import World
from tests.db.support_http import Person, assembled, make_person, served
from tests.db.test_http_wallets import told
from tests.support.devnet import Wallet, devnet_client
from tests.support.fake_chain import key_of
from tests.support.wallet_double import ExtensionWallet

pytestmark = pytest.mark.asyncio
IDENTITY, OTHER = identity.encode(key_of(SEED)), identity.encode(key_of(OTHER_SEED))
LEAST_QU = 100


@pytest_asyncio.fixture
async def world(db: Database) -> World:
    """The chain process, reading a network in memory."""
    return await World.make(db, deposit_min_qu=LEAST_QU)


@pytest_asyncio.fixture
async def person(db: Database) -> Person:
    return await make_person(db)


@pytest_asyncio.fixture
async def http(db: Database, tmp_path: Path, world: World, person: Person) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        served(db, tmp_path, deposit_min_qu=LEAST_QU, qubic=world.chain) as running,
        running.client(person) as client,
    ):
        yield client


async def wanted(http: httpx.AsyncClient, of: str = IDENTITY) -> dict[str, Any]:
    answer = await http.post("/api/v1/wallet/payment-proof", json={"identity": of})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def listed(http: httpx.AsyncClient) -> dict[str, Any]:
    body: dict[str, Any] = (await http.get("/api/v1/wallets")).json()
    return body


async def test_an_exact_payment_proves_a_wallet_for_pay_outs_and_is_credited(
    http: httpx.AsyncClient, world: World, person: Person
) -> None:
    proof = await wanted(http)
    assert proof["amount_qu"] > LEAST_QU
    payment = parse(proof["uri"])
    assert (payment.identity, payment.amount_qu) == (proof["pay_to"], proof["amount_qu"])
    assert "exchange" in proof["hint"]
    assert (await listed(http))["waiting"] == [proof]
    assert await wanted(http) == proof, "asked again, it is the same"
    pay_to, amount_qu = identity.decode(proof["pay_to"]), proof["amount_qu"]
    for seed, paid_qu in ((OTHER_SEED, amount_qu), (SEED, amount_qu - 1)):
        await pay(world, seed, pay_to, paid_qu)
        assert (await listed(http))["wallets"] == [], "another payer, or another amount, proves nothing"
    await pay(world, SEED, pay_to, amount_qu)
    found = await listed(http)
    (wallet,) = found["wallets"]
    assert (wallet["identity"], wallet["proof"]) == (IDENTITY, "payment")
    assert (wallet["may_sign_in"], wallet["may_be_paid"]) == (False, True)
    assert found["waiting"] == []
    assert found["balance_qu"] == 3 * amount_qu - 1, "whatever it proves, it is credited"
    assert wallet["chain_balance_qu"] == (await world.chain.balance(key_of(SEED))).amount_qu

    signing = ExtensionWallet(SEED)
    await signing.connect()
    text = (await http.post("/api/v1/wallet/challenge", json={"identity": IDENTITY})).json()["text"]
    signature = (await signing.signMessage(text))["signatureHex"]
    body = {"identity": IDENTITY, "text": text, "signature": signature, "scheme": "raw"}
    signed_in = (await http.post("/api/v1/wallet/sign-in", json=body)).json()
    assert signed_in["account_id"] != str(person.account_id), "the payment opened nothing"


async def pay(world: World, seed: str, pay_to: bytes, amount_qu: int) -> None:
    world.chain.balances[key_of(seed)] = world.chain.balances.get(key_of(seed), 0) + 10 * amount_qu
    world.chain.pay(pay_to, amount_qu, seed=seed)
    await world.settle(4)


async def test_what_cannot_pay_is_refused_with_its_reason(http: httpx.AsyncClient) -> None:
    pay_to = (await wanted(http))["pay_to"]
    path = "/api/v1/wallet/payment-proof"
    for text, status, code in (
        (IDENTITY.lower(), 422, "bad_identity"),
        ("A" * 60, 422, "bad_identity"),
        (identity.encode(bytes(32)), 403, "weak_key"),
        (identity.encode(bytes([1]) + bytes(31)), 403, "weak_key"),
        (pay_to, 422, "invalid_input"),
    ):
        told(await http.post(path, json={"identity": text}), status, code, "identity")
    told(await http.post(path, json={"identity": OTHER, "amount_qu": 1}), 422, "invalid_input", "amount_qu")


async def test_without_a_chain_process_it_says_when_to_come_back(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    client = (await assembled(db, tmp_path)).app.test_client()
    answer = await client.post("/api/v1/wallet/payment-proof", json={"identity": IDENTITY}, headers=person.headers)
    assert answer.status_code == 503
    body = await answer.get_json()
    assert body["code"] == "unavailable"
    assert "qubix chain" in body["remedy"]


async def test_balances_come_from_a_devnet_by_its_own_api(db: Database, tmp_path: Path) -> None:
    """The same client as against the main network."""
    async with devnet_client(tmp_path / "devnet") as (devnet, made):
        payer = Wallet("payer")
        await devnet.fund(payer, 12_345)
        client = Client("http://127.0.0.1", transport=httpx.ASGITransport(app=made.app))
        async with served(db, tmp_path / "market", qubic=client) as running, running.client() as http:
            wallet = ExtensionWallet(payer.seed)
            await wallet.connect()
            text = (await http.post("/api/v1/wallet/challenge", json={"identity": payer.identity})).json()["text"]
            signature = (await wallet.signMessage(text))["signatureHex"]
            body = {"identity": payer.identity, "text": text, "signature": signature, "scheme": "raw"}
            token = (await http.post("/api/v1/wallet/sign-in", json=body)).json()["token"]
            found = await http.get("/api/v1/wallets", headers={"Authorization": f"Bearer {token}"})
        await client.close()
    assert found.json()["wallets"][0]["chain_balance_qu"] == 12_345
