# SPDX-License-Identifier: Apache-2.0
"""The keys of an account's orders over HTTP (M6, A1, A3): who adds and revokes them; a stolen session cannot."""

import asyncio
import contextlib
import itertools
import secrets
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from qubix_coordinator.accounts import order_keys
from qubix_coordinator.accounts.order_key_rules import ORDER_KEYS_MAX, REQUEST_LIFE_MS
from qubix_coordinator.db.database import Database, plain_connection
from qubix_coordinator.db.migrations import CREATE_TABLE, PACKAGE, STEPS, digest_of, migrate
from qubix_protocol import digests
from qubix_protocol.envelope import ANYONE, seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import (
    KeySignIn,
    Message,
    OrderKeyApproval,
    OrderKeyRequest,
    OrderKeyRevocation,
    RentOrder,
    WalletApproval,
)
from qubix_protocol.states import OrderKeyKind
from tests.chain.vectors import OTHER_SEED, SEED
from tests.db.support_http import Person, Running, make_person, served
from tests.support.wallet_double import ExtensionWallet
from tests.support_pg import PgServer, drop_database, fresh_database

pytestmark = pytest.mark.asyncio
STEP = "accounts/schema_7_order_keys.sql"
Json = dict[str, Any]


@dataclass
class Open(Running):
    """Whose clients are closed when the test ends."""

    clients: contextlib.AsyncExitStack

    def client(self, person: Person | None = None) -> httpx.AsyncClient:
        made = super().client(person)
        self.clients.push_async_callback(made.aclose)
        return made


@dataclass
class Somebody:
    """A person at the API: signed in, with a wallet in their browser perhaps."""

    running: Running
    http: httpx.AsyncClient
    account_id: uuid.UUID
    wallet: ExtensionWallet | None = None
    key: SigningKey = field(default_factory=SigningKey.generate)

    @classmethod
    async def by_token(cls, running: Running) -> "Somebody":
        person = await make_person(running.db)
        return cls(running, running.client(person), person.account_id)

    @classmethod
    async def by_wallet(cls, running: Running, seed: str = SEED) -> "Somebody":
        """Whose account the wallet made."""
        wallet = ExtensionWallet(seed)
        await wallet.connect()
        found = cls(running, running.client(), uuid.UUID(int=0), wallet)
        view = await found.post("/wallet/sign-in", await found.proof("sign-in"), 201)
        found.account_id = uuid.UUID(view["account_id"])
        found.http = running.client(Person(found.account_id, view["token"]))
        return found

    def statement(self, message: Message, key: SigningKey | None = None, **changed: Any) -> str:
        context = self.running.coordinator.context
        said: Json = {
            "network": context.network,
            "audience": context.key.public,
            "incarnation": 0,
            "counter": secrets.randbits(52),
            "expires_ms": context.now_ms() + 60_000,
        }
        return seal(message, key or self.key, **{**said, **changed}).hex()

    def request(self, key: SigningKey, **changed: Any) -> str:
        """By the key itself, for this account unless told otherwise."""
        said = {
            "account_id": str(self.account_id),
            "kind": OrderKeyKind.BROWSER,
            "name": "a browser",
            "clock_ms": self.running.coordinator.context.now_ms(),
        }
        message = OrderKeyRequest(**{**said, **{k: changed.pop(k) for k in list(changed) if k in said}})
        return self.statement(message, key, **changed)

    def approval(self, request: str, key: SigningKey | None = None, **changed: Any) -> str:
        account = changed.pop("account_id", str(self.account_id))
        digest = digests.of_bytes(bytes.fromhex(request))
        return self.statement(OrderKeyApproval(account_id=account, request_digest=digest), key, **changed)

    def revocation(self, of: bytes, key: SigningKey | None = None, **changed: Any) -> str:
        account = changed.pop("account_id", str(self.account_id))
        return self.statement(OrderKeyRevocation(account_id=account, public_key=of), key, **changed)

    async def proof(self, purpose: str, of: bytes | None = None) -> Json:
        """A challenge for that purpose, signed by the wallet."""
        assert self.wallet is not None
        mine = self.wallet.account.identity
        named = {} if of is None else {"order_key": of.hex()}
        asked = {"identity": mine, "purpose": purpose, **named}
        text = (await self.post("/wallet/challenge", asked, 201))["text"]
        signature = (await self.wallet.signMessage(text))["signatureHex"]
        return {"identity": mine, "text": text, "signature": signature, "scheme": "raw"}

    async def post(self, path: str, body: Json, status: int = 200) -> Json:
        answer = await self.http.post(f"/api/v1{path}", json=body)
        assert answer.status_code == status, answer.text
        found: Json = answer.json()
        assert status < 400 or (found["remedy"] and found["detail"])
        return found

    async def add(self, body: Json, status: int = 201) -> Json:
        return await self.post("/order-keys", body, status)

    async def revoke(self, of: bytes, body: Json, status: int = 200) -> Json:
        return await self.post(f"/order-keys/{of.hex()}/revoke", body, status)

    async def listed(self) -> Json:
        found: Json = (await self.http.get("/api/v1/order-keys")).json()
        return found

    async def keys(self) -> list[Json]:
        found: list[Json] = (await self.listed())["keys"]
        return found

    async def account(self) -> Json:
        found: Json = (await self.http.get("/api/v1/account")).json()
        return found

    async def spend(self, key: SigningKey | None) -> str:
        """What a signed (or unsigned) order of theirs meets: the problem's code; `not_found`: it was believed, and only
        the listing is missing."""
        name, listing = secrets.token_hex(8), str(uuid.uuid4())
        body: Json = {"listing_id": listing, "seconds": 60}
        if key is not None:
            order = RentOrder(idempotency_key=name, listing_id=listing, seconds=60, rate_qu_per_h_max=None, cap_qu=None)
            body["order"] = self.statement(order, key)
        answer = await self.http.post("/api/v1/rentals", json=body, headers={"Idempotency-Key": name})
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.json()["remedy"]
        return str(answer.json()["code"])

    async def bind_first_key(self) -> None:
        """As the SDK does: by its first signed order. This one is kept, which `spend`'s is not."""
        await self.running.db.run(lambda tx: order_keys.use(tx, self.account_id, self.key.public))


