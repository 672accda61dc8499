# SPDX-License-Identifier: Apache-2.0
"""Wallets of accounts: bound by a signed challenge, or proved for pay-outs by an exact payment (trust.md A1, A3).

The caller has verified the signature of the challenge that it hands in (`signatures.check`).
"""

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

from qubix_coordinator.accounts import challenges, order_key_rules, order_keys, wallet_rules
from qubix_coordinator.accounts.challenges import Challenge
from qubix_coordinator.accounts.service import create_account, lock_account
from qubix_coordinator.accounts.tables import PaymentProofRow, WalletRow
from qubix_coordinator.accounts.wallet_rules import (
    PROOF_LIFE,
    PROOF_SPREAD_QU,
    PROOFS_OPEN_MAX,
    WALLETS_MAX,
    Binding,
    BoundWallet,
    Proof,
)
from qubix_coordinator.db.database import Tx, execute, one, value
from qubix_coordinator.errors import (
    Conflict,
    LastApprover,
    LastWayIn,
    LimitExceeded,
    NotFound,
    WalletTaken,
    WrongPurpose,
)
from qubix_protocol.wallet_text import Purpose

_COLUMNS: Final = "id, account_id, public_key, proof, since, approves_keys"


@dataclass(frozen=True, slots=True)
class PaymentProof:
    """`amount_qu`, exactly, from the address, before `expires`, proves it."""

    proof_id: UUID
    account_id: UUID
    public_key: bytes
    amount_qu: int
    issued: datetime
    expires: datetime


async def sign_in(tx: Tx, challenge: Challenge, *, name: str, now: datetime) -> tuple[BoundWallet, bool]:
    """The wallet whose account is signed in to, and whether this made the account (A1). Uses the challenge up.

    `name` is for a new account. Raises ChallengeUsed.
    """
    _for(challenge, Purpose.SIGN_IN)
    await _lock_key(tx, challenge.public_key)
    await challenges.use(tx, challenge, now)
    known = await signing_wallet(tx, challenge.public_key)
    if known is not None:
        return known, False
    # Never an id derived from the key: whoever unbound a stolen wallet must not meet the thief in their account.
    account_id = await create_account(tx, name)
    return await _insert(tx, account_id, challenge.public_key, Proof.SIGNATURE, now, approves=True), True


async def bind(tx: Tx, challenge: Challenge, account_id: UUID, *, now: datetime) -> BoundWallet:
    """Binds the wallet to the account that asked for the challenge; again is the same. Uses the challenge up.

    Raises ChallengeUsed, WrongPurpose, WalletTaken when it speaks for another account, Conflict when there are too
    many.
    """
    _for(challenge, Purpose.BIND)
    if challenge.account_id != account_id:
        raise WrongPurpose(
            "the challenge binds to another account",
            field="text",
            remedy="Ask for a challenge while signed in to this account, and sign that",
        )
    await _lock_key(tx, challenge.public_key)
    await challenges.use(tx, challenge, now)
    signs = await signing_wallet(tx, challenge.public_key)
    held = await wallet(tx, account_id, challenge.public_key)
    found = wallet_rules.at_bind(None if signs is None else signs.account_id, account_id, held is not None)
    if found is Binding.REFUSE:
        raise WalletTaken(
            "this wallet signs in to another account",
            field="identity",
            remedy="Sign in with the wallet and unbind it there first, or bind another one",
        )
    if found is Binding.SAME and signs is not None:
        return signs
    await lock_account(tx, account_id)
    approves = order_key_rules.approves_at_bind(await order_keys.held(tx, account_id))
    if found is Binding.UPGRADE and held is not None:
        await execute(
            tx,
            "UPDATE wallet SET proof = 'signature', since = $2, approves_keys = $3 WHERE id = $1",
            held.wallet_id,
            now,
            approves,
        )
        return BoundWallet(held.wallet_id, account_id, held.public_key, Proof.SIGNATURE, now, approves)
    await _refuse_too_many(tx, account_id)
    return await _insert(tx, account_id, challenge.public_key, Proof.SIGNATURE, now, approves=approves)


def _for(challenge: Challenge, purpose: Purpose) -> None:
    if challenge.purpose is not purpose:
        raise WrongPurpose(
            f"the challenge is for {challenge.purpose.value}, and this is {purpose.value}",
            field="text",
            remedy=challenges.ASK_ANEW,
        )


async def wallets_of(tx: Tx, account_id: UUID) -> list[BoundWallet]:
    """Those that are bound now, oldest first, each with what it may do (`.may.sign_in`, `.may.be_paid`)."""
    found = await WalletRow.filter(account_id=account_id, ended_at=None).using_db(tx).order_by("since", "id")
    return [_bound(row) for row in found]


