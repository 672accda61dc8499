# SPDX-License-Identifier: Apache-2.0
"""A rental's decisions, its meter and its money, without anything around them (M1, M5, M9)."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.ledger.rules import owed_qu, split_fee
from qubix_coordinator.rentals import rules
from qubix_coordinator.rentals.rules import Ask, Event, Facts, Span, Times, Verb
from qubix_protocol.states import RENTAL_REASON_TEXT, RentalReason, RentalState

TIMES = Times(beat_ms=5_000, reach_ms=15_000, silence_ms=60_000, settle_ms=60_000, notice_ms=600_000)
NONCE = b"n" * 32


def test_every_state_has_an_answer_to_every_event() -> None:
    for state, event in itertools.product(RentalState, Event):
        decision = rules.decide(state, event)
        if decision.verb is Verb.APPLY and decision.state is RentalState.ENDED:
            assert decision.reason in RENTAL_REASON_TEXT
            assert decision.reason is not RentalReason.NONE, (state, event)
        else:
            assert decision.reason is RentalReason.NONE


def test_what_has_ended_stays_ended() -> None:
    for event in Event:
        decision = rules.decide(RentalState.ENDED, event)
        assert decision.verb is not Verb.APPLY
        assert decision.state is RentalState.ENDED


@pytest.mark.parametrize(
    ("state", "ends"),
    [
        (RentalState.REQUESTED, RentalReason.NEVER_STARTED),
        (RentalState.STARTING, RentalReason.NEVER_STARTED),
        (RentalState.ACTIVE, RentalReason.NONE),
        (RentalState.UNREACHABLE, RentalReason.PROVIDER_GONE),
    ],
)
def test_m5_every_state_but_the_last_has_a_deadline_and_a_default(state: RentalState, ends: RentalReason) -> None:
    facts = Facts(state=state, since_ms=1_000, ends_ms=10**9, answered_ms=1_000)
    limit = rules.deadline_ms(facts, TIMES)
    assert limit is not None
    assert rules.due_event(facts, TIMES, limit - 1) is None
    assert rules.due_event(facts, TIMES, limit) is Event.DUE
    decision = rules.decide(state, Event.DUE)
    assert decision.reason is ends
    if ends is RentalReason.NONE:
        assert decision.state is RentalState.UNREACHABLE


def test_of_two_things_that_passed_the_first_one_counts() -> None:
    gone = Facts(state=RentalState.UNREACHABLE, since_ms=0, ends_ms=60_001, answered_ms=0)
    assert rules.due_event(gone, TIMES, 100_000) is Event.DUE
    over = Facts(state=RentalState.UNREACHABLE, since_ms=0, ends_ms=59_999, answered_ms=0)
    assert rules.due_event(over, TIMES, 100_000) is Event.TIME_OVER


def test_a_notice_names_the_end_it_brings() -> None:
    ended = rules.decide(RentalState.ACTIVE, Event.TIME_OVER, RentalReason.PROVIDER_MAINTENANCE)
    assert (ended.state, ended.reason) == (RentalState.ENDED, RentalReason.PROVIDER_MAINTENANCE)
    stopped = rules.decide(RentalState.ACTIVE, Event.STOP, RentalReason.PROVIDER_MAINTENANCE)
    assert stopped.reason is RentalReason.STOPPED_BY_CONSUMER
    assert rules.notice_reason(0, 600_000, TIMES) is RentalReason.PROVIDER_MAINTENANCE
    assert rules.notice_reason(0, 599_999, TIMES) is RentalReason.SHORT_NOTICE


def test_a_node_is_asked_until_it_answers_and_anew_when_it_did_not() -> None:
    waiting = Facts(state=RentalState.REQUESTED, since_ms=0, sent_ms=0)
    assert rules.ask(waiting, TIMES, 999) is Ask.NOTHING
    assert rules.ask(waiting, TIMES, 1_000) is Ask.START
    first = Facts(state=RentalState.STARTING, since_ms=0, sent_ms=0)
    assert rules.ask(first, TIMES, 1) is Ask.NEW_NONCE
    asked = Facts(state=RentalState.ACTIVE, since_ms=0, answered_ms=0, nonce_asked_ms=5_000, sent_ms=5_000)
    assert rules.ask(asked, TIMES, 5_999) is Ask.NOTHING
    assert rules.ask(asked, TIMES, 6_000) is Ask.SAME_NONCE
    assert rules.ask(asked, TIMES, 20_000) is Ask.NEW_NONCE
    answered = Facts(state=RentalState.ACTIVE, since_ms=6_000, answered_ms=6_000, sent_ms=6_000)
    assert rules.ask(answered, TIMES, 10_999) is Ask.NOTHING
    assert rules.ask(answered, TIMES, 11_000) is Ask.NEW_NONCE


@pytest.mark.parametrize(
    ("given_nonce", "asked_ms", "now_ms", "counts"),
    [
        (NONCE, 1_000, 1_001, True),
        (NONCE, 1_000, 15_999, True),
        (NONCE, 1_000, 16_000, False),  # late
        (b"o" * 32, 1_000, 1_001, False),  # of before, or another rental's
        (NONCE, None, 1_001, False),  # answered already, or not asked yet
    ],
)
def test_m9_only_the_nonce_that_waits_counts_and_only_in_time(
    given_nonce: bytes, asked_ms: int | None, now_ms: int, counts: bool
) -> None:
    expected = None if asked_ms is None else NONCE
    assert rules.fresh(expected, asked_ms, given_nonce, TIMES, now_ms) is counts


@given(
    answers=st.lists(st.integers(0, 40_000), min_size=1, max_size=40),
    seconds=st.integers(10, 300),
    left=st.one_of(st.none(), st.integers(0, 400_000)),
)
def test_m9_the_meter_bills_no_more_than_the_time_between_answers(
    answers: list[int], seconds: int, left: int | None
) -> None:
    """`answers` are the gaps between them. What is billed never overlaps, lies between answers that were near enough to
    each other, and stays within the agreed time and the hold."""
    at = list(itertools.accumulate(answers, initial=1_000))
    ends, spans, rest = at[0] + seconds * 1000, [], left
    for before, now in itertools.pairwise(at):
        span = rules.metered(before, now, reach_ms=TIMES.reach_ms, ends_ms=ends, left_ms=rest)
        if span is not None:
            assert before == span.start < span.stop <= min(now, ends)
            assert now - before < TIMES.reach_ms
            spans.append(span)
            rest = None if rest is None else rest - span.ms
    assert all(a.stop <= b.start for a, b in itertools.pairwise(spans))
    billed = sum(span.ms for span in spans)
    near = sum(min(now, ends) - min(before, ends) for before, now in itertools.pairwise(at) if now - before < 15_000)
    assert billed == (near if left is None else min(near, left))


def test_m9_a_missing_answer_bills_nothing_for_its_interval() -> None:
    assert rules.metered(None, 5_000, reach_ms=15_000, ends_ms=10**6, left_ms=None) is None
    assert rules.metered(0, 15_000, reach_ms=15_000, ends_ms=10**6, left_ms=None) is None
    assert rules.metered(0, 14_999, reach_ms=15_000, ends_ms=10**6, left_ms=None) == Span(0, 14_999)
    assert rules.metered(5_000, 4_000, reach_ms=15_000, ends_ms=10**6, left_ms=None) is None


@given(
    rate=st.integers(0, 10**12),
    seconds=st.integers(10, 30 * 86_400),
    bps=st.integers(0, 10_000),
    cap=st.one_of(st.none(), st.integers(1, 10**9)),
    cuts=st.lists(st.integers(0, 10**9), max_size=20),
)
def test_m1_however_a_rental_is_cut_into_parts_it_costs_the_same_and_never_more_than_its_hold(
    rate: int, seconds: int, bps: int, cap: int | None, cuts: list[int]
) -> None:
    hold = rules.hold_qu(rate, seconds, cap)
    afford = rules.affordable_ms(rate, hold)
    longest = seconds * 1000 if afford is None else min(afford, seconds * 1000)
    paid = fee = 0
    for billed in sorted(min(cut, longest) for cut in [*cuts, longest]):
        due = rules.charge(rate, billed, bps, paid_qu=paid, fee_qu=fee)
        assert due.paid_qu >= 0
        assert due.fee_qu >= 0
        paid, fee = paid + due.paid_qu, fee + due.fee_qu
        assert paid + fee <= hold
    assert (paid, fee) == split_fee(owed_qu(rate, longest, accepted_chunks=0), bps)


def test_the_hold_covers_the_whole_time_unless_the_cap_is_less() -> None:
    assert rules.hold_qu(3_600, 10, None) == 10
    assert rules.hold_qu(3_601, 10, None) == 11
    assert rules.hold_qu(3_600, 10, 4) == 4
    assert rules.hold_qu(0, 10, None) == 1
    assert rules.affordable_ms(3_600, 4) == 4_000
    assert rules.affordable_ms(0, 1) is None
    used = Facts(state=RentalState.ACTIVE, since_ms=0, ends_ms=10_000, billed_ms=4_000, affordable_ms=4_000)
    assert rules.due_event(used, TIMES, 4_000) is Event.HOLD_USED
    assert rules.due_event(used, TIMES, 10_000) is Event.TIME_OVER


def test_deadlines_stand_still_while_no_coordinator_asks() -> None:
    assert rules.paused(0, 10**9) == 0
    assert rules.paused(1_000, 4_000) == 0
    assert rules.paused(1_000, 4_001) == 3_001
