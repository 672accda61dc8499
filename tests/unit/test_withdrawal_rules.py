# SPDX-License-Identifier: Apache-2.0
"""The pure rules of withdrawals: every state × event, why each waits, where it aims, and what may be signed again."""

import inspect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.deposits import rules as chain
from qubix_coordinator.deposits.rules import Fate, Told, Totals
from qubix_coordinator.withdrawals import rules
from qubix_coordinator.withdrawals.rules import Event, Facts, Verb
from qubix_protocol.withdrawals import (
    FINAL_WITHDRAWAL_STATES,
    STATE_TEXT,
    WITHDRAWAL_TEXT,
    WithdrawalReason,
    WithdrawalState,
)

S, R = WithdrawalState, WithdrawalReason
OPEN = [state for state in S if state not in FINAL_WITHDRAWAL_STATES]


@pytest.mark.parametrize(("state", "event"), list(itertools.product(S, Event)))
def test_every_event_is_decided_in_every_state(state: S, event: Event) -> None:
    decision = rules.decide(Facts(state, R.IN_LINE), event)
    if state in FINAL_WITHDRAWAL_STATES:
        assert decision.verb is not Verb.APPLY
    if decision.verb is not Verb.APPLY:
        assert decision.state is state


def test_every_state_and_reason_is_a_sentence() -> None:
    assert set(STATE_TEXT) == set(S)
    assert all(text.endswith(".") for text in STATE_TEXT.values())
    assert set(WITHDRAWAL_TEXT) == set(R)
    assert all(text and not text.endswith(".") for text in WITHDRAWAL_TEXT.values())


@pytest.mark.parametrize("state", OPEN)
def test_every_open_state_has_a_default_outcome(state: S) -> None:
    """M5: what waits ends by itself; what may have run is never given back without proof, and calls an operator."""
    decision = rules.decide(Facts(state, R.IN_LINE), Event.DUE)
    assert decision.verb is Verb.APPLY
    assert rules.goes_back(decision.state) == (state is S.WAITING)
    assert decision.alarm == (state is not S.WAITING)


@pytest.mark.parametrize("state", [S.SIGNED, S.BROADCAST])
@pytest.mark.parametrize("event", [Event.CANCEL, Event.REFUSE, Event.SIGN])
def test_what_is_signed_cannot_be_called_back_or_signed_again(state: S, event: Event) -> None:
    assert rules.decide(Facts(state, R.UNDER_WAY), event).verb is Verb.REFUSE


@pytest.mark.parametrize("state", OPEN)
def test_only_proof_gives_back_what_was_signed(state: S) -> None:
    last_try = Facts(state, R.IN_LINE, tries=1, tries_max=1)
    back = {event for event in Event if rules.goes_back(rules.decide(last_try, event).state)}
    assert back == ({Event.CANCEL, Event.REFUSE, Event.DUE} if state is S.WAITING else {Event.DEAD})


def test_what_expired_waits_again_until_its_tries_or_its_time_are_used_up() -> None:
    facts = Facts(S.BROADCAST, R.UNDER_WAY, tries=1, tries_max=2)
    assert rules.decide(facts, Event.DEAD).state is S.WAITING
    assert rules.decide(replace(facts, tries=2), Event.DEAD).reason is R.TRIES
    assert rules.decide(replace(facts, late=True), Event.DEAD).reason is R.OVERDUE


def test_what_waited_for_an_operator_in_vain_is_refused() -> None:
    for reason in (R.APPROVAL, R.HOT_LIMIT):
        decision = rules.decide(Facts(S.WAITING, reason), Event.DUE)
        assert (decision.state, decision.reason) == (S.REFUSED, R.NOT_DECIDED)


ORDER = rules.Order(amount_qu=100, not_before_ms=1000, approved=False)
WALLET = rules.Wallet(up=True, balance_qu=100, room=True, left_today_qu=100)


@pytest.mark.parametrize(
    ("order", "wallet", "more", "reason"),
    [
        (ORDER, WALLET, {}, None),
        (ORDER, WALLET, {"approval_above_qu": 99}, R.APPROVAL),
        (replace(ORDER, approved=True), WALLET, {"approval_above_qu": 99}, None),
        (ORDER, WALLET, {"now_ms": 999}, R.DELAY),
        (replace(ORDER, approved=True), WALLET, {"now_ms": 999}, R.DELAY),
        (ORDER, replace(WALLET, left_today_qu=99), {}, R.HOT_LIMIT),
        (replace(ORDER, approved=True), replace(WALLET, left_today_qu=0), {}, None),
        (ORDER, replace(WALLET, up=False), {}, R.CHAIN_DOWN),
        (ORDER, replace(WALLET, balance_qu=99), {}, R.NOT_SWEPT),
        (ORDER, WALLET, {"turn": False}, R.IN_LINE),
        (ORDER, replace(WALLET, room=False), {}, R.EPOCH_END),
    ],
)
def test_why_it_waits(
    order: rules.Order, wallet: rules.Wallet, more: dict[str, int], reason: WithdrawalReason | None
) -> None:
    known = {"now_ms": 1000, "approval_above_qu": 100, "turn": True, **more}
    assert rules.why_waits(order, wallet, **known) is reason  # type: ignore[arg-type]