@pytest_asyncio.fixture
async def running(db: Database, tmp_path: Path) -> AsyncIterator[Running]:
    async with served(db, tmp_path) as found, contextlib.AsyncExitStack() as clients:
        yield Open(found.coordinator, found.url, found.db, clients)


async def test_one_click_gives_a_new_account_its_first_key(running: Running) -> None:
    person, browser = await Somebody.by_token(running), SigningKey.generate()
    assert await person.spend(None) == "not_found"
    assert (await person.account())["orders_signed"] is False
    told = await person.add({"request": person.request(browser, name="the browser here")})
    assert told["signed"] is True
    (key,) = told["keys"]
    assert (key["public_key"], key["name"], key["kind"]) == (browser.public.hex(), "the browser here", "browser")
    assert (key["added_by"], key["added_by_key"], key["added_by_identity"]) == ("session", None, "")
    assert (key["revoked_ms"], key["last_used_ms"]) == (None, None)
    account = await person.account()
    assert (account["order_key"], account["orders_signed"]) == (browser.public.hex(), True)
    assert await person.spend(None) == "order_unsigned"
    assert await person.spend(browser) == "not_found"


async def test_a1_a_stolen_session_adds_and_revokes_no_key(running: Running) -> None:
    """Whatever a session alone can have signed: by keys and wallets of the thief's own, bound to the account or not."""
    owner = await Somebody.by_wallet(running)
    await owner.bind_first_key()
    mine, wallet = SigningKey.generate(), ExtensionWallet(OTHER_SEED)
    await wallet.connect()
    thief = Somebody(running, owner.http, owner.account_id, wallet, mine)
    request = thief.request(mine)
    assert (await thief.add({"request": request}, 403))["code"] == "approval_needed"
    assert (await thief.add({"request": request, "approval": thief.approval(request)}, 403))[
        "code"
    ] == "approval_needed"
    assert await thief.spend(mine) == "order_key_unknown"
    assert await thief.spend(None) == "order_unsigned"
    stranger = await thief.proof("add-order-key", mine.public)
    assert (await thief.add({"request": request, "wallet": stranger}, 403))["code"] == "forbidden"
    bound = await thief.post("/wallet/bind", await thief.proof("bind"))
    assert [one["approves_keys"] for one in bound["wallets"]] == [True, False]
    signed = await thief.proof("add-order-key", mine.public)
    assert (await thief.add({"request": request, "wallet": signed}, 403))["code"] == "approval_needed"
    approve = {
        "statement": thief.statement(WalletApproval(account_id=str(owner.account_id), identity=wallet.account.identity))
    }
    path = f"/wallets/{wallet.account.identity}/approve"
    assert (await thief.post(path, approve, 403))["code"] == "approval_needed"
    theirs = owner.key.public
    for body in (
        {},
        {"statement": thief.revocation(theirs)},
        {"wallet": await thief.proof("revoke-order-key", theirs)},
    ):
        assert (await thief.revoke(theirs, body, 403))["code"] == "approval_needed"
    assert owner.wallet is not None
    taken = await owner.http.delete(f"/api/v1/wallets/{owner.wallet.account.identity}")
    assert (taken.status_code, taken.json()["code"]) == (409, "last_approver")
    assert [one["public_key"] for one in await owner.keys()] == [theirs.hex()]
    assert await owner.spend(owner.key) == "not_found"


