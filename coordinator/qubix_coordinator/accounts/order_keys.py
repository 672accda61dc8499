# SPDX-License-Identifier: Apache-2.0
"""The keys that sign an account's orders: which there are, and what an order, a new key or a revocation meets.

The caller has verified every signature; `order_key_rules` decides. Keys are added and revoked one at a time for each
account, and an order keeps its key from being revoked until its transaction ends.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NoReturn
from uuid import UUID

from qubix_coordinator.accounts import order_key_rules as rules
from qubix_coordinator.accounts.order_key_rules import ORDER_KEYS_MAX, REVOKED_SHOWN_MAX, Approval, Held, Known, Ruling
from qubix_coordinator.accounts.rules import Purpose
from qubix_coordinator.accounts.service import USED_RESOLUTION, check_key, clean_name, lock_account
from qubix_coordinator.db.database import Row, Tx, execute, one, rows
from qubix_coordinator.errors import (
    ApprovalNeeded,
    Conflict,
    NotFound,
    OrderKeyRevoked,
    OrderKeyUnknown,
    OrderUnsigned,
    Refused,
)
from qubix_protocol.states import OrderKeyKind, OrderKeyWay

FIRST: Final = (
    "(SELECT o.public_key FROM order_key o WHERE o.account_id = a.id AND o.revoked_at IS NULL"
    " ORDER BY o.created_at, o.public_key LIMIT 1)"
)
"""For a statement about `account a`: its oldest live key."""
SIGNED: Final = "EXISTS (SELECT FROM order_key o WHERE o.account_id = a.id)"
"""For a statement about `account a`: whether its orders must be signed."""


@dataclass(frozen=True, slots=True)
class Source:
    """By whose word something came about: a key's, a wallet's (its public key), or neither."""

    way: OrderKeyWay
    key: bytes | None = None
    wallet: bytes | None = None


@dataclass(frozen=True, slots=True)
class OrderKey:
    public_key: bytes
    name: str
    kind: OrderKeyKind
    created: datetime
    added: Source
    last_used: datetime | None
    revoked: datetime | None
    revoker: Source | None


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed for a change of keys: a key, or a wallet of the account by its row's id; neither: a session alone."""

    key: bytes | None = None
    wallet_id: UUID | None = None

    @property
    def way(self) -> OrderKeyWay:
        if self.key is not None:
            return OrderKeyWay.KEY
        return OrderKeyWay.SESSION if self.wallet_id is None else OrderKeyWay.WALLET


NOBODY: Final = Signer()


async def held(tx: Tx, account_id: UUID) -> Held:
    found = await one(
        tx,
        "SELECT count(*) FILTER (WHERE revoked_at IS NULL) AS live, count(*) > 0 AS signed FROM order_key"
        " WHERE account_id = $1",
        account_id,
    )
    assert found is not None
    return Held(found["live"], found["signed"])


async def known(tx: Tx, public_key: bytes) -> Known | None:
    """Whoever the key speaks for."""
    found = await one(
        tx,
        "SELECT k.account_id, k.purpose, o.revoked_at FROM account_key k LEFT JOIN order_key o"
        " ON o.public_key = k.public_key WHERE k.public_key = $1",
        public_key,
    )
    if found is None:
        return None
    return Known(found["account_id"], found["purpose"] == Purpose.ORDER, found["revoked_at"] is None)


async def refuse_unsigned(tx: Tx, account_id: UUID) -> None:
    """Raises OrderUnsigned when the account's orders must be signed."""
    _judge(rules.at_unsigned_order(await held(tx, account_id)))


async def use(tx: Tx, account_id: UUID, public_key: bytes) -> None:
    """For an order that the key signed. The first one binds its key to the account.

    Raises OrderKeyUnknown, OrderKeyRevoked, Conflict for a key that speaks for somebody else.
    """
    check_key(public_key)
    if await _used(tx, account_id, public_key):
        return
    await lock_account(tx, account_id)
    ruling = rules.at_order(account_id, await known(tx, public_key), await held(tx, account_id))
    if _judge(ruling) is Ruling.DO:
        await _insert(tx, account_id, public_key, "first key", OrderKeyKind.SDK, OrderKeyWay.ORDER, NOBODY)
        await _used(tx, account_id, public_key)


