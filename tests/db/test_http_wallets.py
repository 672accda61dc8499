# SPDX-License-Identifier: Apache-2.0
"""Signing in with a wallet, over HTTP to an unmodified server, with twins of the wallets that people use.

Every forgery is refused with a reason of its own, and nothing of it makes an account, a session or a row that stays.
"""

import asyncio
import base64
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qubix_chain import crypto, identity
from qubix_chain.fourq import N
from qubix_coordinator.accounts import challenges, wallet_rules
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.clock import FakeClock
from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.withdrawals import service as withdrawals
from qubix_protocol.wallet_text import Purpose, parse
from tests.chain.vectors import OTHER_SEED, SEED, VECTORS
from tests.db.support_http import Person, Running, make_person, served
from tests.support.wallet_double import ExtensionWallet, WalletConnectWallet
from tests.support.withdrawal_world import Bank

pytestmark = pytest.mark.asyncio
IDENTITY, OTHER = (vector["identity"] for vector in VECTORS["keys"][:2])
Json = dict[str, Any]


@dataclass
class Door:
    """The API as a person without an account meets it; `wallet` is the extension in their browser."""

    running: Running
    http: httpx.AsyncClient
    wallet: ExtensionWallet

    async def challenge(self, of: str = IDENTITY, token: str = "", **more: Any) -> Json:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = await self.http.post("/api/v1/wallet/challenge", json={"identity": of, **more}, headers=headers)
        assert answer.status_code == 201, answer.text
        body: Json = answer.json()
        return body

    async def signed(self, text: str | None = None, **more: Any) -> Json:
        """A sign-in's body, right unless `more` makes it wrong."""
        said = text if text is not None else (await self.challenge())["text"]
        signature = (await self.wallet.signMessage(said))["signatureHex"]
        return {"identity": IDENTITY, "text": said, "signature": signature, "scheme": "raw", **more}

    async def sign_in(self, body: Json, headers: Json | None = None) -> httpx.Response:
        return await self.http.post("/api/v1/wallet/sign-in", json=body, headers=headers or {})

    def forget(self) -> None:
        """Lets this address ask again at once."""
        doors = self.running.coordinator.context.doors
        for rate in (doors.challenges, doors.challenges_of_one, doors.sign_ins, doors.sign_ins_of_one):
            rate.forget()

    async def rows(self) -> tuple[int, int]:
        """Wallets, and sessions of wallets."""
        db = self.running.db
        return (
            await db.fetch_value("SELECT count(*) FROM wallet"),
            await db.fetch_value("SELECT count(*) FROM api_token WHERE wallet_id IS NOT NULL"),
        )


@contextlib.asynccontextmanager
async def opened(db: Database, folder: Path, **more: Any) -> AsyncIterator[Door]:
    async with served(db, folder, **more) as running, running.client() as http:
        wallet = ExtensionWallet(SEED)
        await wallet.connect()
        yield Door(running, http, wallet)


@pytest_asyncio.fixture
async def door(db: Database, tmp_path: Path) -> AsyncIterator[Door]:
    async with opened(db, tmp_path) as found:
        yield found


def told(answer: httpx.Response, status: int, code: str, field: str) -> Json:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body: Json = answer.json()
    assert (answer.status_code, body["code"], body["field"]) == (status, code, field), body
    assert body["remedy"]
    assert body["detail"]
    return body


async def test_the_extension_signs_in_and_its_token_opens_the_account(door: Door) -> None:
    asked = await door.challenge()
    said = parse(asked["text"])
    port = door.running.url.rpartition(":")[2]
    assert (said.domain, said.network, said.identity) == (f"127.0.0.1:{port}", "devnet", IDENTITY)
    assert said.purpose is Purpose.SIGN_IN
    answer = await door.sign_in(await door.signed(asked["text"], name="laptop"))
    assert answer.status_code == 201
    view = answer.json()
    assert view["created"] is True
    session = view["session"]
    assert (session["name"], session["identity"], session["current"]) == ("laptop", IDENTITY, True)
    mine = {"Authorization": f"Bearer {view['token']}"}
    account = (await door.http.get("/api/v1/account", headers=mine)).json()
    assert (account["account_id"], account["scopes"]) == (view["account_id"], ["user"])
    wallets = (await door.http.get("/api/v1/wallets", headers=mine)).json()
    (wallet,) = wallets["wallets"]
    assert (wallet["identity"], wallet["proof"]) == (IDENTITY, "signature")
    assert (wallet["may_sign_in"], wallet["may_be_paid"]) == (True, True)
    assert wallet["chain_balance_qu"] is None
    assert wallet["chain_problem"]
    again = (await door.sign_in(await door.signed())).json()
    assert (again["account_id"], again["created"]) == (view["account_id"], False)


