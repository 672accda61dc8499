# SPDX-License-Identifier: Apache-2.0
"""Who may change the keys of an account's orders (M6, A1, A3): every case, as one table."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from qubix_coordinator.accounts.order_key_rules import (
    BY_SESSION,
    CLOCK_AHEAD_MS,
    ORDER_KEYS_MAX,
    REQUEST_LIFE_MS,
    Approval,
    Held,
    Known,
    Ruling,
    approves_at_bind,
    at_add,
    at_order,
    at_revoke,
    at_unsigned_order,
    may_unbind,
    request_in_time,
)
from qubix_coordinator.accounts.wallet_rules import BoundWallet, Proof
from qubix_protocol.states import OrderKeyWay

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OURS, THEIRS = UUID(int=1), UUID(int=2)
LIVE, REVOKED = Known(OURS, orders=True), Known(OURS, orders=True, live=False)
STRANGER, NODE = Known(THEIRS, orders=True), Known(OURS, orders=False)
NONE, ONE, TWO = Held(0, signed=False), Held(1, signed=True), Held(2, signed=True)
ALL_REVOKED, FULL = Held(0, signed=True), Held(ORDER_KEYS_MAX, signed=True)
KEY, DEAD_KEY = Approval(OrderKeyWay.KEY, good=True), Approval(OrderKeyWay.KEY, good=False)
WALLET, OTHER_WALLET = Approval(OrderKeyWay.WALLET, good=True), Approval(OrderKeyWay.WALLET, good=False)
APPROVALS = (BY_SESSION, KEY, DEAD_KEY, WALLET, OTHER_WALLET)


def test_m6_an_account_that_has_ever_had_a_key_spends_by_signature_alone() -> None:
    found = [at_unsigned_order(held) for held in (NONE, ONE, TWO, ALL_REVOKED)]
    assert found == [Ruling.DO, Ruling.UNSIGNED, Ruling.UNSIGNED, Ruling.UNSIGNED]


@pytest.mark.parametrize(
    ("signer", "held", "ruling"),
    [
        (None, NONE, Ruling.DO),
        (None, ONE, Ruling.UNKNOWN),
        (None, ALL_REVOKED, Ruling.UNKNOWN),
        (LIVE, ONE, Ruling.SAME),
        (REVOKED, TWO, Ruling.REVOKED),
        (REVOKED, ALL_REVOKED, Ruling.REVOKED),
        (STRANGER, NONE, Ruling.SOMEBODY_ELSES),
        (STRANGER, ONE, Ruling.SOMEBODY_ELSES),
        (NODE, NONE, Ruling.SOMEBODY_ELSES),
    ],
)
def test_m6_which_key_an_order_is_believed_from(signer: Known | None, held: Held, ruling: Ruling) -> None:
    assert at_order(OURS, signer, held) is ruling


@pytest.mark.parametrize("held", [ONE, TWO, ALL_REVOKED, FULL])
def test_m6_a_session_adds_no_key_to_an_account_that_has_ever_had_one(held: Held) -> None:
    assert at_add(OURS, None, held, BY_SESSION) is Ruling.NEEDS_APPROVAL
    assert at_add(OURS, None, held, DEAD_KEY) is Ruling.NOT_APPROVED
    assert at_add(OURS, None, held, OTHER_WALLET) is Ruling.NOT_APPROVED


@pytest.mark.parametrize(
    ("held", "rulings"),
    [
        (NONE, [Ruling.DO, Ruling.DO, Ruling.NOT_APPROVED, Ruling.DO, Ruling.NOT_APPROVED]),
        (ONE, [Ruling.NEEDS_APPROVAL, Ruling.DO, Ruling.NOT_APPROVED, Ruling.DO, Ruling.NOT_APPROVED]),
        (FULL, [Ruling.NEEDS_APPROVAL, Ruling.TOO_MANY, Ruling.NOT_APPROVED, Ruling.TOO_MANY, Ruling.NOT_APPROVED]),
    ],
)
def test_who_may_add_a_key(held: Held, rulings: list[Ruling]) -> None:
    assert [at_add(OURS, None, held, by) for by in APPROVALS] == rulings


@pytest.mark.parametrize(
    ("new", "ruling"),
    [
        (LIVE, Ruling.SAME),
        (REVOKED, Ruling.REVOKED),
        (STRANGER, Ruling.SOMEBODY_ELSES),
        (NODE, Ruling.SOMEBODY_ELSES),
    ],
)
def test_a_key_that_speaks_for_somebody_is_no_new_one_whoever_approves(new: Known, ruling: Ruling) -> None:
    assert {at_add(OURS, new, ONE, by) for by in APPROVALS} == {ruling}


@pytest.mark.parametrize(
    ("key", "held", "rulings"),
    [
        (LIVE, TWO, [Ruling.NEEDS_APPROVAL, Ruling.DO, Ruling.NOT_APPROVED, Ruling.DO, Ruling.NOT_APPROVED]),
        (LIVE, ONE, [Ruling.NEEDS_APPROVAL, Ruling.LAST, Ruling.NOT_APPROVED, Ruling.DO, Ruling.NOT_APPROVED]),
        (REVOKED, ONE, [Ruling.NEEDS_APPROVAL, *[Ruling.SAME] * 4]),
        (None, ONE, [Ruling.UNKNOWN] * 5),
        (STRANGER, ONE, [Ruling.UNKNOWN] * 5),
        (NODE, ONE, [Ruling.UNKNOWN] * 5),
    ],
)
def test_who_may_revoke_a_key_and_that_the_last_goes_by_a_wallet(
    key: Known | None, held: Held, rulings: list[Ruling]
) -> None:
    assert [at_revoke(OURS, key, held, by) for by in APPROVALS] == rulings


def test_a_request_is_good_for_an_hour() -> None:
    now_ms = 10 * REQUEST_LIFE_MS
    edges = (now_ms - REQUEST_LIFE_MS, now_ms, now_ms + CLOCK_AHEAD_MS)
    assert [request_in_time(at, now_ms) for at in edges] == [True] * 3
    assert not request_in_time(edges[0] - 1, now_ms)
    assert not request_in_time(edges[2] + 1, now_ms)


def test_a_wallet_that_a_session_binds_changes_no_keys_that_the_session_could_not() -> None:
    assert [approves_at_bind(held) for held in (NONE, ONE, ALL_REVOKED)] == [True, False, False]


def bound(number: int, hours: float, *, approves: bool = True) -> BoundWallet:
    """`hours` before now."""
    since = NOW - timedelta(hours=hours)
    return BoundWallet(UUID(int=number), OURS, bytes([number]) * 32, Proof.SIGNATURE, since, approves)


@pytest.mark.parametrize(
    ("others", "may"),
    [
        ([], False),
        ([bound(2, 300, approves=False)], False),
        ([bound(2, 101)], True),
        ([bound(2, 100)], True),
        ([bound(2, 99)], True),
        ([bound(2, 24)], True),
        ([bound(2, 23.9)], False),
        ([bound(2, 300, approves=False), bound(3, 1), bound(4, 30)], True),
    ],
)
def test_a1_a_wallet_that_changes_keys_stays_until_another_has_stood_beside_it(
    others: list[BoundWallet], may: bool
) -> None:
    assert may_unbind(bound(1, 100), others, NOW) is may
    assert may_unbind(bound(1, 100, approves=False), others, NOW)


def test_a1_what_a_stolen_session_has_just_bound_goes_at_once() -> None:
    owners, thiefs = bound(1, 0.5), bound(2, 0.1)
    assert may_unbind(thiefs, [owners], NOW)
    assert not may_unbind(owners, [thiefs], NOW)
