# SPDX-License-Identifier: Apache-2.0
"""Sessions: tokens that a signature gave, of a wallet or of an account's own key. They end by themselves, with their
wallet, or when they are revoked.

Every token of an account is listed, also those that were made otherwise and have no end.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from qubix_coordinator.accounts.rules import TOKEN_BYTES, Scope, digest_of_token, token_of
from qubix_coordinator.accounts.service import TOKENS_MAX, clean_name, lock_account
from qubix_coordinator.accounts.wallet_rules import ENDED_KEPT_MAX, SESSIONS_MAX, BoundWallet
from qubix_coordinator.db.database import Tx, execute, rows, value
from qubix_coordinator.errors import NotFound
from qubix_protocol import digests
from qubix_protocol.errors import Replayed


@dataclass(frozen=True, slots=True)
class Session:
    session_id: UUID
    name: str
    scopes: tuple[str, ...]
    created: datetime
    last_used: datetime | None
    expires: datetime | None
    revoked: datetime | None
    public_key: bytes | None
    """Of the wallet that signed in."""
    by_hand: bool = False
    """A token that somebody made, no session."""


async def start(tx: Tx, wallet: BoundWallet, *, name: str, life: timedelta) -> tuple[str, UUID]:
    """The plain token, which nobody can ask for again, and its id.

    Beyond SESSIONS_MAX, the session that was used longest ago ends. The database refuses a wallet that never signed.
    """
    return await _start(tx, wallet.account_id, uuid4(), name, life, wallet.wallet_id)


async def start_by_key(
    tx: Tx, account_id: UUID, statement: bytes, *, name: str, life: timedelta, order_key: bytes | None = None
) -> tuple[str, UUID]:
    """For who signed `statement` with the account's own key. The session's id comes from it, so that it serves once,
    at whichever replica. It ends with `order_key`, if it was such a key. Raises Replayed."""
    session_id = UUID(bytes=digests.of_bytes(statement)[:16])
    await lock_account(tx, account_id)
    if await value(tx, "SELECT true FROM api_token WHERE id = $1", session_id):
        raise Replayed("this statement has opened a session already")
    return await _start(tx, account_id, session_id, name, life, None, order_key)


async def _start(
    tx: Tx,
    account_id: UUID,
    session_id: UUID,
    name: str,
    life: timedelta,
    wallet_id: UUID | None,
    order_key: bytes | None = None,
) -> tuple[str, UUID]:
    await lock_account(tx, account_id)
    await execute(
        tx,
        "UPDATE api_token SET revoked_at = now() WHERE id IN (SELECT id FROM api_token"
        " WHERE account_id = $1 AND revoked_at IS NULL AND expires_at > now() AND NOT made_by_hand"
        " ORDER BY coalesce(last_used_at, created_at) DESC, id OFFSET $2)",
        account_id,
        SESSIONS_MAX - 1,
    )
    await _forget_ended(tx, account_id)
    token = token_of(secrets.token_bytes(TOKEN_BYTES))
    await execute(
        tx,
        "INSERT INTO api_token (id, digest, account_id, name, scopes, expires_at, wallet_id, order_key)"
        " VALUES ($1, $2, $3, $4, $5::text[], now() + $6::interval, $7, $8)",
        session_id,
        digest_of_token(token),
        account_id,
        clean_name(name),
        [Scope.USER.value],
        life,
        wallet_id,
        order_key,
    )
    return token, session_id


async def _forget_ended(tx: Tx, account_id: UUID) -> None:
    """Only sessions: a token that was made otherwise stays revoked for good (its file may still be there). What a key
    opened lately stays: its statement could still be sent again."""
    await execute(
        tx,
        "DELETE FROM api_token WHERE id IN (SELECT id FROM api_token"
        " WHERE account_id = $1 AND expires_at IS NOT NULL AND NOT made_by_hand"
        " AND (wallet_id IS NOT NULL OR created_at < now() - interval '10 minutes')"
        " AND (revoked_at IS NOT NULL OR expires_at <= now())"
        " ORDER BY coalesce(revoked_at, expires_at) DESC, id OFFSET $2)",
        account_id,
        ENDED_KEPT_MAX,
    )


async def sessions_of(tx: Tx, account_id: UUID) -> list[Session]:
    """Newest first, ended ones too."""
    found = await rows(
        tx,
        "SELECT t.*, w.public_key FROM api_token t LEFT JOIN wallet w ON w.id = t.wallet_id WHERE t.account_id = $1"
        " ORDER BY t.created_at DESC, t.id LIMIT $2",
        account_id,
        SESSIONS_MAX + ENDED_KEPT_MAX + 2 * TOKENS_MAX,
    )
    return [
        Session(
            row["id"],
            row["name"],
            tuple(row["scopes"]),
            row["created_at"],
            row["last_used_at"],
            row["expires_at"],
            row["revoked_at"],
            None if row["public_key"] is None else bytes(row["public_key"]),
            row["made_by_hand"],
        )
        for row in found
    ]


async def revoke(tx: Tx, account_id: UUID, session_id: UUID) -> None:
    """Idempotent. Raises NotFound for one that is not the account's."""
    done = await execute(
        tx,
        "UPDATE api_token SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 AND account_id = $2",
        session_id,
        account_id,
    )
    if not done:
        raise NotFound("there is no such session", field="session", remedy="GET /api/v1/sessions lists them")


async def end_of_wallet(tx: Tx, account_id: UUID, token: str) -> None:
    """Ends the session that this token is, when a signature made it."""
    await execute(
        tx,
        "UPDATE api_token SET revoked_at = coalesce(revoked_at, now()) WHERE digest = $1 AND account_id = $2"
        " AND expires_at IS NOT NULL AND NOT made_by_hand",
        digest_of_token(token),
        account_id,
    )


async def revoke_all(tx: Tx, account_id: UUID, *, but: UUID | None = None) -> int:
    """Ends every session, but the one named; gives how many. Tokens that no signature made stay."""
    return await execute(
        tx,
        "UPDATE api_token SET revoked_at = now() WHERE account_id = $1"
        " AND revoked_at IS NULL AND expires_at > now() AND NOT made_by_hand AND id IS DISTINCT FROM $2",
        account_id,
        but,
    )
