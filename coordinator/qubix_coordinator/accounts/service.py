# SPDX-License-Identifier: Apache-2.0
"""Accounts and the proofs that speak for them. Tokens are given once and kept as digests."""

import secrets
from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID, uuid4

from qubix_coordinator.accounts.rules import (
    KEY_BYTES,
    TOKEN_BYTES,
    Purpose,
    Scope,
    account_id_of_key,
    digest_of_token,
    looks_like_token,
    token_of,
)
from qubix_coordinator.accounts.rules import (
    Principal as Principal,
)
from qubix_coordinator.accounts.tables import AccountRow, NodeRow
from qubix_coordinator.db.database import Row, Tx, execute, one, value
from qubix_coordinator.errors import Conflict, InvalidInput, NotFound, Unauthorised
from qubix_protocol.errors import Malformed
from qubix_protocol.keys import public_key_of

TOKENS_MAX = 100
NAME_MAX = 100
# "Last used" is for people; a write on every request would make each token a hot row.
USED_RESOLUTION = timedelta(minutes=1)


async def create_account(tx: Tx, name: str, kind: str = "user", account_id: UUID | None = None) -> UUID:
    """Idempotent when `account_id` is given."""
    chosen = account_id or uuid4()
    await execute(
        tx,
        "INSERT INTO account (id, kind, name) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING",
        chosen,
        kind,
        clean_name(name),
    )
    return chosen


async def lock_account(tx: Tx, account_id: UUID) -> None:
    """Makes decisions about one account take turns, until the transaction ends."""
    await execute(tx, "SELECT id FROM account WHERE id = $1 FOR NO KEY UPDATE", account_id)


def clean_name(name: str) -> str:
    clean = name.strip()
    if not 1 <= len(clean) <= NAME_MAX:
        raise InvalidInput("name", "the name is empty or too long", f"Use 1 to {NAME_MAX} characters")
    return clean


async def account(tx: Tx, account_id: UUID) -> AccountRow:
    found = await AccountRow.get_or_none(id=account_id, using_db=tx)
    if found is None:
        raise NotFound("there is no such account", field="account", remedy="Check the id")
    return found


async def create_token(tx: Tx, account_id: UUID, scopes: Iterable[Scope], name: str = "token") -> str:
    """The plain token, which nobody can ask for again. It does not end by itself.

    Raises NotFound, Conflict (too many tokens).
    """
    token, _ = await make_token(tx, account_id, scopes, name, None)
    return token


async def make_token(
    tx: Tx, account_id: UUID, scopes: Iterable[Scope], name: str, life: timedelta | None
) -> tuple[str, UUID]:
    """The plain token and its id; with a life it ends by itself. Sessions, which a signature gave, are apart.

    Raises NotFound, Conflict (too many tokens).
    """
    await account(tx, account_id)
    held = await value(
        tx,
        "SELECT count(*) FROM api_token WHERE account_id = $1 AND revoked_at IS NULL"
        " AND (expires_at IS NULL OR (made_by_hand AND expires_at > now()))",
        account_id,
    )
    if held >= TOKENS_MAX:
        raise Conflict(f"the account has {TOKENS_MAX} tokens", field="token", remedy="Revoke one of them first")
    token, token_id = token_of(secrets.token_bytes(TOKEN_BYTES)), uuid4()
    await execute(
        tx,
        "INSERT INTO api_token (id, digest, account_id, name, scopes, expires_at, made_by_hand)"
        " VALUES ($1, $2, $3, $4, $5::text[], now() + $6::interval, true)",
        token_id,
        digest_of_token(token),
        account_id,
        clean_name(name),
        sorted({scope.value for scope in scopes}),
        life,
    )
    return token, token_id


async def authenticate(tx: Tx, token: str) -> Principal:
    """Raises Unauthorised; the message does not say whether a token is unknown, revoked or at its end."""
    found = await _live_token(tx, token) if looks_like_token(token) else None
    if found is None:
        raise Unauthorised(
            "the token is not valid",
            field="Authorization",
            remedy="Send `Authorization: Bearer qx_…` with a live token; a wallet signs in anew for one",
        )
    await execute(
        tx,
        "UPDATE api_token SET last_used_at = now()"
        " WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - $2::interval)",
        found["id"],
        USED_RESOLUTION,
    )
    return Principal(found["account_id"], frozenset(Scope(scope) for scope in found["scopes"]), found["id"])


