# SPDX-License-Identifier: Apache-2.0
"""Challenges, bound wallets, payments that prove an address, and sessions, over a real database."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from tortoise.exceptions import IntegrityError

from qubix_coordinator.accounts import challenges, sessions, wallet_rules, wallets
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.challenges import Challenge
from qubix_coordinator.accounts.order_key_rules import STANDS_IN_AFTER
from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.accounts.wallet_rules import BoundWallet, Proof
from qubix_coordinator.db.database import Database, Tx, execute
from qubix_coordinator.errors import (
    ChallengeAltered,
    ChallengeExpired,
    ChallengeUnknown,
    ChallengeUsed,
    Conflict,
    LastApprover,
    LastWayIn,
    LimitExceeded,
    NotFound,
    Unauthorised,
    WalletTaken,
    WrongDomain,
    WrongNetwork,
    WrongPurpose,
    WrongWallet,
)
from qubix_protocol.wallet_text import Purpose

pytestmark = pytest.mark.asyncio
T = TypeVar("T")
NOW = datetime.now(UTC)
LATER = NOW + wallet_rules.CHALLENGE_LIFE
KEYS = [bytes([n]) * 32 for n in range(1, 200)]
KEY, OTHER = KEYS[0], KEYS[1]
DOMAIN = "market.example"
WAITING_S = 60


def identity_of(key: bytes) -> str:
    """Sixty letters that stand for a key here; whether they are its identity is checked by whoever decodes them."""
    return "".join(chr(ord("A") + byte % 26) for byte in key * 2)[:60]


async def refused(db: Database, kind: type[Exception], step: Callable[[Tx], Awaitable[T]]) -> Exception:
    with pytest.raises(kind) as found:
        await db.run(step)
    assert getattr(found.value, "remedy", "remedy")
    return found.value


async def ask(db: Database, key: bytes = KEY, **more: Any) -> Challenge:
    given = {"domain": DOMAIN, "network": "devnet", "address": "192.0.2.1", "now": NOW, **more}
    return await db.run(lambda tx: challenges.issue(tx, identity=identity_of(key), public_key=key, **given))


async def come_back(db: Database, text: str, key: bytes = KEY, **more: Any) -> Challenge:
    given = {"domain": DOMAIN, "network": "devnet", "purpose": Purpose.SIGN_IN, "now": NOW, **more}
    return await db.run(lambda tx: challenges.signed(tx, text, identity=identity_of(key), **given))


async def signed_in(db: Database, key: bytes = KEY) -> BoundWallet:
    challenge = await ask(db, key)
    wallet, _ = await db.run(lambda tx: wallets.sign_in(tx, challenge, name="wallet", now=NOW))
    return wallet


async def also_bound(db: Database, first: BoundWallet, *, now: datetime = NOW) -> BoundWallet:
    """Another wallet of the account."""
    challenge = await ask(db, OTHER, account_id=first.account_id, now=now)
    return await db.run(lambda tx: wallets.bind(tx, challenge, first.account_id, now=now))


async def an_account(db: Database) -> uuid.UUID:
    return await db.run(lambda tx: accounts.create_account(tx, "alice"))


async def test_the_first_sign_in_makes_the_account_and_the_next_opens_it(db: Database) -> None:
    challenge = await ask(db)
    assert await come_back(db, challenge.text) == challenge
    wallet, made = await db.run(lambda tx: wallets.sign_in(tx, challenge, name="wallet", now=NOW))
    assert made
    again = await ask(db)
    assert await db.run(lambda tx: wallets.sign_in(tx, again, name="another", now=NOW)) == (wallet, False)
    assert (await db.run(lambda tx: accounts.account(tx, wallet.account_id))).name == "wallet"
    assert await db.run(lambda tx: wallets.wallets_of(tx, wallet.account_id)) == [wallet]
    assert wallet.may.sign_in
    assert wallet.may.be_paid


async def test_a_challenge_serves_once_also_when_used_by_many_at_once(db: Database) -> None:
    challenge = await ask(db)

    async def use() -> bool:
        try:
            await db.run(lambda tx: wallets.sign_in(tx, challenge, name="wallet", now=NOW))
        except ChallengeUsed:
            return False
        return True

    assert sum(await asyncio.gather(*(use() for _ in range(16)))) == 1
    assert await db.fetch_value("SELECT count(*) FROM account") == 1
    await refused(db, ChallengeUsed, lambda tx: challenges.use(tx, challenge, NOW))
    with pytest.raises(ChallengeUsed):
        await come_back(db, challenge.text)


async def test_first_sign_ins_of_one_key_at_once_make_one_account(db: Database) -> None:
    asked = [await ask(db) for _ in range(wallet_rules.OPEN_FOR_ONE_MAX)]
    found = await asyncio.gather(
        *(db.run(lambda tx, c=c: wallets.sign_in(tx, c, name="wallet", now=NOW)) for c in asked)  # type: ignore[misc]
    )
    assert len({wallet.account_id for wallet, _ in found}) == 1
    assert [made for _, made in found].count(True) == 1
    assert await db.fetch_value("SELECT count(*) FROM account") == 1


@pytest.mark.parametrize(
    ("asked", "came", "kind"),
    [
        ({}, {"domain": "evil.example"}, WrongDomain),
        ({}, {"domain": "market.example:8600"}, WrongDomain),
        ({}, {"network": "main"}, WrongNetwork),
        ({}, {"key": OTHER}, WrongWallet),
        ({}, {"purpose": Purpose.BIND}, WrongPurpose),
        ({}, {"now": LATER}, ChallengeExpired),
    ],
)
async def test_what_does_not_fit_is_refused_with_its_reason(
    db: Database, asked: dict[str, Any], came: dict[str, Any], kind: type[Exception]
) -> None:
    challenge = await ask(db, **asked)
    with pytest.raises(kind):
        await come_back(db, challenge.text, **came)
    assert await come_back(db, challenge.text), "a refusal uses nothing up"


async def test_a_text_that_was_never_issued_or_was_changed_is_refused(db: Database) -> None:
    challenge = await ask(db)
    for text in ("", "hello", challenge.text + " ", challenge.text.replace("QUBIX", "qubix")):
        with pytest.raises(ChallengeAltered):
            await come_back(db, text)
    elsewhere = challenge.text.replace(challenge.nonce.hex(), "00" * 16)
    with pytest.raises(ChallengeUnknown):
        await come_back(db, elsewhere)
    longer = challenge.text.replace(f"{challenge.expires:Expires: %Y}", f"Expires: {challenge.expires.year + 1}")
    with pytest.raises(ChallengeAltered):
        await come_back(db, longer)


async def test_an_expired_challenge_is_not_used_even_by_who_read_it_in_time(db: Database) -> None:
    challenge = await ask(db)
    await refused(db, ChallengeUsed, lambda tx: wallets.sign_in(tx, challenge, name="wallet", now=LATER))
    assert await db.fetch_value("SELECT count(*) FROM account") == 0


async def test_open_challenges_are_bounded_and_nobody_locks_another_out(db: Database) -> None:
    first = await ask(db)
    for _ in range(20):
        await ask(db, address="198.51.100.9")
    assert await come_back(db, first.text), "what somebody else asks for takes nothing away"
    for n in range(wallet_rules.OPEN_FOR_ONE_MAX):
        await ask(db, now=NOW + timedelta(seconds=n + 1))
    with pytest.raises(ChallengeUnknown):
        await come_back(db, first.text)
    assert await db.fetch_value("SELECT count(*) FROM wallet_challenge") == 2 * wallet_rules.OPEN_FOR_ONE_MAX


async def test_an_address_has_a_bounded_number_open_and_room_again_later(db: Database) -> None:
    async def flood() -> bool:
        try:
            await ask(db, uuid.uuid4().bytes * 2)
        except LimitExceeded:
            return False
        return True

    done = [await asyncio.gather(*(flood() for _ in range(20))) for _ in range(6)]
    assert sum(sum(part) for part in done) == wallet_rules.OPEN_FROM_ONE_MAX
    assert await db.fetch_value("SELECT count(*) FROM wallet_challenge") == wallet_rules.OPEN_FROM_ONE_MAX
    assert await ask(db, OTHER, address="198.51.100.9")
    assert await ask(db, OTHER, now=LATER)
    swept = await db.run(lambda tx: challenges.sweep(tx, LATER + wallet_rules.CHALLENGE_KEPT))
    assert swept == wallet_rules.OPEN_FROM_ONE_MAX + 1


async def test_challenges_altogether_are_bounded(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challenges, "CHALLENGES_MAX", 8)
    for n in range(8):
        await ask(db, KEYS[n], address=f"192.0.2.{n}")
    with pytest.raises(LimitExceeded):
        await ask(db, KEYS[9], address="192.0.2.9")
    assert await ask(db, KEYS[9], address="192.0.2.9", now=LATER + timedelta(seconds=1)), "expired ones give way"
    assert await db.fetch_value("SELECT count(*) FROM wallet_challenge") == 1


async def test_a_wallet_is_bound_by_its_signature_to_one_account(db: Database) -> None:
    alice, bob = await an_account(db), await an_account(db)
    first = await ask(db, account_id=alice)
    await refused(db, WrongPurpose, lambda tx: wallets.sign_in(tx, first, name="x", now=NOW))
    await refused(db, WrongPurpose, lambda tx: wallets.bind(tx, first, bob, now=NOW))
    bound = await db.run(lambda tx: wallets.bind(tx, first, alice, now=NOW))
    assert (bound.account_id, bound.proof) == (alice, Proof.SIGNATURE)
    again = await ask(db, account_id=alice)
    assert await db.run(lambda tx: wallets.bind(tx, again, alice, now=NOW)) == bound
    other = await ask(db, account_id=bob)
    await refused(db, WalletTaken, lambda tx: wallets.bind(tx, other, bob, now=NOW))
    assert (await signed_in(db)).account_id == alice


async def test_one_key_bound_by_two_accounts_at_once_speaks_for_one(db: Database) -> None:
    people = [await an_account(db) for _ in range(6)]
    asked = [await ask(db, account_id=who, address=f"192.0.2.{n}") for n, who in enumerate(people)]

    async def bind(challenge: Challenge, who: uuid.UUID) -> bool:
        try:
            await db.run(lambda tx: wallets.bind(tx, challenge, who, now=NOW))
        except WalletTaken:
            return False
        return True

    assert sum(await asyncio.gather(*map(bind, asked, people))) == 1


async def test_a_key_that_was_unbound_comes_back_to_an_account_of_its_own(db: Database) -> None:
    """A stolen wallet that its owner unbound does not lead the thief into the owner's account."""
    stolen = await signed_in(db)
    await also_bound(db, stolen)
    await db.run(lambda tx: wallets.unbind(tx, stolen, now=NOW))
    assert [w.public_key for w in await db.run(lambda tx: wallets.wallets_of(tx, stolen.account_id))] == [OTHER]
    assert (await signed_in(db)).account_id != stolen.account_id