async def test_a1_a_stolen_session_takes_over_no_account_that_never_had_a_key(running: Running) -> None:
    """It can bind a wallet, make a token, add the first key and have that approve the wallet: the owner's wallet stays,
    and takes it all away again."""
    owner = await Somebody.by_wallet(running)
    assert owner.wallet is not None
    theirs = owner.wallet.account.identity
    wallet = ExtensionWallet(OTHER_SEED)
    await wallet.connect()
    thief = Somebody(running, owner.http, owner.account_id, wallet)

    async def evict() -> tuple[int, str]:
        answer = await thief.http.delete(f"/api/v1/wallets/{theirs}")
        return answer.status_code, answer.json()["code"]

    await thief.post("/tokens", {"name": "stays", "scopes": ["user"]}, 201)
    assert await evict() == (409, "last_approver")
    await thief.post("/wallet/bind", await thief.proof("bind"))
    assert await evict() == (409, "last_approver")
    await thief.add({"request": thief.request(thief.key)})
    mine = wallet.account.identity
    approval = WalletApproval(account_id=str(owner.account_id), identity=mine)
    await thief.post(f"/wallets/{mine}/approve", {"statement": thief.statement(approval)})
    assert await evict() == (409, "last_approver")

    back = await Somebody.by_wallet(running)
    assert back.account_id == owner.account_id
    left = (await back.http.delete(f"/api/v1/wallets/{mine}")).json()["wallets"]
    assert [one["identity"] for one in left] == [theirs]
    await back.revoke(thief.key.public, {"wallet": await back.proof("revoke-order-key", thief.key.public)})
    assert await thief.spend(thief.key) == "order_key_revoked"


async def test_the_wallet_that_made_the_account_adds_the_browsers_key_beside_the_sdks(running: Running) -> None:
    person, browser = await Somebody.by_wallet(running), SigningKey.generate()
    await person.bind_first_key()
    proof = await person.proof("add-order-key", browser.public)
    told = await person.add({"request": person.request(browser), "wallet": proof})
    assert person.wallet is not None
    found = [(one["public_key"], one["added_by"], one["added_by_identity"]) for one in told["keys"]]
    identity = person.wallet.account.identity
    assert found == [(person.key.public.hex(), "order", ""), (browser.public.hex(), "wallet", identity)]
    assert await person.spend(browser) == "not_found"
    assert await person.spend(person.key) == "not_found"
    assert (await person.account())["order_key"] == person.key.public.hex()