async def wallet(tx: Tx, account_id: UUID, public_key: bytes) -> BoundWallet | None:
    """The account's own, while it is bound."""
    query = WalletRow.get_or_none(account_id=account_id, public_key=public_key, ended_at=None, using_db=tx)
    found = await query
    return None if found is None else _bound(found)


async def signing_wallet(tx: Tx, public_key: bytes) -> BoundWallet | None:
    """Whoever it signs in."""
    found = await WalletRow.get_or_none(public_key=public_key, proof=Proof.SIGNATURE.value, ended_at=None, using_db=tx)
    return None if found is None else _bound(found)


async def payee(tx: Tx, account_id: UUID, public_key: bytes) -> BoundWallet:
    """A wallet that pay-outs of the account may go to, which stays bound until this transaction ends.

    Raises NotFound for any other address.
    """
    row = await one(
        tx,
        "SELECT id FROM wallet WHERE account_id = $1 AND public_key = $2 AND ended_at IS NULL FOR SHARE",
        account_id,
        public_key,
    )
    found = None if row is None else await wallet(tx, account_id, public_key)
    if found is None or not found.may.be_paid:
        raise NotFound(
            "this identity is none of your account's wallets",
            field="identity",
            remedy="Bind it first: by a signature (POST /api/v1/wallet/bind), or by a payment from it"
            " (POST /api/v1/wallet/payment-proof)",
        )
    return found


async def lock(tx: Tx, account_id: UUID, public_key: bytes) -> BoundWallet:
    """For whoever may end it: until this transaction ends, no `payee` finds it, it signs nobody in, and no other wallet
    of the account ends. Raises NotFound."""
    await _lock_key(tx, public_key)
    await lock_account(tx, account_id)
    await execute(
        tx,
        "SELECT id FROM wallet WHERE account_id = $1 AND public_key = $2 AND ended_at IS NULL FOR UPDATE",
        account_id,
        public_key,
    )
    found = await wallet(tx, account_id, public_key)
    if found is None:
        raise NotFound(
            "this identity is none of your account's wallets",
            field="identity",
            remedy="GET /api/v1/wallets lists them",
        )
    return found


async def unbind(tx: Tx, found: BoundWallet, *, now: datetime) -> None:
    """Ends the wallet and its sessions. The caller holds its `lock` and knows of no open pay-out to it.

    Raises LastWayIn, and LastApprover for a wallet that changes the keys of an account's orders while no other does, or
    only one that was bound after it within the last day.
    """
    if found.may.sign_in and not await _other_way_in(tx, found):
        raise LastWayIn(
            "without this wallet nobody could sign in to the account",
            field="identity",
            remedy="Bind another wallet by a signature first",
        )
    await _refuse_last_approver(tx, found, now)
    await execute(tx, "UPDATE wallet SET ended_at = greatest($2, since) WHERE id = $1", found.wallet_id, now)
    await execute(
        tx, "UPDATE api_token SET revoked_at = now() WHERE wallet_id = $1 AND revoked_at IS NULL", found.wallet_id
    )


async def _refuse_last_approver(tx: Tx, found: BoundWallet, now: datetime) -> None:
    others = [one for one in await wallets_of(tx, found.account_id) if one.wallet_id != found.wallet_id]
    if order_key_rules.may_unbind(found, others, now):
        return
    if any(one.approves_keys for one in others):
        raise LastApprover(
            "the other wallets that add and revoke keys of this account's orders were bound after it, within a day",
            field="identity",
            remedy="Try again when one of them has been bound for a day",
        )
    raise LastApprover(
        "this is the last wallet that adds and revokes the keys of this account's orders",
        field="identity",
        remedy="Bind another wallet and wait for a day; once the account has keys, one of them must approve it:"
        " POST /api/v1/wallets/{identity}/approve, or `qubix wallet keys trust`",
    )


async def approve(tx: Tx, account_id: UUID, public_key: bytes) -> None:
    """From now on the wallet adds and revokes keys of the account's orders: one of them signed for it. Idempotent.

    Raises NotFound, Conflict for a wallet that never signed (trust.md A3).
    """
    found = await lock(tx, account_id, public_key)
    if found.proof is not Proof.SIGNATURE:
        raise Conflict(
            "this wallet is proved by a payment, which says nothing about who holds it",
            field="identity",
            remedy="Bind it by a signature first (POST /api/v1/wallet/bind)",
        )
    await execute(tx, "UPDATE wallet SET approves_keys = true WHERE id = $1", found.wallet_id)