async def test_the_last_way_into_an_account_stays(db: Database) -> None:
    wallet = await signed_in(db)
    await refused(db, LastWayIn, lambda tx: wallets.unbind(tx, wallet, now=NOW))
    token, _ = await db.run(lambda tx: sessions.start(tx, wallet, name="page", life=timedelta(days=1)))
    await refused(db, LastWayIn, lambda tx: wallets.unbind(tx, wallet, now=NOW))
    await db.run(lambda tx: accounts.create_token(tx, wallet.account_id, {Scope.USER}))
    await refused(db, LastApprover, lambda tx: wallets.unbind(tx, wallet, now=NOW))
    await also_bound(db, wallet)
    await db.run(lambda tx: wallets.unbind(tx, wallet, now=NOW))
    await refused(db, Unauthorised, lambda tx: accounts.authenticate(tx, token))


async def test_a1_a_wallet_gives_way_to_one_bound_after_it_only_when_that_is_a_day_old(db: Database) -> None:
    """Else a stolen session would put the thief's wallet in the place of the owner's."""
    first = await signed_in(db)
    bound = NOW + timedelta(hours=1)
    await also_bound(db, first, now=bound)
    settled = bound + STANDS_IN_AFTER
    early = settled - timedelta(seconds=1)
    await refused(db, LastApprover, lambda tx: wallets.unbind(tx, first, now=early))
    await db.run(lambda tx: wallets.unbind(tx, first, now=settled))
    assert [w.public_key for w in await db.run(lambda tx: wallets.wallets_of(tx, first.account_id))] == [OTHER]