async def test_a_live_key_approves_another_which_then_approves_more(running: Running) -> None:
    person = await Somebody.by_token(running)
    await person.bind_first_key()
    chain = [person.key, SigningKey.generate(), SigningKey.generate()]
    for older, newer in itertools.pairwise(chain):
        request = person.request(newer, kind=OrderKeyKind.SDK)
        await person.add({"request": request, "approval": person.approval(request, older)})
    keys = await person.keys()
    assert [one["added_by_key"] for one in keys] == [None, chain[0].public.hex(), chain[1].public.hex()]
    assert [one["kind"] for one in keys] == ["sdk"] * 3


async def test_a_key_is_revoked_at_once_and_for_good_and_its_sessions_end(running: Running) -> None:
    """M6. A revoked key signs, approves, revokes and opens nothing; the same statements sent again change nothing."""
    person, browser = await Somebody.by_wallet(running), SigningKey.generate()
    await person.bind_first_key()
    request = person.request(browser)
    adding = {"request": request, "approval": person.approval(request)}
    await person.add(adding)
    assert await person.spend(browser) == "not_found"
    opened = await sign_in(person, browser)
    assert opened.status_code == 201
    session = running.client(Person(person.account_id, opened.json()["token"]))
    assert (await session.get("/api/v1/account")).status_code == 200
    revoking = {"statement": person.revocation(browser.public)}
    told = await person.revoke(browser.public, revoking)
    gone = told["keys"][1]
    assert (gone["public_key"], gone["revoked_by"], gone["revoked_by_key"]) == (
        browser.public.hex(),
        "key",
        person.key.public.hex(),
    )
    assert gone["revoked_ms"] >= gone["created_ms"]
    assert await person.spend(browser) == "order_key_revoked"
    assert (await session.get("/api/v1/account")).status_code == 401
    assert (await sign_in(person, browser)).json()["code"] == "order_key_revoked"
    assert (await person.revoke(browser.public, revoking))["keys"] == told["keys"]
    assert (await person.add(adding, 403))["code"] == "order_key_revoked"
    by_wallet = {"request": request, "wallet": await person.proof("add-order-key", browser.public)}
    assert (await person.add(by_wallet, 403))["code"] == "order_key_revoked"
    another = person.request(SigningKey.generate())
    refused = await person.add({"request": another, "approval": person.approval(another, browser)}, 403)
    assert refused["code"] == "approval_needed"
    theirs = person.key.public
    assert (await person.revoke(theirs, {"statement": person.revocation(theirs, browser)}, 403))["code"] == (
        "approval_needed"
    )
    assert await person.spend(person.key) == "not_found"


async def sign_in(person: Somebody, key: SigningKey) -> httpx.Response:
    said = KeySignIn(name="by its key", clock_ms=person.running.coordinator.context.now_ms())
    async with person.running.client() as http:
        content = bytes.fromhex(person.statement(said, key))
        return await http.post("/api/v1/key/sign-in", content=content, headers={"Content-Type": "application/msgpack"})


async def test_m6_the_last_key_goes_by_a_wallet_and_the_account_is_never_a_sessions_again(running: Running) -> None:
    person = await Somebody.by_wallet(running)
    await person.bind_first_key()
    theirs = person.key.public
    alone = await person.revoke(theirs, {"statement": person.revocation(theirs)}, 403)
    assert "last key" in alone["detail"]
    told = await person.revoke(theirs, {"wallet": await person.proof("revoke-order-key", theirs)})
    assert person.wallet is not None
    assert (told["signed"], told["keys"][0]["revoked_by_identity"]) == (True, person.wallet.account.identity)
    account = await person.account()
    assert (account["order_key"], account["orders_signed"]) == (None, True)
    assert await person.spend(None) == "order_unsigned"
    new = SigningKey.generate()
    assert await person.spend(new) == "order_key_unknown"
    assert (await person.add({"request": person.request(new)}, 403))["code"] == "approval_needed"
    await person.add({"request": person.request(new), "wallet": await person.proof("add-order-key", new.public)})
    assert await person.spend(new) == "not_found"
    assert [one["public_key"] for one in await person.keys()] == [new.public.hex(), theirs.hex()]