async def _other_way_in(tx: Tx, found: BoundWallet) -> bool:
    """Another wallet that signs in, or a token that does not end by itself."""
    return bool(
        await value(
            tx,
            "SELECT EXISTS (SELECT FROM wallet WHERE account_id = $1 AND id <> $2 AND proof = 'signature'"
            " AND ended_at IS NULL) OR EXISTS (SELECT FROM api_token WHERE account_id = $1 AND expires_at IS NULL"
            " AND revoked_at IS NULL AND 'user' = ANY (scopes))",
            found.account_id,
            found.wallet_id,
        )
    )


async def ask_payment(tx: Tx, account_id: UUID, public_key: bytes, *, least_qu: int, now: datetime) -> PaymentProof:
    """The payment that would prove the address: an exact amount above `least_qu`; the same while it is waited for.

    Raises Conflict when the wallet is bound already, LimitExceeded for too many at a time.
    """
    await lock_account(tx, account_id)
    if await wallet(tx, account_id, public_key) is not None:
        raise Conflict(
            "this wallet is bound to your account already",
            field="identity",
            remedy="Nothing is needed: GET /api/v1/wallets tells what it may do",
        )
    await _refuse_too_many(tx, account_id)
    await execute(
        tx,
        "DELETE FROM payment_proof WHERE account_id = $1 AND proved_at IS NULL AND expires_at <= $2",
        account_id,
        now,
    )
    waiting = await open_payments(tx, account_id, now)
    for found in waiting:
        if found.public_key == public_key and found.amount_qu > least_qu:
            return found
    if len(waiting) >= PROOFS_OPEN_MAX:
        raise LimitExceeded(
            f"{PROOFS_OPEN_MAX} payments are waited for already",
            field="identity",
            remedy="Make one of them, or wait until it expires",
        )
    made = PaymentProof(
        uuid4(),
        account_id,
        public_key,
        wallet_rules.proof_amount(least_qu, secrets.randbelow(PROOF_SPREAD_QU)),
        now,
        now + PROOF_LIFE,
    )
    await execute(
        tx,
        "INSERT INTO payment_proof (id, account_id, public_key, amount_qu, issued_at, expires_at)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        made.proof_id,
        account_id,
        public_key,
        made.amount_qu,
        made.issued,
        made.expires,
    )
    return made


async def open_payments(tx: Tx, account_id: UUID, now: datetime) -> list[PaymentProof]:
    """Payments that are waited for, oldest first."""
    query = PaymentProofRow.filter(account_id=account_id, proved_at=None, expires_at__gt=now).using_db(tx)
    return [
        PaymentProof(r.id, r.account_id, bytes(r.public_key), r.amount_qu, r.issued_at, r.expires_at)
        for r in await query.order_by("issued_at", "id")
    ]


async def payment_seen(
    tx: Tx, account_id: UUID, source_public_key: bytes, amount_qu: int, *, paid_at: datetime
) -> BoundWallet | None:
    """For each deposit, in the transaction that credits it: the wallet that it proves, or None.

    `paid_at` is when it was paid. What proves nothing is a deposit like any other.
    """
    proved = await one(
        tx,
        "UPDATE payment_proof SET proved_at = $4 WHERE id = (SELECT id FROM payment_proof"
        " WHERE account_id = $1 AND public_key = $2 AND amount_qu = $3 AND proved_at IS NULL"
        " AND expires_at > $4 ORDER BY issued_at LIMIT 1 FOR UPDATE) RETURNING proved_at",
        account_id,
        source_public_key,
        amount_qu,
        paid_at,
    )
    if proved is None:
        return None
    await _lock_key(tx, source_public_key)
    held = await wallet(tx, account_id, source_public_key)
    return held or await _insert(tx, account_id, source_public_key, Proof.PAYMENT, proved["proved_at"])


async def _insert(
    tx: Tx, account_id: UUID, public_key: bytes, proof: Proof, now: datetime, *, approves: bool = False
) -> BoundWallet:
    made = BoundWallet(uuid4(), account_id, public_key, proof, now, approves)
    await execute(
        tx,
        f"INSERT INTO wallet ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6)",  # noqa: S608 - names of ours
        made.wallet_id,
        account_id,
        public_key,
        proof.value,
        now,
        approves,
    )
    return made


async def _lock_key(tx: Tx, public_key: bytes) -> None:
    """One decision about a key at a time, also about one that no row knows yet."""
    await execute(tx, "SELECT pg_advisory_xact_lock($1)", int.from_bytes(public_key[:8], signed=True))


async def _refuse_too_many(tx: Tx, account_id: UUID) -> None:
    await lock_account(tx, account_id)
    if len(await wallets_of(tx, account_id)) >= WALLETS_MAX:
        raise Conflict(
            f"the account has {WALLETS_MAX} wallets", field="identity", remedy="Unbind one that you no longer use"
        )


def _bound(row: WalletRow) -> BoundWallet:
    return BoundWallet(row.id, row.account_id, bytes(row.public_key), Proof(row.proof), row.since, row.approves_keys)