async def _live_token(tx: Tx, token: str) -> Row | None:
    return await one(
        tx,
        "SELECT id, account_id, scopes FROM api_token WHERE digest = $1 AND revoked_at IS NULL"
        " AND (expires_at IS NULL OR expires_at > now())",
        digest_of_token(token),
    )


async def is_live(tx: Tx, token_id: UUID) -> bool:
    """Whether a token that was shown before is neither revoked nor at its end by now."""
    return bool(
        await value(
            tx,
            "SELECT true FROM api_token WHERE id = $1 AND revoked_at IS NULL"
            " AND (expires_at IS NULL OR expires_at > now())",
            token_id,
        )
    )


async def account_of_key(tx: Tx, public_key: bytes) -> UUID | None:
    return await value(tx, "SELECT account_id FROM account_key WHERE public_key = $1", public_key)  # type: ignore[no-any-return]


async def ensure_account_of_key(tx: Tx, public_key: bytes, purpose: Purpose, name: str, kind: str = "user") -> UUID:
    """The account that the key speaks for; the first signed request of a key creates it (trust.md A1)."""
    check_key(public_key)
    known = await account_of_key(tx, public_key)
    if known is not None:
        return known
    made = await create_account(tx, name, kind, account_id_of_key(public_key))
    await execute(
        tx,
        "INSERT INTO account_key (public_key, account_id, purpose) VALUES ($1, $2, $3)"
        " ON CONFLICT (public_key) DO NOTHING",
        public_key,
        made,
        purpose.value,
    )
    bound = await account_of_key(tx, public_key)
    assert bound is not None
    return bound


def check_key(public_key: bytes) -> None:
    """Raises InvalidInput."""
    if len(public_key) != KEY_BYTES:
        raise InvalidInput(
            "public_key", f"the key has {len(public_key)} bytes", "Send an Ed25519 public key of 32 bytes"
        )


async def ensure_node(tx: Tx, peer_id: str) -> NodeRow:
    """The node of a peer id; registering twice is one node of one account. The caller has checked the signature.

    The peer id is its public key in another spelling. Raises InvalidInput for one that is not.
    """
    public_key = _key_of_peer(peer_id)
    account_id = await ensure_account_of_key(tx, public_key, Purpose.NODE, f"node {peer_id[-8:]}", "provider")
    await execute(
        tx,
        "INSERT INTO node (peer_id, public_key, account_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        peer_id,
        public_key,
        account_id,
    )
    return await node(tx, peer_id)


def _key_of_peer(peer_id: str) -> bytes:
    try:
        return public_key_of(peer_id)
    except Malformed as problem:
        raise InvalidInput("peer_id", f"the peer id is not one: {problem}", "Derive it from the public key") from None


async def node(tx: Tx, peer_id: str) -> NodeRow:
    found = await NodeRow.get_or_none(peer_id=peer_id, using_db=tx)
    if found is None:
        raise NotFound("there is no such node", field="peer_id", remedy="Let the node enrol first")
    return found


async def account_of_node(tx: Tx, peer_id: str) -> UUID:
    return (await node(tx, peer_id)).account_id


async def incarnation(tx: Tx, peer_id: str) -> int:
    """The one whose sequence numbers count now; 0 before the first handshake."""
    return int((await node(tx, peer_id)).incarnation)


async def next_incarnation(tx: Tx, peer_id: str) -> int:
    """Counts a handshake: sequence numbers of earlier incarnations are refused from now on (trust.md P1)."""
    counted = await value(
        tx,
        "UPDATE node SET incarnation = incarnation + 1, last_seen_at = now() WHERE peer_id = $1 RETURNING incarnation",
        peer_id,
    )
    if counted is None:
        raise NotFound("there is no such node", field="peer_id", remedy="Let the node enrol first")
    return int(counted)