async def test_a_wallet_that_a_key_approved_may_change_keys(running: Running) -> None:
    person, browser = await Somebody.by_token(running), SigningKey.generate()
    await person.bind_first_key()
    person.wallet = ExtensionWallet(SEED)
    await person.wallet.connect()
    await person.post("/wallet/bind", await person.proof("bind"))
    assert (await person.listed())["wallet_approves"] is False
    adding = {"request": person.request(browser), "wallet": await person.proof("add-order-key", browser.public)}
    assert (await person.add(adding, 403))["code"] == "approval_needed"
    held = person.wallet.account
    statement = WalletApproval(account_id=str(person.account_id), identity=held.identity)
    path = f"/wallets/{held.identity}/approve"
    other = WalletApproval(account_id=str(person.account_id), identity="A" * 60)
    assert (await person.post(path, {"statement": person.statement(other)}, 422))["field"] == "statement"
    told = await person.post(path, {"statement": person.statement(statement)})
    assert [one["approves_keys"] for one in told["wallets"]] == [True]
    assert (await person.listed())["wallet_approves"] is True
    adding["wallet"] = await person.proof("add-order-key", browser.public)
    assert [one["added_by"] for one in (await person.add(adding))["keys"]] == ["order", "wallet"]


async def test_a3_a_wallet_that_a_payment_proved_never_changes_keys(running: Running) -> None:
    person = await Somebody.by_token(running)
    await person.bind_first_key()
    wallet = ExtensionWallet(SEED).account
    async with running.db.transaction() as tx:
        await tx.execute_query(
            "INSERT INTO wallet (id, account_id, public_key, proof) VALUES (gen_random_uuid(), $1, $2, 'payment')",
            [person.account_id, wallet.public_key],
        )
    statement = person.statement(WalletApproval(account_id=str(person.account_id), identity=wallet.identity))
    refused = await person.post(f"/wallets/{wallet.identity}/approve", {"statement": statement}, 409)
    assert "payment" in refused["detail"]
    with pytest.raises(Exception, match="wallet_approves_by_signature"):
        await running.db.fetch("UPDATE wallet SET approves_keys = true RETURNING id")


async def test_requests_and_approvals_are_for_one_key_one_account_here_and_now(running: Running) -> None:
    person, other = await Somebody.by_token(running), await Somebody.by_token(running)
    await person.bind_first_key()
    await other.bind_first_key()
    now_ms, new, stranger = running.coordinator.context.now_ms(), SigningKey.generate(), SigningKey.generate()
    good = person.request(new)
    wrong_requests = {
        "another account": person.request(new, account_id=str(other.account_id)),
        "too long ago": person.request(new, clock_ms=now_ms - REQUEST_LIFE_MS - 60_000),
        "network": person.request(new, network="test"),
        "not addressed": person.request(new, audience=stranger.public),
        "to this coordinator": person.request(new, audience=ANYONE),
        "signature": good[:-2] + f"{int(good[-2:], 16) ^ 1:02x}",
        "order_key_approval": person.approval(good),
        "not MessagePack": "c1",
    }
    for why, request in wrong_requests.items():
        body = {"request": request, "approval": person.approval(request)}
        answer = await person.http.post("/api/v1/order-keys", json=body)
        assert answer.status_code in (403, 422), why
        assert (answer.json()["field"], why in answer.json()["detail"]) == ("request", True), answer.text
    wrong_approvals = {
        "of another request": person.approval(person.request(stranger)),
        "for another account": person.approval(good, account_id=str(other.account_id)),
        "expired": person.approval(good, expires_ms=now_ms - 1),
        "by another account's key": person.approval(good, other.key),
        "by the new key": person.approval(good, new),
        "by a revocation": person.revocation(new.public),
        "to anyone": person.approval(good, audience=ANYONE),
    }
    for what, approval in wrong_approvals.items():
        answer = await person.http.post("/api/v1/order-keys", json={"request": good, "approval": approval})
        assert answer.status_code in (403, 422), what
        assert (answer.json()["field"], bool(answer.json()["remedy"])) == ("approval", True), what
    assert [one["public_key"] for one in await person.keys()] == [person.key.public.hex()]
    await person.add({"request": good, "approval": person.approval(good)})