def test_never_aims_across_the_end_of_an_epoch() -> None:
    assert chain.aim(100, 15, epoch_end_tick=None) == 115
    assert chain.aim(100, 15, epoch_end_tick=116) == 115
    assert chain.aim(100, 15, epoch_end_tick=115) is None
    assert chain.aim(100, 1, epoch_end_tick=None) == 100 + chain.TICKS_AHEAD_MIN


def test_null_and_contracts_are_never_paid() -> None:
    assert rules.not_payable(bytes(32))
    assert rules.not_payable((4).to_bytes(8, "little") + bytes(24))
    assert not rules.not_payable(bytes(31) + b"\1")


# The re-sign rule, one clause each ----------------------------------------------------------------------------------

TARGET = 1000
BEFORE = Totals(outgoing_qu=500, outgoing_count=5, tick=900)
SAME = Totals(outgoing_qu=500, outgoing_count=5, tick=TARGET)
MOVED = Totals(outgoing_qu=600, outgoing_count=6, tick=TARGET)
GONE = Told(processed_tick=TARGET, found=False, flew=False, listed=False, totals=SAME)
RAN = Told(processed_tick=TARGET, found=True, flew=True, listed=True, totals=MOVED)


Judge = Callable[[int, Totals, Sequence[Told]], Fate]


@pytest.fixture
def judge() -> Judge:
    return chain.fate


def test_what_is_proven_gone_is_dead_and_what_ran_is_paid(judge: Judge) -> None:
    assert judge(TARGET, BEFORE, [GONE]) is Fate.EXPIRED
    assert judge(TARGET, BEFORE, [RAN]) is Fate.PAID
    assert judge(TARGET, BEFORE, [replace(GONE, found=True, listed=True)]) is Fate.MOVED_NOTHING
    assert judge(TARGET, BEFORE, [GONE, GONE]) is Fate.EXPIRED
    assert judge(TARGET, BEFORE, [RAN, RAN]) is Fate.PAID


def test_clause_the_archive_has_passed_the_target(judge: Judge) -> None:
    assert judge(TARGET, BEFORE, [replace(GONE, processed_tick=TARGET - 1)]) is Fate.OPEN
    assert judge(TARGET, BEFORE, [replace(RAN, processed_tick=TARGET - 1)]) is Fate.OPEN


def test_clause_the_hash_is_nowhere(judge: Judge) -> None:
    assert judge(TARGET, BEFORE, [replace(GONE, found=True)]) is Fate.DOUBT
    assert judge(TARGET, BEFORE, [replace(GONE, flew=True)]) is Fate.DOUBT


def test_clause_its_tick_data_lacks_the_hash(judge: Judge) -> None:
    assert judge(TARGET, BEFORE, [replace(GONE, listed=True)]) is Fate.DOUBT
    assert judge(TARGET, BEFORE, [replace(GONE, listed=None)]) is Fate.DOUBT


def test_clause_what_is_listed_moved_nothing(judge: Judge) -> None:
    listed = replace(GONE, found=True, listed=True)
    assert judge(TARGET, BEFORE, [replace(listed, flew=True)]) is Fate.DOUBT
    assert judge(TARGET, BEFORE, [replace(listed, listed=None)]) is Fate.DOUBT
    assert judge(TARGET, BEFORE, [listed, replace(listed, flew=True)]) is Fate.DOUBT
    assert judge(TARGET, BEFORE, [replace(listed, flew=True), listed]) is Fate.DOUBT


def test_clause_the_outgoing_totals_are_unchanged(judge: Judge) -> None:
    assert judge(TARGET, BEFORE, [replace(GONE, totals=MOVED)]) is Fate.DOUBT
    assert judge(TARGET, BEFORE, [replace(GONE, totals=replace(SAME, outgoing_qu=501))]) is Fate.DOUBT
    assert judge(TARGET, BEFORE, [replace(GONE, totals=replace(SAME, outgoing_count=6))]) is Fate.DOUBT
    assert judge(TARGET, BEFORE, [replace(GONE, found=True, listed=True, totals=MOVED)]) is Fate.DOUBT


def test_clause_the_totals_are_of_the_target_tick_or_later(judge: Judge) -> None:
    assert judge(TARGET, BEFORE, [replace(GONE, totals=replace(SAME, tick=TARGET - 1))]) is Fate.OPEN