async def test_the_database_keeps_wallets_as_they_were_proved(db: Database) -> None:
    wallet = await signed_in(db)
    other = await an_account(db)
    for sql in (
        "UPDATE wallet SET account_id = $2 WHERE id = $1",
        "UPDATE wallet SET proof = 'payment', account_id = account_id WHERE id = $1 AND $2::uuid IS NOT NULL",
        "DELETE FROM wallet WHERE id = $1 AND $2::uuid IS NOT NULL",
    ):
        with pytest.raises(Exception, match="kept as it was proved"):
            await db.run(lambda tx, sql=sql: execute(tx, sql, wallet.wallet_id, other))  # type: ignore[misc]


async def test_a3_a_payment_proves_an_address_for_pay_outs_and_never_signs_in(db: Database) -> None:
    alice = await an_account(db)
    proof = await db.run(lambda tx: wallets.ask_payment(tx, alice, KEY, least_qu=1_000, now=NOW))
    assert 1_000 < proof.amount_qu <= 1_000 + wallet_rules.PROOF_SPREAD_QU
    assert await db.run(lambda tx: wallets.ask_payment(tx, alice, KEY, least_qu=1_000, now=NOW)) == proof
    bob = await an_account(db)
    for who, key, amount in (
        (alice, KEY, proof.amount_qu + 1),
        (alice, OTHER, proof.amount_qu),
        (bob, KEY, proof.amount_qu),
    ):
        assert await db.run(lambda tx, w=who, k=key, a=amount: wallets.payment_seen(tx, w, k, a, paid_at=NOW)) is None  # type: ignore[misc]
    await refused(db, NotFound, lambda tx: wallets.payee(tx, alice, KEY))
    found = await db.run(lambda tx: wallets.payment_seen(tx, alice, KEY, proof.amount_qu, paid_at=NOW))
    assert found is not None
    assert await db.run(lambda tx: wallets.payment_seen(tx, alice, KEY, proof.amount_qu, paid_at=NOW)) is None, (
        "it proves once"
    )
    assert not found.may.sign_in
    assert (await db.run(lambda tx: wallets.payee(tx, alice, KEY))).wallet_id == found.wallet_id
    # A sign-in with that key is another account's: the payment opened nothing.
    assert await db.run(lambda tx: wallets.signing_wallet(tx, KEY)) is None
    assert (await signed_in(db)).account_id != alice
    # Nor would the database take a session of it.
    with pytest.raises(IntegrityError, match="api_token_wallet_signed"):
        await db.run(lambda tx: sessions.start(tx, found, name="x", life=timedelta(days=1)))