async def test_walletconnect_signs_in_to_the_same_account(door: Door) -> None:
    first = (await door.sign_in(await door.signed())).json()
    mobile = WalletConnectWallet(SEED)
    text = (await door.challenge())["text"]
    signed = await mobile.request("qubic_sign", {"from": IDENTITY, "message": text})
    signature = base64.b64decode(signed["signature"]).hex()
    answer = await door.sign_in({"identity": IDENTITY, "text": text, "signature": signature, "scheme": "prefixed"})
    assert answer.json()["account_id"] == first["account_id"]


async def test_a_challenge_serves_once_also_when_two_use_it_at_once(door: Door) -> None:
    body = await door.signed()
    answers = await asyncio.gather(*(door.sign_in(body) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] + [403] * 5
    for answer in answers:
        if answer.status_code == 403:
            told(answer, 403, "challenge_used", "text")
    told(await door.sign_in(body), 403, "challenge_used", "text")
    assert await door.rows() == (1, 1)


Forge = Callable[[Door], Awaitable[Json]]


def twin(signature: str) -> str:
    """The same point with S + N: a second signature of whoever has seen the first."""
    raw = bytes.fromhex(signature)
    return (raw[:32] + (int.from_bytes(raw[32:], "little") + N).to_bytes(32, "little")).hex()


async def by_another_seed(door: Door) -> Json:
    other = ExtensionWallet(OTHER_SEED)
    await other.connect()
    body = await door.signed()
    return body | {"signature": (await other.signMessage(body["text"]))["signatureHex"]}


async def with_a_twin(door: Door) -> Json:
    body = await door.signed()
    return body | {"signature": twin(body["signature"])}


async def all_zero(door: Door) -> Json:
    return await door.signed(signature="00" * 64)


async def of_another_challenge(door: Door) -> Json:
    """A fresh text with the signature of one that was signed before."""
    signature = (await door.signed())["signature"]
    return await door.signed(signature=signature)


async def of_another_text(door: Door) -> Json:
    """Signed by the wallet, but never issued."""
    text = (await door.challenge())["text"]
    return await door.signed(text.replace("Sign in to QUBIX", "Sign in to QUBIC"))


async def with_a_longer_life(door: Door) -> Json:
    text = (await door.challenge())["text"]
    return await door.signed(text[:-20] + "2999" + text[-16:])


async def never_issued(door: Door) -> Json:
    text = (await door.challenge())["text"]
    nonce = parse(text).nonce
    return await door.signed(text.replace(nonce, "00" * 16))


async def for_another_domain(door: Door) -> Json:
    text = (await door.challenge())["text"]
    return await door.signed(text.replace(parse(text).domain, "evil.example"))


async def for_another_network(door: Door) -> Json:
    text = (await door.challenge())["text"]
    return await door.signed(text.replace("Network: devnet", "Network: main"))


async def for_another_identity(door: Door) -> Json:
    return await door.signed((await door.challenge(OTHER))["text"])


async def prefixed_called_raw(door: Door) -> Json:
    body = await door.signed()
    signed = await WalletConnectWallet(SEED).request("qubic_sign", {"from": IDENTITY, "message": body["text"]})
    return body | {"signature": base64.b64decode(signed["signature"]).hex()}


async def raw_called_prefixed(door: Door) -> Json:
    return await door.signed(scheme="prefixed")


async def to_bind(door: Door) -> Json:
    person = await make_person(door.running.db)
    return await door.signed((await door.challenge(token=person.token, purpose="bind"))["text"])


FORGERIES: dict[Forge, tuple[str, str]] = {
    by_another_seed: ("signature_invalid", "signature"),
    all_zero: ("signature_invalid", "signature"),
    of_another_challenge: ("signature_invalid", "signature"),
    with_a_twin: ("signature_not_canonical", "signature"),
    prefixed_called_raw: ("wrong_scheme", "scheme"),
    raw_called_prefixed: ("wrong_scheme", "scheme"),
    of_another_text: ("challenge_altered", "text"),
    with_a_longer_life: ("challenge_altered", "text"),
    never_issued: ("challenge_unknown", "text"),
    for_another_domain: ("wrong_domain", "text"),
    for_another_network: ("wrong_network", "text"),
    for_another_identity: ("wrong_wallet", "identity"),
    to_bind: ("wrong_purpose", "text"),
}


async def test_each_forgery_is_refused_with_its_own_reason(door: Door) -> None:
    for forge, (code, field) in FORGERIES.items():
        door.forget()
        told(await door.sign_in(await forge(door)), 403, code, field)
        assert await door.rows() == (0, 0), forge
    assert (await door.sign_in(await door.signed())).status_code == 201, "and the rightful wallet still signs in"


async def test_an_expired_challenge_is_refused(db: Database, tmp_path: Path) -> None:
    async with opened(db, tmp_path, clock=FakeClock()) as door:
        clock = door.running.coordinator.context.clock
        assert isinstance(clock, FakeClock)
        body = await door.signed()
        clock.advance(wallet_rules.CHALLENGE_LIFE.total_seconds())
        problem = told(await door.sign_in(body), 403, "challenge_expired", "text")
        assert "10 minutes" in problem["detail"]
        assert await door.rows() == (0, 0)


async def test_another_name_of_the_same_server_is_another_domain(door: Door) -> None:
    """A page at one address cannot use what was signed at another, though both reach this server."""
    body = await door.signed()
    port = door.running.url.rpartition(":")[2]
    told(await door.sign_in(body, {"Host": f"localhost:{port}"}), 403, "wrong_domain", "text")
    told(await door.sign_in(body, {"Origin": f"http://localhost:{port}"}), 403, "wrong_domain", "text")
    told(await door.sign_in(body, {"Origin": "https://evil.example"}), 403, "forbidden", "Origin")
    told(await door.sign_in(body, {"Host": "evil.example"}), 403, "forbidden", "Host")
    page = {"Origin": door.running.url}
    assert (await door.sign_in(body, page)).status_code == 201


WEAK = [found["public_key"] for found in VECTORS["low_order_public_keys"]] + [
    found["public_key"]
    for found in VECTORS["verify_negative"]
    if not crypto.is_public_key(bytes.fromhex(found["public_key"]))
]


async def test_keys_that_nobody_or_everybody_signs_for_are_refused(door: Door) -> None:
    """Of low order, off the curve, and outside the subgroup of prime order; at the challenge and at the sign-in."""
    assert len(set(WEAK)) >= 4
    door.forget()
    for key in sorted(set(WEAK)):
        named = identity.encode(bytes.fromhex(key))
        answer = await door.http.post("/api/v1/wallet/challenge", json={"identity": named})
        told(answer, 403, "weak_key", "identity")
    key = bytes([1]) + bytes(31)
    neutral, domain = identity.encode(key), parse((await door.challenge())["text"]).domain
    forgery = next(found for found in VECTORS["verify_negative"] if found["public_key"] == key.hex())
    slipped = await door.running.db.run(
        lambda tx: challenges.issue(
            tx,
            identity=neutral,
            public_key=key,
            domain=domain,
            network="devnet",
            address="192.0.2.1",
            now=door.running.coordinator.context.clock.now(),
        )
    )
    body = {"identity": neutral, "text": slipped.text, "signature": forgery["signature"], "scheme": "raw"}
    told(await door.sign_in(body), 403, "weak_key", "identity")
    assert await door.rows() == (0, 0)


def spelt_otherwise(named: str) -> str:
    """The same key and checksum with a word above 2^64: letters that are no identity."""
    for at in range(0, 56, 14):
        word = sum((ord(letter) - 65) * 26**n for n, letter in enumerate(named[at : at + 14])) + 2**64
        if word < 26**14:
            letters = "".join(chr(65 + word // 26**n % 26) for n in range(14))
            return named[:at] + letters + named[at + 14 :]
    raise AssertionError("this identity has no second spelling")


async def test_identities_that_are_none_are_refused_with_the_rule_they_break(door: Door) -> None:
    wrong = {
        IDENTITY.lower(): "alphabet",
        IDENTITY[:-1]: "length",
        IDENTITY[:-1] + "B": "checksum",
        spelt_otherwise(IDENTITY): "spelling",
        "": "length",
    } | {found["identity"]: "" for found in VECTORS["identities"]["invalid"]}
    signed = {"text": "x", "signature": "00" * 64, "scheme": "raw"}
    for text, rule in wrong.items():
        for path, more in (("challenge", {}), ("sign-in", signed)):
            answer = await door.http.post(f"/api/v1/wallet/{path}", json={"identity": text, **more})
            assert told(answer, 422, "bad_identity", "identity")["detail"].startswith(rule)


async def test_bodies_are_held_to_their_form(door: Door) -> None:
    body = await door.signed()
    wrong: list[tuple[str, Any]] = [
        ("signature", "zz" * 64),
        ("signature", "00" * 63),
        ("signature", 5),
        ("scheme", "both"),
        ("text", "x" * 1001),
        ("text", None),
        ("name", ""),
        ("name", "x" * 101),
        ("identity", "A" * 201),
        ("seed", "a" * 55),
    ]
    for field, value in wrong:
        told(await door.sign_in(body | {field: value}), 422, "invalid_input", field)
    unkept = await door.sign_in(body | {"name": "a\0b"})
    assert (unkept.status_code, "NUL" in unkept.json()["detail"]) == (422, True), unkept.text
    assert await door.rows() == (0, 0)


async def test_any_changed_character_refuses(door: Door) -> None:
    body = await door.signed()
    changes: list[Json] = []

    @given(st.sampled_from(["identity", "text", "signature"]), st.data())
    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def change(name: str, data: st.DataObject) -> None:
        value = body[name]
        at = data.draw(st.integers(0, len(value) - 1))
        alphabet = st.sampled_from("0123456789abcdef") if name == "signature" else st.characters(codec="utf-8")
        letter = data.draw(alphabet.filter(lambda found: found != value[at]))
        changes.append(body | {name: value[:at] + letter + value[at + 1 :]})

    await asyncio.to_thread(change)
    for changed in changes:
        door.forget()
        answer = await door.sign_in(changed)
        assert answer.status_code in (403, 422), (changed, answer.text)
    assert len(changes) >= 60
    assert await door.rows() == (0, 0)
    door.forget()
    assert (await door.sign_in(body)).status_code == 201


async def bound(door: Door, person: Person, seed: str = SEED) -> httpx.Response:
    wallet = ExtensionWallet(seed)
    await wallet.connect()
    text = (await door.challenge(wallet.account.identity, token=person.token, purpose="bind"))["text"]
    signature = (await wallet.signMessage(text))["signatureHex"]
    body = {"identity": wallet.account.identity, "text": text, "signature": signature, "scheme": "raw"}
    return await door.http.post("/api/v1/wallet/bind", json=body, headers=person.headers)


async def test_a_wallet_is_bound_to_the_account_that_asks_and_to_no_second_one(door: Door) -> None:
    alice, bob = await make_person(door.running.db), await make_person(door.running.db)
    answer = await bound(door, alice)
    assert [w["identity"] for w in answer.json()["wallets"]] == [IDENTITY]
    assert (await bound(door, alice)).status_code == 200, "again is the same"
    told(await bound(door, bob), 409, "wallet_taken", "identity")
    view = (await door.sign_in(await door.signed())).json()
    assert (view["account_id"], view["created"]) == (str(alice.account_id), False)


async def test_a_challenge_binds_to_nobody_but_who_asked(door: Door) -> None:
    alice, mallory = await make_person(door.running.db), await make_person(door.running.db)
    body = await door.signed((await door.challenge(token=mallory.token, purpose="bind"))["text"])
    assert str(mallory.account_id) in body["text"]
    answer = await door.http.post("/api/v1/wallet/bind", json=body, headers=alice.headers)
    told(answer, 403, "wrong_purpose", "text")
    sign_in_text = await door.signed()
    answer = await door.http.post("/api/v1/wallet/bind", json=sign_in_text, headers=alice.headers)
    told(answer, 403, "wrong_purpose", "text")
    answer = await door.http.post("/api/v1/wallet/challenge", json={"identity": IDENTITY, "purpose": "bind"})
    told(answer, 401, "unauthorised", "Authorization")
    assert await door.rows() == (0, 0)


async def test_unbinding_ends_the_wallets_sessions_and_keeps_the_last_way_in(door: Door) -> None:
    view = (await door.sign_in(await door.signed())).json()
    mine = {"Authorization": f"Bearer {view['token']}"}
    path = f"/api/v1/wallets/{IDENTITY}"
    told(await door.http.delete(path, headers=mine), 409, "last_way_in", "identity")
    me = Person(uuid.UUID(view["account_id"]), view["token"])
    assert (await bound(door, me, OTHER_SEED)).status_code == 200
    told(await door.http.delete(path, headers=mine), 409, "last_approver", "identity")
    await door.running.db.run(lambda tx: execute(tx, "UPDATE wallet SET since = since - interval '1 day'"))
    left = (await door.http.delete(path, headers=mine)).json()["wallets"]
    assert [wallet["identity"] for wallet in left] == [OTHER]
    told(await door.http.get("/api/v1/account", headers=mine), 401, "unauthorised", "Authorization")
    again = (await door.sign_in(await door.signed())).json()
    assert again["account_id"] != view["account_id"], "the key that was unbound opens an account of its own"
    other = {"Authorization": f"Bearer {again['token']}"}
    told(await door.http.delete(f"/api/v1/wallets/{OTHER}", headers=other), 404, "not_found", "identity")
    told(await door.http.delete("/api/v1/wallets/nonsense", headers=other), 422, "bad_identity", "identity")


async def test_sessions_are_listed_and_end_one_by_one_or_all(door: Door) -> None:
    tokens = []
    for name in ("desk", "phone", "tablet"):
        tokens.append((await door.sign_in(await door.signed(name=name))).json())
    mine = {"Authorization": f"Bearer {tokens[0]['token']}"}
    listed = (await door.http.get("/api/v1/sessions", headers=mine)).json()["sessions"]
    assert [(s["name"], s["current"]) for s in listed] == [("tablet", False), ("phone", False), ("desk", True)]
    assert all(s["identity"] == IDENTITY and s["expires_ms"] > s["created_ms"] for s in listed)
    assert "token" not in listed[0]
    answer = await door.http.delete(f"/api/v1/sessions/{tokens[1]['session']['session_id']}", headers=mine)
    ended = {s["name"] for s in answer.json()["sessions"] if s["ended_ms"] is not None}
    assert ended == {"phone"}
    assert (await door.http.delete("/api/v1/sessions", headers=mine)).json() == {"ended": 1}
    assert (await door.http.get("/api/v1/account", headers=mine)).status_code == 200
    for gone in tokens[1:]:
        answer = await door.http.get("/api/v1/account", headers={"Authorization": f"Bearer {gone['token']}"})
        told(answer, 401, "unauthorised", "Authorization")
    stranger = await make_person(door.running.db)
    answer = await door.http.delete(f"/api/v1/sessions/{tokens[0]['session']['session_id']}", headers=stranger.headers)
    told(answer, 404, "not_found", "session")
    assert (await door.http.delete("/api/v1/sessions?this_too=true", headers=mine)).json() == {"ended": 1}
    told(await door.http.get("/api/v1/account", headers=mine), 401, "unauthorised", "Authorization")


async def test_a_session_opens_no_more_than_its_user_scope(door: Door) -> None:
    view = (await door.sign_in(await door.signed())).json()
    mine = {"Authorization": f"Bearer {view['token']}"}
    told(await door.http.get("/api/v1/audit", headers=mine), 403, "forbidden", "Authorization")
    gateway = await make_person(door.running.db, Scope.GATEWAY)
    told(await door.http.get("/api/v1/wallets", headers=gateway.headers), 403, "forbidden", "Authorization")


async def test_a_flood_leaves_bounded_rows_and_memory_and_a_reason(db: Database, tmp_path: Path) -> None:
    """In no time at all: however long these requests take, nothing is granted anew meanwhile."""
    async with opened(db, tmp_path, clock=FakeClock()) as door:
        statuses: list[int] = []
        for _ in range(12):
            answer = await door.http.post("/api/v1/wallet/challenge", json={"identity": IDENTITY})
            statuses.append(answer.status_code)
        assert statuses.count(201) == 10
        told(answer, 429, "limit_exceeded", "identity")
        assert int(answer.headers["Retry-After"]) >= 1
        assert await db.fetch_value("SELECT count(*) FROM wallet_challenge") == wallet_rules.OPEN_FOR_ONE_MAX
        for n in range(1, 41):
            named = identity.encode(crypto.public_key(bytes([n]) * 32))
            answer = await door.http.post("/api/v1/wallet/challenge", json={"identity": named})
            statuses.append(answer.status_code)
        assert statuses.count(201) == 10 + 28, "forty of an address, of which twelve were of one identity"
        told(answer, 429, "limit_exceeded", "identity")
        rows = await db.fetch_value("SELECT count(*) FROM wallet_challenge")
        assert rows == wallet_rules.OPEN_FOR_ONE_MAX + 28
        assert len(door.running.coordinator.context.doors.challenges) == 1


async def test_the_network_says_whether_walletconnect_is_offered_and_may_pay(db: Database, tmp_path: Path) -> None:
    project, relay = "0123456789abcdef0123456789abcdef", "wss://relay.example"
    offered = {"walletconnect_project_id": project, "walletconnect_relay": relay}
    # Wallets of the main network have real money, which this network cannot credit.
    for chain, pays in (("qubic:mainnet", False), ("qubic:devnet", True)):
        async with opened(db, tmp_path, **offered, walletconnect_chain=chain) as door:
            network = (await door.http.get("/api/v1/network")).json()
            told = {name: network[f"walletconnect_{name}"] for name in ("project_id", "relay", "chain", "pays")}
            assert told == {"project_id": project, "relay": relay, "chain": chain, "pays": pays}


async def test_sessions_end_by_themselves(db: Database, tmp_path: Path) -> None:
    async with opened(db, tmp_path, session_life_s=60) as door:
        session = (await door.sign_in(await door.signed())).json()["session"]
        assert session["expires_ms"] - session["created_ms"] == timedelta(seconds=60).total_seconds() * 1000


async def test_a_wallet_stays_bound_while_a_withdrawal_to_it_is_open(door: Door) -> None:
    bank = Bank(door.running.db)
    owner = await bank.person()
    token = await bank.db.run(lambda tx: accounts.create_token(tx, owner.account_id, {Scope.USER}))
    mine, path = {"Authorization": f"Bearer {token}"}, f"/api/v1/wallets/{owner.destination}"
    asked = await bank.ask(owner, 1_000)
    problem = told(await door.http.delete(path, headers=mine), 409, "wallet_in_use", "identity")
    assert asked.withdrawal_id in problem["detail"]
    await withdrawals.cancel(bank.desk, owner.who, uuid.UUID(asked.withdrawal_id))
    assert (await door.http.delete(path, headers=mine)).json()["wallets"] == []


async def ask_through_a_proxy(door: Door, address: str) -> int:
    body = {"identity": IDENTITY}
    headers = {"X-Forwarded-For": address}
    return (await door.http.post("/api/v1/wallet/challenge", json=body, headers=headers)).status_code


async def test_who_asks_is_believed_from_trusted_proxies_alone(db: Database, tmp_path: Path) -> None:
    burst = 10
    async with opened(db, tmp_path / "a", clock=FakeClock()) as door:
        asked = [await ask_through_a_proxy(door, f"192.0.2.{n}") for n in range(burst + 1)]
        assert asked == [201] * burst + [429], "one who invents addresses stays one"
    async with opened(db, tmp_path / "b", clock=FakeClock(), trusted_proxies=("127.0.0.1",)) as door:
        asked = [await ask_through_a_proxy(door, "192.0.2.1") for _ in range(burst + 1)]
        assert asked == [201] * burst + [429]
        assert await ask_through_a_proxy(door, "192.0.2.2") == 201