async def test_a_key_signs_for_one_account_and_somebody_elses_is_not_revoked(running: Running) -> None:
    person, other = await Somebody.by_token(running), await Somebody.by_token(running)
    await person.bind_first_key()
    await other.bind_first_key()
    request = other.request(person.key)
    taken = await other.add({"request": request, "approval": other.approval(request)}, 409)
    assert "somebody else" in taken["detail"]
    assert await other.spend(person.key) == "conflict"
    statement = {"statement": other.revocation(person.key.public)}
    assert (await other.revoke(person.key.public, statement, 404))["field"] == "public_key"
    named = {"statement": other.revocation(person.key.public)}
    assert (await other.revoke(other.key.public, named, 422))["field"] == "statement"
    assert (await other.http.post("/api/v1/order-keys/xyz/revoke", json={})).status_code == 422
    assert await person.spend(person.key) == "not_found"


async def test_a_wallets_word_serves_once_for_one_key_and_one_purpose(running: Running) -> None:
    person = await Somebody.by_wallet(running)
    await person.bind_first_key()
    one, two = SigningKey.generate(), SigningKey.generate()
    proof = await person.proof("add-order-key", one.public)
    assert (await person.add({"request": person.request(two), "wallet": proof}, 422))["field"] == "wallet.text"
    assert (await person.revoke(one.public, {"wallet": proof}, 403))["code"] == "wrong_purpose"
    for wrong in ("bind", "revoke-order-key"):
        other = await person.proof(wrong, one.public if wrong != "bind" else None)
        assert (await person.add({"request": person.request(one), "wallet": other}, 403))["code"] == "wrong_purpose"
    await person.add({"request": person.request(one), "wallet": proof})
    again = await person.add({"request": person.request(one), "wallet": proof}, 403)
    assert again["code"] == "challenge_used"
    asked = {"identity": proof["identity"], "purpose": "add-order-key"}
    assert (await person.post("/wallet/challenge", asked, 422))["field"] == "order_key"
    both = {"request": person.request(two), "wallet": proof, "approval": person.approval(person.request(two))}
    assert (await person.add(both, 422))["field"] == "wallet"
    other_account = await Somebody.by_wallet(running, OTHER_SEED)
    proof = await other_account.proof("add-order-key", two.public)
    assert (await person.add({"request": person.request(two), "wallet": proof}, 403))["field"] == "wallet.text"


async def test_two_first_orders_at_once_give_the_account_one_key(running: Running) -> None:
    person = await Somebody.by_token(running)
    keys = [SigningKey.generate() for _ in range(6)]

    async def first(key: SigningKey) -> bool:
        try:
            await running.db.run(lambda tx: order_keys.use(tx, person.account_id, key.public))
        except order_keys.OrderKeyUnknown:
            return False
        return True

    assert sum(await asyncio.gather(*map(first, keys))) == 1
    assert len(await person.keys()) == 1


async def test_an_order_in_hand_keeps_its_key_and_the_next_one_is_refused(running: Running) -> None:
    """A revocation waits for orders that are being taken; it comes at once for those after it."""
    person = await Somebody.by_wallet(running)
    await person.bind_first_key()
    assert (await person.keys())[0]["last_used_ms"] is not None, "the order below writes nothing: it only holds the key"
    theirs = person.key.public
    proof = {"wallet": await person.proof("revoke-order-key", theirs)}
    async with running.db.transaction() as tx:
        await order_keys.use(tx, person.account_id, theirs)
        revoking = asyncio.create_task(person.revoke(theirs, proof))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE order_key%'"
        )
        async with asyncio.timeout(30):
            while not await running.db.fetch_value(waiting):  # noqa: ASYNC110 - the server's own word is all there is
                await asyncio.sleep(0.01)
        assert not revoking.done()
    await revoking
    assert await person.spend(person.key) == "order_key_revoked"