def test_clause_every_source_says_so(judge: Judge) -> None:
    assert judge(TARGET, BEFORE, []) is Fate.OPEN
    for liar in (RAN, replace(GONE, listed=None), replace(GONE, totals=MOVED), replace(GONE, found=True)):
        assert judge(TARGET, BEFORE, [GONE, liar]) is Fate.DOUBT
        assert judge(TARGET, BEFORE, [liar, GONE]) is Fate.DOUBT
    assert judge(TARGET, BEFORE, [GONE, replace(GONE, processed_tick=TARGET - 1)]) is Fate.OPEN
    assert judge(TARGET, BEFORE, [RAN, replace(RAN, flew=False)]) is Fate.DOUBT


def test_clause_paid_is_not_believed_while_nothing_left_the_wallet(judge: Judge) -> None:
    assert judge(TARGET, BEFORE, [replace(RAN, totals=SAME)]) is Fate.DOUBT


CLAUSES = [found for name, found in list(globals().items()) if name.startswith("test_clause_")]
MUTANTS = [
    ("one.processed_tick >= target and ", ""),
    (" and one.totals.tick >= target", ""),
    ("    if not told:\n        return Fate.OPEN\n", ""),
    ("    if not unmoved:\n        return Fate.DOUBT\n", ""),
    ("unmoved = all(", "unmoved = any("),
    ("all(one.found and one.flew", "any(one.found and one.flew"),
    ("one.found and one.flew for", "one.found for"),
    ("Fate.DOUBT if unmoved else Fate.PAID", "Fate.PAID"),
    ("all(not one.found", "any(not one.found"),
    ("not one.found and not one.flew and one.listed", "not one.flew and one.listed"),
    ("not one.found and not one.flew and one.listed", "not one.found and one.listed"),
    ("not one.found and not one.flew and one.listed is False", "not one.found and not one.flew"),
    ("one.listed is False", "not one.listed"),
    ("all(one.found and not one.flew", "any(one.found and not one.flew"),
    ("one.found and not one.flew and one.listed for", "one.found and one.listed for"),
    ("one.found and not one.flew and one.listed for", "one.found and not one.flew for"),
    ("one.found and not one.flew and one.listed for", "not one.flew and one.listed for"),
]


@pytest.mark.parametrize(("clause", "without"), MUTANTS)
def test_no_clause_of_the_rule_can_be_taken_away(clause: str, without: str) -> None:
    """Each mutant of `fate` is caught by a test of one clause."""
    source = inspect.getsource(chain.fate)
    assert clause in source
    names = dict(vars(chain))
    exec(source.replace(clause, without), names)
    caught = 0
    for test in CLAUSES:
        try:
            test(names["fate"])
        except AssertionError:
            caught += 1
    assert caught


@pytest.mark.parametrize("field", ["outgoing_qu", "outgoing_count"])
def test_each_of_the_totals_counts(field: str) -> None:
    assert not SAME.same_as(replace(SAME, **{field: 0}))
    assert SAME.same_as(replace(SAME, tick=0))


testimonies = st.builds(
    Told,
    processed_tick=st.integers(TARGET - 2, TARGET + 2),
    found=st.booleans(),
    flew=st.booleans(),
    listed=st.sampled_from([True, False, None]),
    totals=st.builds(
        Totals,
        outgoing_qu=st.sampled_from([500, 600]),
        outgoing_count=st.sampled_from([5, 6]),
        tick=st.integers(TARGET - 2, TARGET + 2),
    ),
)


@given(st.lists(testimonies, max_size=3))
def test_dead_needs_all_clauses_of_all_sources(told: list[Told]) -> None:
    """trust.md Q2, written a second time in other words."""
    dead = bool(told)
    for one in told:
        dead &= one.processed_tick >= TARGET and one.totals.tick >= TARGET
        dead &= (one.totals.outgoing_qu, one.totals.outgoing_count) == (500, 5)
        dead &= not one.flew and one.listed is not None and one.found == one.listed
    dead &= len({one.found for one in told}) == 1
    assert (chain.fate(TARGET, BEFORE, told) in (Fate.EXPIRED, Fate.MOVED_NOTHING)) == dead


@given(st.integers(0, 10**15), st.integers(0, 10**15), st.integers(0, 10**15))
def test_withdrawable_is_never_more_than_the_balance(balance: int, unswept: int, new: int) -> None:
    found = rules.withdrawable_qu(balance, unswept_qu=unswept, new_earnings_qu=new)
    assert 0 <= found <= balance
    assert found in (0, balance - unswept - new)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**6), st.integers(-5, 10**6))
def test_a_standing_order_leaves_what_is_to_stay(free: int, keep: int, least: int, most: int) -> None:
    amount = rules.payout_qu(free, keep_qu=keep, least_qu=least, most_qu=most)
    assert amount == 0 or (least <= amount <= most and free - amount >= keep)