async def _used(tx: Tx, account_id: UUID, public_key: bytes) -> bool:
    """Whether it is a live key of the account; then it stays one until this transaction ends."""
    # The write comes first: of two orders that share the lock, neither could take it for itself afterwards.
    await execute(
        tx,
        "UPDATE order_key SET last_used_at = now() WHERE public_key = $1 AND account_id = $2 AND revoked_at IS NULL"
        " AND (last_used_at IS NULL OR last_used_at < now() - $3::interval)",
        public_key,
        account_id,
        USED_RESOLUTION,
    )
    live = await one(
        tx,
        "SELECT true FROM order_key WHERE public_key = $1 AND account_id = $2 AND revoked_at IS NULL FOR SHARE",
        public_key,
        account_id,
    )
    return live is not None


async def add(
    tx: Tx, account_id: UUID, public_key: bytes, *, name: str, kind: OrderKeyKind, signer: Signer, now: datetime
) -> bool:
    """The key has proved itself. Whether this changed anything.

    Raises ApprovalNeeded, OrderKeyRevoked, Conflict (somebody else's, or too many).
    """
    check_key(public_key)
    await lock_account(tx, account_id)
    approval = await _approval(tx, account_id, signer)
    ruling = rules.at_add(account_id, await known(tx, public_key), await held(tx, account_id), approval)
    if _judge(ruling) is Ruling.SAME:
        return False
    await _insert(tx, account_id, public_key, clean_name(name), kind, signer.way, signer, now)
    return True


async def revoke(tx: Tx, account_id: UUID, public_key: bytes, *, signer: Signer, now: datetime) -> bool:
    """From now on no order of the key is taken; the sessions that it opened end. Whether this changed anything.

    Raises NotFound, ApprovalNeeded, also for the last live key without a wallet.
    """
    await lock_account(tx, account_id)
    approval = await _approval(tx, account_id, signer)
    ruling = rules.at_revoke(account_id, await known(tx, public_key), await held(tx, account_id), approval)
    if ruling is Ruling.UNKNOWN:
        raise NotFound(
            "this is none of your account's order keys", field="public_key", remedy="GET /api/v1/order-keys lists them"
        )
    if _judge(ruling) is Ruling.SAME:
        return False
    await execute(
        tx,
        "UPDATE order_key SET revoked_at = greatest($2, created_at), revoked_by = $3, revoked_by_key = $4,"
        " revoked_by_wallet = $5 WHERE public_key = $1",
        public_key,
        now,
        signer.way.value,
        signer.key,
        signer.wallet_id,
    )
    await execute(tx, "UPDATE api_token SET revoked_at = now() WHERE order_key = $1 AND revoked_at IS NULL", public_key)
    return True


async def require_live(tx: Tx, account_id: UUID, public_key: bytes) -> None:
    """For what only a key of the account may say. Raises ApprovalNeeded."""
    if not (await _approval(tx, account_id, Signer(key=public_key))).good:
        _refuse(Ruling.NOT_APPROVED)


async def signs_in(tx: Tx, public_key: bytes) -> bool:
    """Whether it is a live key of some account's orders, and stays one until this transaction ends; a node's key is
    none. Raises OrderKeyRevoked."""
    found = await one(tx, "SELECT revoked_at FROM order_key WHERE public_key = $1 FOR SHARE", public_key)
    if found is not None and found["revoked_at"] is not None:
        _refuse(Ruling.REVOKED)
    return found is not None


async def keys_of(tx: Tx, account_id: UUID) -> list[OrderKey]:
    """Live ones, oldest first, then the latest that were revoked."""
    found = await rows(
        tx,
        "SELECT o.*, a.public_key AS adder, r.public_key AS revoker FROM order_key o"
        " LEFT JOIN wallet a ON a.id = o.added_by_wallet LEFT JOIN wallet r ON r.id = o.revoked_by_wallet"
        " WHERE o.account_id = $1 ORDER BY o.revoked_at DESC NULLS FIRST, o.created_at, o.public_key LIMIT $2",
        account_id,
        ORDER_KEYS_MAX + REVOKED_SHOWN_MAX,
    )
    return [_key(row) for row in found]


