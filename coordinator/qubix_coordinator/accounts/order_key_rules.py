# SPDX-License-Identifier: Apache-2.0
"""Who may add and revoke the keys that sign an account's orders, and when an order is believed. Pure.

From its first key on an account is *signed* for good: a session alone spends nothing and changes no key, not even
once every key is revoked. Otherwise whoever steals a session could make the account one that a session opens
(docs/adr/0038).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final
from uuid import UUID

from qubix_coordinator.accounts.wallet_rules import BoundWallet
from qubix_protocol.states import OrderKeyWay

ORDER_KEYS_MAX: Final = 20
"""Live keys of one account."""
REVOKED_SHOWN_MAX: Final = 50
REQUEST_LIFE_MS: Final = 3_600_000
"""How long a key's own request may lie about, on its way to another machine, before it is approved."""
CLOCK_AHEAD_MS: Final = 120_000
STANDS_IN_AFTER: Final = timedelta(days=1)
"""How long a wallet is bound before one that was there first may be unbound in its favour: so long the owner, who signs
in with that one, can unbind what a stolen session has bound."""


@dataclass(frozen=True, slots=True)
class Known:
    """A public key that speaks for somebody already. `orders`: it is one that signs orders, not a node's."""

    account_id: UUID
    orders: bool
    live: bool = True


@dataclass(frozen=True, slots=True)
class Held:
    """An account's keys: how many are live, and whether there has ever been one."""

    live: int
    signed: bool


@dataclass(frozen=True, slots=True)
class Approval:
    """On whose word keys are to change. `good`: a live key of this account, or a wallet of it that approves keys; what
    a session says is judged by the rules."""

    way: OrderKeyWay
    good: bool


BY_SESSION: Final = Approval(OrderKeyWay.SESSION, good=False)


class Ruling(Enum):
    """What becomes of an order, a new key, or a revocation."""

    DO = auto()
    SAME = auto()
    """It is so already."""
    UNSIGNED = auto()
    UNKNOWN = auto()
    """The account has keys, and this is none of them."""
    REVOKED = auto()
    SOMEBODY_ELSES = auto()
    NEEDS_APPROVAL = auto()
    NOT_APPROVED = auto()
    """Who signed for it may not."""
    TOO_MANY = auto()
    LAST = auto()


def at_unsigned_order(held: Held) -> Ruling:
    return Ruling.UNSIGNED if held.signed else Ruling.DO


def at_order(account_id: UUID, signer: Known | None, held: Held) -> Ruling:
    """SAME: the key signs for the account already; DO: it becomes the account's first."""
    if signer is None:
        return Ruling.UNKNOWN if held.signed else Ruling.DO
    return own(account_id, signer)


def at_add(account_id: UUID, new: Known | None, held: Held, by: Approval) -> Ruling:
    """`new` has proved that somebody holds it."""
    if new is not None:
        return own(account_id, new)
    if by.way is OrderKeyWay.SESSION:
        return Ruling.NEEDS_APPROVAL if held.signed else Ruling.DO
    if not by.good:
        return Ruling.NOT_APPROVED
    return Ruling.TOO_MANY if held.live >= ORDER_KEYS_MAX else Ruling.DO


def at_revoke(account_id: UUID, key: Known | None, held: Held, by: Approval) -> Ruling:
    """The last live key goes by a wallet's word alone: without one, nobody could ever add another."""
    if key is None or key.account_id != account_id or not key.orders:
        return Ruling.UNKNOWN
    if by.way is OrderKeyWay.SESSION:
        return Ruling.NEEDS_APPROVAL
    if not key.live:
        return Ruling.SAME
    if not by.good:
        return Ruling.NOT_APPROVED
    return Ruling.LAST if held.live == 1 and by.way is not OrderKeyWay.WALLET else Ruling.DO


def own(account_id: UUID, key: Known) -> Ruling:
    """Of a key that speaks for somebody: SAME when it signs the account's orders."""
    if key.account_id != account_id or not key.orders:
        return Ruling.SOMEBODY_ELSES
    return Ruling.SAME if key.live else Ruling.REVOKED


def request_in_time(clock_ms: int, now_ms: int) -> bool:
    return now_ms - REQUEST_LIFE_MS <= clock_ms <= now_ms + CLOCK_AHEAD_MS


def approves_at_bind(held: Held) -> bool:
    """Whether a wallet that a session binds may change keys: only where a session alone could do so anyway."""
    return not held.signed


def may_unbind(found: BoundWallet, others: Iterable[BoundWallet], now: datetime) -> bool:
    """A session must not take away the last wallet that could revoke every key, nor put one of its own in the place of
    the owner's at once. That holds before there is any key, too: a session could add the first one itself."""
    bound_by = max(found.since, now - STANDS_IN_AFTER)
    return not found.approves_keys or any(one.approves_keys and one.since <= bound_by for one in others)