async def test_an_account_has_so_many_live_keys(running: Running) -> None:
    person = await Somebody.by_token(running)
    await person.bind_first_key()
    for _ in range(ORDER_KEYS_MAX - 1):
        request = person.request(SigningKey.generate())
        await person.add({"request": request, "approval": person.approval(request)})
    request = person.request(SigningKey.generate())
    full = await person.add({"request": request, "approval": person.approval(request)}, 409)
    assert str(ORDER_KEYS_MAX) in full["detail"]


async def test_the_database_keeps_keys_by_itself(running: Running) -> None:
    """No code of ours could add a key to an account that has one without naming who approved it, or bring one back."""
    person = await Somebody.by_token(running)
    await person.bind_first_key()
    added = "INSERT INTO account_key (public_key, account_id, purpose) VALUES (sha256('x'), $1, 'order') RETURNING 1"
    await running.db.fetch(added, person.account_id)
    columns = "INSERT INTO order_key (public_key, account_id, name, kind, created_at, added_by)"
    for way, why in (("session", "needs a signature"), ("order", "needs a signature"), ("key", "adder_named")):
        row = f"{columns} VALUES (sha256('x'), $1, 'x', 'sdk', now(), '{way}') RETURNING 1"
        with pytest.raises(Exception, match=why):
            await running.db.fetch(row, person.account_id)
    for change in (
        "DELETE FROM order_key RETURNING 1",
        "UPDATE order_key SET account_id = gen_random_uuid() RETURNING 1",
    ):
        with pytest.raises(Exception, match="kept as it was added"):
            await running.db.fetch(change)
    revoked = "UPDATE order_key SET revoked_at = {}, revoked_by = {}, revoked_by_key = {} RETURNING 1"
    await running.db.fetch(revoked.format("now()", "'key'", "public_key"))
    with pytest.raises(Exception, match="once revoked stays so"):
        await running.db.fetch(revoked.format("NULL", "NULL", "NULL"))


async def test_keys_from_before_are_carried_over(pg_server: PgServer) -> None:
    """A database in the field: the one key of an account stays its key; a wallet bound after it approves none."""
    dsn = await fresh_database(pg_server, migrated=False)
    try:
        connection = await plain_connection(dsn)
        await connection.execute(CREATE_TABLE)
        for step in STEPS[: STEPS.index(STEP)]:
            await connection.execute((PACKAGE / step).read_text())
            await connection.execute("INSERT INTO migration (step, digest) VALUES ($1, $2)", step, digest_of(step))
        for name in ("signed", "new"):
            await connection.execute("INSERT INTO account (id, kind, name) VALUES ($1, 'user', $2)", uuid.uuid4(), name)
        await connection.execute(
            "INSERT INTO account_key (public_key, account_id, purpose) SELECT sha256(name::bytea), id, 'order'"
            " FROM account WHERE name = 'signed'"
        )
        for name, days, proof in (
            ("signed", -1, "signature"),
            ("signed", 1, "signature"),
            ("new", 1, "signature"),
            ("signed", -2, "payment"),
        ):
            await connection.execute(
                "INSERT INTO wallet (id, account_id, public_key, proof, since) SELECT gen_random_uuid(), id,"
                " sha256((name || $2 || $3)::bytea), $3, now() + make_interval(days => $2::int) FROM account"
                " WHERE name = $1",
                name,
                str(days),
                proof,
            )
        await connection.close()
        assert STEP in await migrate(dsn, "devnet")
        connection = await plain_connection(dsn)
        kept = await connection.fetch(
            "SELECT o.added_by, o.kind, a.name FROM order_key o JOIN account a ON a.id = account_id"
        )
        assert [tuple(row) for row in kept] == [("order", "sdk", "signed")]
        found = await connection.fetch(
            "SELECT a.name, w.proof, w.since < now(), w.approves_keys FROM wallet w JOIN account a ON a.id = account_id"
            " ORDER BY 1, 2, 3"
        )
        assert [tuple(row) for row in found] == [
            ("new", "signature", False, True),
            ("signed", "payment", True, False),
            ("signed", "signature", False, False),
            ("signed", "signature", True, True),
        ]
        await connection.close()
    finally:
        await drop_database(pg_server, dsn)