async def test_a_payment_in_time_proves_and_a_late_one_is_a_deposit_like_any_other(db: Database) -> None:
    alice = await an_account(db)
    end = NOW + wallet_rules.PROOF_LIFE

    async def paid(amount_qu: int, at: datetime) -> BoundWallet | None:
        return await db.run(lambda tx: wallets.payment_seen(tx, alice, KEY, amount_qu, paid_at=at))

    proof = await db.run(lambda tx: wallets.ask_payment(tx, alice, KEY, least_qu=0, now=NOW))
    assert await paid(proof.amount_qu, end) is None
    assert await paid(proof.amount_qu, end - timedelta(seconds=1)) is not None


async def test_payments_that_are_waited_for_are_bounded_and_replaced_when_they_expire(db: Database) -> None:
    alice = await an_account(db)

    def wanted(key: bytes, now: datetime = NOW) -> Callable[[Tx], Awaitable[wallets.PaymentProof]]:
        return lambda tx: wallets.ask_payment(tx, alice, key, least_qu=10, now=now)

    most, second = wallet_rules.PROOFS_OPEN_MAX, timedelta(seconds=1)
    asked = [await db.run(wanted(KEYS[n], NOW + n * second)) for n in range(most)]
    assert await db.run(lambda tx: wallets.open_payments(tx, alice, NOW + most * second)) == asked
    await refused(db, LimitExceeded, wanted(KEYS[9]))
    assert await db.run(wanted(KEYS[9], NOW + wallet_rules.PROOF_LIFE + most * second))
    assert await db.fetch_value("SELECT count(*) FROM payment_proof") == 1
    bound = await signed_in(db, KEYS[10])
    await refused(db, Conflict, lambda tx: wallets.ask_payment(tx, bound.account_id, KEYS[10], least_qu=0, now=NOW))


