# SPDX-License-Identifier: Apache-2.0
"""Challenges: texts that this coordinator issued for a wallet to sign, each once, and which serve once.

Reading what was signed (`signed`) and using it up (`use`) are two steps, so that the signature is verified between them
without holding a connection; of two that are used at once, the database lets one pass.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from qubix_coordinator.accounts.wallet_rules import (
    CHALLENGE_KEPT,
    CHALLENGE_LIFE,
    CHALLENGES_MAX,
    OPEN_FOR_ONE_MAX,
    OPEN_FROM_ONE_MAX,
    asker,
)
from qubix_coordinator.db.database import Row, Tx, execute, one, value
from qubix_coordinator.errors import (
    ChallengeAltered,
    ChallengeExpired,
    ChallengeUnknown,
    ChallengeUsed,
    LimitExceeded,
    WrongDomain,
    WrongNetwork,
    WrongPurpose,
    WrongWallet,
)
from qubix_protocol.wallet_text import NONCE_BYTES, ChallengeText, Purpose, parse

ASK_ANEW: Final = "Ask for a new challenge (POST /api/v1/wallet/challenge) and sign its text as it stands"
_LOCK_ISSUE: Final = 0x71780001


@dataclass(frozen=True, slots=True)
class Challenge:
    """What was issued: `text` is the exact text to sign."""

    nonce: bytes
    purpose: Purpose
    public_key: bytes
    account_id: UUID | None
    text: str
    issued: datetime
    expires: datetime
    order_key: bytes | None = None
    """The key that it adds or revokes."""


async def issue(
    tx: Tx,
    *,
    identity: str,
    public_key: bytes,
    domain: str,
    network: str,
    address: str,
    now: datetime,
    account_id: UUID | None = None,
    purpose: Purpose | None = None,
    order_key: bytes | None = None,
) -> Challenge:
    """`account_id` is the account that it is about, to bind to unless `purpose` says otherwise; None: to sign in.
    `order_key` is the key to add or revoke, for those purposes. `address` is who asks.

    Of one identity, an address has a few challenges open: the oldest gives way. Raises LimitExceeded when the address
    has too many for different identities, or when there are too many altogether.
    """
    issued = now.replace(microsecond=0)
    nonce = secrets.token_bytes(NONCE_BYTES)
    purpose = purpose or (Purpose.SIGN_IN if account_id is None else Purpose.BIND)
    said = ChallengeText(
        domain=domain,
        network=network,
        identity=identity,
        purpose=purpose,
        nonce=nonce.hex(),
        issued=issued,
        expires=issued + CHALLENGE_LIFE,
        account="" if account_id is None else str(account_id),
        order_key="" if order_key is None else order_key.hex(),
    )
    await _make_room(tx, public_key, asker(address), now)
    await execute(
        tx,
        "INSERT INTO wallet_challenge (nonce, purpose, public_key, account_id, asked_from, text, issued_at, expires_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        nonce,
        purpose.value,
        public_key,
        account_id,
        asker(address),
        said.text(),
        said.issued,
        said.expires,
    )
    return Challenge(nonce, purpose, public_key, account_id, said.text(), said.issued, said.expires, order_key)


async def _make_room(tx: Tx, public_key: bytes, asked_from: bytes, now: datetime) -> None:
    # One at a time for each address: otherwise those who ask at once would all find room.
    await execute(tx, "SELECT pg_advisory_xact_lock($1, $2)", _LOCK_ISSUE, int.from_bytes(asked_from[:4], signed=True))
    await execute(
        tx,
        "DELETE FROM wallet_challenge WHERE nonce IN (SELECT nonce FROM wallet_challenge"
        " WHERE asked_from = $1 AND public_key = $2 AND used_at IS NULL"
        " ORDER BY issued_at DESC, nonce OFFSET $3)",
        asked_from,
        public_key,
        OPEN_FOR_ONE_MAX - 1,
    )
    open_from_one = await value(
        tx,
        "SELECT count(*) FROM wallet_challenge WHERE asked_from = $1 AND used_at IS NULL AND expires_at > $2",
        asked_from,
        now,
    )
    if open_from_one >= OPEN_FROM_ONE_MAX:
        raise LimitExceeded(
            f"this address has {OPEN_FROM_ONE_MAX} challenges open",
            field="identity",
            remedy=f"Sign one of them, or wait: each expires after {_minutes(CHALLENGE_LIFE)} minutes",
            retry_after_s=60,
        )
    if await _crowded(tx) and not await sweep(tx, now, kept=timedelta(0)):
        raise LimitExceeded(
            "too many wallets are signing in at once",
            remedy="Try again in a minute; what is signed in already is not affected",
            retry_after_s=60,
        )


async def _crowded(tx: Tx) -> bool:
    return bool(await value(tx, "SELECT EXISTS (SELECT FROM wallet_challenge OFFSET $1)", CHALLENGES_MAX - 1))


async def sweep(tx: Tx, now: datetime, kept: timedelta = CHALLENGE_KEPT) -> int:
    """Forgets challenges that expired `kept` ago; gives how many."""
    return await execute(tx, "DELETE FROM wallet_challenge WHERE expires_at <= $1", now - kept)


async def signed(
    tx: Tx, text: str, *, identity: str, domain: str, network: str, purpose: Purpose, now: datetime
) -> Challenge:
    """The challenge of a text that came back signed; its signature is still to be verified.

    Raises a NotProven that says what is wrong: a text that was never issued here, was changed, is used or expired; or
    another domain, wallet or purpose; WrongNetwork for one of another network.
    """
    said = _read(text)
    _compare(said, identity, domain, network, purpose)
    found = await one(tx, "SELECT * FROM wallet_challenge WHERE nonce = $1", bytes.fromhex(said.nonce))
    if found is None:
        raise ChallengeUnknown("this challenge was not issued here, or long ago", field="text", remedy=ASK_ANEW)
    if found["text"] != text:
        raise ChallengeAltered("this is not the text that was issued", field="text", remedy=ASK_ANEW)
    challenge = _challenge(found, said)
    if found["used_at"] is not None:
        raise _used()
    if challenge.expires <= now:
        raise ChallengeExpired(
            f"the challenge expired at {challenge.expires:%H:%M:%S} UTC, {_minutes(CHALLENGE_LIFE)} minutes after it"
            " was issued",
            field="text",
            remedy=ASK_ANEW,
        )
    return challenge


async def use(tx: Tx, challenge: Challenge, now: datetime) -> None:
    """Uses it up, in the transaction that does what was signed. Raises ChallengeUsed for the second, also at once."""
    taken = await value(
        tx,
        "UPDATE wallet_challenge SET used_at = greatest($2, issued_at)"
        " WHERE nonce = $1 AND used_at IS NULL AND expires_at > $2 RETURNING true",
        challenge.nonce,
        now,
    )
    if taken is None:
        raise _used()


def _read(text: str) -> ChallengeText:
    try:
        return parse(text)
    except ValueError as problem:
        raise ChallengeAltered(str(problem), field="text", remedy=ASK_ANEW) from None


def _compare(said: ChallengeText, identity: str, domain: str, network: str, purpose: Purpose) -> None:
    if said.network != network:
        raise WrongNetwork(
            f"the challenge is for the network {said.network}, and this is {network}", field="text", remedy=ASK_ANEW
        )
    if said.domain != domain:
        raise WrongDomain(
            f"the challenge was issued for {said.domain}, and this is {domain}",
            field="text",
            remedy="Sign in at the address that the text names, or ask for a challenge at this one",
        )
    if said.identity != identity:
        raise WrongWallet(
            "the challenge was issued for another identity",
            field="identity",
            remedy="Choose the account in your wallet that you asked for, or ask for a challenge for this one",
        )
    if said.purpose is not purpose:
        raise WrongPurpose(
            f"the challenge is for {said.purpose.value}, and this is {purpose.value}", field="text", remedy=ASK_ANEW
        )


def _challenge(row: Row, said: ChallengeText) -> Challenge:
    return Challenge(
        bytes(row["nonce"]),
        Purpose(row["purpose"]),
        bytes(row["public_key"]),
        row["account_id"],
        row["text"],
        row["issued_at"],
        row["expires_at"],
        bytes.fromhex(said.order_key) or None,
    )


def _used() -> ChallengeUsed:
    return ChallengeUsed("this challenge was used already", field="text", remedy=ASK_ANEW)


def _minutes(life: timedelta) -> int:
    return round(life.total_seconds() / 60)