async def _approval(tx: Tx, account_id: UUID, signer: Signer) -> Approval:
    """Keeps the key or wallet that signed as it is until this transaction ends."""
    if signer.key is not None:
        found = await one(
            tx,
            "SELECT true FROM order_key WHERE public_key = $1 AND account_id = $2 AND revoked_at IS NULL FOR SHARE",
            signer.key,
            account_id,
        )
        return Approval(OrderKeyWay.KEY, good=found is not None)
    if signer.wallet_id is None:
        return rules.BY_SESSION
    found = await one(
        tx,
        "SELECT true FROM wallet WHERE id = $1 AND account_id = $2 AND ended_at IS NULL AND approves_keys FOR SHARE",
        signer.wallet_id,
        account_id,
    )
    return Approval(OrderKeyWay.WALLET, good=found is not None)


async def _insert(
    tx: Tx,
    account_id: UUID,
    public_key: bytes,
    name: str,
    kind: OrderKeyKind,
    way: OrderKeyWay,
    signer: Signer,
    now: datetime | None = None,
) -> None:
    # Two accounts may want the same key at once: the second waits here, and is refused by what it then finds.
    await execute(
        tx,
        "INSERT INTO account_key (public_key, account_id, purpose) VALUES ($1, $2, 'order') ON CONFLICT DO NOTHING",
        public_key,
        account_id,
    )
    found = await known(tx, public_key)
    assert found is not None, "it was inserted, or was there"
    _judge(rules.own(account_id, found))
    await execute(
        tx,
        "INSERT INTO order_key (public_key, account_id, name, kind, created_at, added_by, added_by_key,"
        " added_by_wallet) VALUES ($1, $2, $3, $4, coalesce($5, now()), $6, $7, $8)",
        public_key,
        account_id,
        name,
        kind.value,
        now,
        way.value,
        signer.key,
        signer.wallet_id,
    )


def _key(row: Row) -> OrderKey:
    return OrderKey(
        bytes(row["public_key"]),
        row["name"],
        OrderKeyKind(row["kind"]),
        row["created_at"],
        _source(row["added_by"], row["added_by_key"], row["adder"]),
        row["last_used_at"],
        row["revoked_at"],
        None if row["revoked_by"] is None else _source(row["revoked_by"], row["revoked_by_key"], row["revoker"]),
    )


def _source(way: str, key: bytes | None, wallet: bytes | None) -> Source:
    return Source(OrderKeyWay(way), None if key is None else bytes(key), None if wallet is None else bytes(wallet))


_HOW: Final = (
    "Have a live key of the account sign for it (`qubix wallet keys` on a machine that has one), or a wallet that"
    " approves keys (POST /api/v1/wallet/challenge)"
)
_REFUSALS: Final[dict[Ruling, tuple[type[Refused], str, str, str]]] = {
    Ruling.UNSIGNED: (
        OrderUnsigned,
        "this account's jobs and rentals need an order signed by one of its keys",
        "order",
        "Sign the order with a key of the account; a browser gets one of its own on the page of your account",
    ),
    Ruling.UNKNOWN: (
        OrderKeyUnknown,
        "the account's orders are signed by other keys",
        "order.public_key",
        "Sign with a key that GET /api/v1/order-keys lists, or add this one: `qubix wallet keys add`, or on the page of"
        " your account",
    ),
    Ruling.REVOKED: (
        OrderKeyRevoked,
        "this key was revoked, and never signs again",
        "order.public_key",
        "Sign with another key of the account, or make and add a new one",
    ),
    Ruling.SOMEBODY_ELSES: (
        Conflict,
        "this key already speaks for somebody else",
        "order.public_key",
        "Sign with a key that only this account uses for orders",
    ),
    Ruling.NEEDS_APPROVAL: (ApprovalNeeded, "being signed in does not change an account's keys", "approval", _HOW),
    Ruling.NOT_APPROVED: (ApprovalNeeded, "who signed for it may not change this account's keys", "approval", _HOW),
    Ruling.TOO_MANY: (
        Conflict,
        f"the account has {ORDER_KEYS_MAX} keys",
        "public_key",
        "Revoke one that you no longer use",
    ),
    Ruling.LAST: (
        ApprovalNeeded,
        "this is the last key of the account's orders: only a wallet that approves keys revokes it",
        "approval",
        "Add another key first, or have the wallet sign for it",
    ),
}


def _judge(ruling: Ruling) -> Ruling:
    """SAME or DO; raises what the others mean."""
    if ruling in _REFUSALS:
        _refuse(ruling)
    return ruling


def _refuse(ruling: Ruling) -> NoReturn:
    kind, problem, field, remedy = _REFUSALS[ruling]
    raise kind(problem, field=field, remedy=remedy)