async def test_a_signature_is_a_stronger_proof_of_an_address_that_paid(db: Database) -> None:
    alice = await an_account(db)
    proof = await db.run(lambda tx: wallets.ask_payment(tx, alice, KEY, least_qu=0, now=NOW))
    await db.run(lambda tx: wallets.payment_seen(tx, alice, KEY, proof.amount_qu, paid_at=NOW))
    challenge = await ask(db, account_id=alice)
    bound = await db.run(lambda tx: wallets.bind(tx, challenge, alice, now=NOW))
    assert bound.proof is Proof.SIGNATURE
    assert await db.run(lambda tx: wallets.wallets_of(tx, alice)) == [bound]
    assert (await signed_in(db)).account_id == alice


async def test_wallets_of_an_account_are_bounded(db: Database) -> None:
    alice = await an_account(db)
    for key in KEYS[: wallet_rules.WALLETS_MAX]:
        challenge = await ask(db, key, account_id=alice, address=key.hex())
        await db.run(lambda tx, c=challenge: wallets.bind(tx, c, alice, now=NOW))  # type: ignore[misc]
    one_more = await ask(db, KEYS[100], account_id=alice)
    await refused(db, Conflict, lambda tx: wallets.bind(tx, one_more, alice, now=NOW))
    await refused(db, Conflict, lambda tx: wallets.ask_payment(tx, alice, KEYS[100], least_qu=0, now=NOW))


async def test_a_pay_out_and_an_unbinding_wait_for_each_other(db: Database) -> None:
    wallet = await signed_in(db)
    async with db.transaction() as paying:
        await wallets.payee(paying, wallet.account_id, KEY)
        ending = asyncio.create_task(db.run(lambda tx: wallets.lock(tx, wallet.account_id, KEY)))
        await until_waiting(db)
        assert not ending.done()
    assert await asyncio.wait_for(ending, 20) == wallet
    await refused(db, NotFound, lambda tx: wallets.lock(tx, wallet.account_id, OTHER))


async def test_of_two_wallets_that_end_at_once_the_last_way_in_stays(db: Database) -> None:
    first = await signed_in(db)
    second = await also_bound(db, first)

    async def end(tx: Tx, wallet: BoundWallet) -> None:
        await wallets.unbind(tx, await wallets.lock(tx, wallet.account_id, wallet.public_key), now=NOW)

    async with db.transaction() as ending:
        await end(ending, first)
        other = asyncio.create_task(db.run(lambda tx: end(tx, second)))
        waiting = asyncio.create_task(until_waiting(db))
        await asyncio.wait({other, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
    with pytest.raises(LastWayIn):
        await asyncio.wait_for(other, 20)
    assert await db.run(lambda tx: wallets.wallets_of(tx, first.account_id)) == [second]


async def test_a_sign_in_while_its_wallet_ends_opens_nothing_of_the_account(db: Database) -> None:
    wallet = await signed_in(db)
    await also_bound(db, wallet)
    challenge = await ask(db)

    async def sign_in(tx: Tx) -> str:
        found, _ = await wallets.sign_in(tx, challenge, name="thief", now=NOW)
        token, _ = await sessions.start(tx, found, name="thief", life=timedelta(days=1))
        return token

    async with db.transaction() as ending:
        await wallets.unbind(ending, await wallets.lock(ending, wallet.account_id, KEY), now=NOW)
        signing = asyncio.create_task(db.run(sign_in))
        await until_waiting(db)
    token = await asyncio.wait_for(signing, 20)
    who = await db.run(lambda tx: accounts.authenticate(tx, token))
    assert who.account_id != wallet.account_id


async def until_waiting(db: Database) -> None:
    """Until a statement waits for a lock."""
    async with asyncio.timeout(WAITING_S):
        while not await db.fetch_value(  # noqa: ASYNC110 - the server tells nobody
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ):
            await asyncio.sleep(0.01)


async def test_a_session_opens_its_account_until_its_end(db: Database) -> None:
    wallet = await signed_in(db)
    life = timedelta(days=30)
    token, session_id = await db.run(lambda tx: sessions.start(tx, wallet, name="laptop", life=life))
    who = await db.run(lambda tx: accounts.authenticate(tx, token))
    assert (who.account_id, who.scopes, who.token_id) == (wallet.account_id, {Scope.USER}, session_id)
    (listed,) = await db.run(lambda tx: sessions.sessions_of(tx, wallet.account_id))
    assert (listed.session_id, listed.name, listed.public_key) == (session_id, "laptop", KEY)
    assert listed.expires == listed.created + life
    assert listed.last_used is not None
    await db.run(
        lambda tx: execute(
            tx,
            "UPDATE api_token SET created_at = now() - interval '9 days', expires_at = now() WHERE id = $1",
            session_id,
        )
    )
    await refused(db, Unauthorised, lambda tx: accounts.authenticate(tx, token))


async def test_all_sessions_end_but_the_one_that_asks(db: Database) -> None:
    wallet = await signed_in(db)
    lasting = await db.run(lambda tx: accounts.create_token(tx, wallet.account_id, {Scope.USER}))
    started = [
        await db.run(lambda tx: sessions.start(tx, wallet, name="device", life=timedelta(days=1))) for _ in range(3)
    ]
    assert await db.run(lambda tx: sessions.revoke_all(tx, wallet.account_id, but=started[0][1])) == 2
    alive = []
    for token in (lasting, *(token for token, _ in started)):
        try:
            await db.run(lambda tx, t=token: accounts.authenticate(tx, t))  # type: ignore[misc]
        except Unauthorised:
            continue
        alive.append(token)
    assert alive == [lasting, started[0][0]]


async def test_sessions_and_their_rows_are_bounded(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 3)
    monkeypatch.setattr(sessions, "ENDED_KEPT_MAX", 4)
    wallet = await signed_in(db)
    for n in range(12):
        await db.run(lambda tx, n=n: sessions.start(tx, wallet, name=f"s{n}", life=timedelta(days=1)))  # type: ignore[misc]
    found = await db.run(lambda tx: sessions.sessions_of(tx, wallet.account_id))
    assert [s.name for s in found if s.revoked is None] == ["s11", "s10", "s9"]
    assert 3 <= len(found) <= 3 + 4 + 1
