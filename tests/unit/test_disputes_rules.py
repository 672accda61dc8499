# SPDX-License-Identifier: Apache-2.0
"""Disputes' pure rules (trust.md M5, M7): every state × event, who wins what, caps, and whom the draw may hit."""

import random
import uuid
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.disputes import rules
from qubix_coordinator.disputes.rules import TABLE, Caps, Event, Facts, Somebody, Verb, decide
from qubix_protocol.disputes import OUTCOME_TEXT, DisputeState, Finding, Outcome, Side

OPEN = [state for state in DisputeState if state is not DisputeState.RESOLVED]


def test_the_table_is_complete() -> None:
    assert set(TABLE) == set(DisputeState)
    assert all(set(row) == set(Event) for row in TABLE.values())
    assert set(OUTCOME_TEXT) == set(Outcome)


@pytest.mark.parametrize("state", DisputeState)
@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("finding", Finding)
def test_every_state_decides_every_event(
    state: DisputeState, event: Event, side: Side, checked: bool, finding: Finding
) -> None:
    decision = decide(Facts(state, side, checked, finding), event)
    assert (decision.outcome is not None) == (decision.verb is Verb.APPLY and decision.state is DisputeState.RESOLVED)
    if decision.verb is not Verb.APPLY:
        assert decision.state is state
    if state is DisputeState.RESOLVED:
        assert decision.verb is not Verb.APPLY


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("side", Side)
def test_deadlines_alone_lead_every_dispute_to_its_end(side: Side, checked: bool) -> None:
    """trust.md M5."""
    for state in OPEN:
        facts, seen = Facts(state, side, checked), []
        while facts.state is not DisputeState.RESOLVED:
            decision = decide(facts, Event.DUE)
            assert decision.verb is Verb.APPLY
            assert decision.state is not facts.state
            seen.append(decision)
            facts = Facts(decision.state, side, checked)
        assert seen[-1].outcome in (Outcome.DEFAULTED, Outcome.UNDECIDABLE)


def test_silence_loses_only_where_no_verdict_answers() -> None:
    assert decide(Facts(DisputeState.OPENED, Side.CONSUMER, False), Event.DUE).outcome is Outcome.DEFAULTED
    assert decide(Facts(DisputeState.OPENED, Side.CONSUMER, True), Event.DUE).state is DisputeState.RERUNNING


def test_a_consumer_cannot_give_the_fund_away() -> None:
    assert decide(Facts(DisputeState.OPENED, Side.PROVIDER, True), Event.CONCEDE).verb is Verb.REFUSE
    for outcome in (Outcome.CONCEDED, Outcome.DEFAULTED, Outcome.UNDECIDABLE, Outcome.WITHDRAWN):
        assert not rules.fund_may_pay(outcome)


def test_arbiters_decide_on_evidence_and_not_before() -> None:
    for state in DisputeState:
        verb = decide(Facts(state, Side.CONSUMER, False), Event.DECIDE).verb
        assert verb is (Verb.APPLY if state is DisputeState.JUDGING else Verb.REFUSE)


@given(st.sampled_from(Outcome), st.sampled_from(Side), st.integers(1, 10**15), st.integers(0, 10**15))
def test_awards_are_a_part_of_the_stake(outcome: Outcome, side: Side, stake: int, decided: int) -> None:
    assert 0 <= rules.award_qu(outcome, side, stake, decided) <= stake


@pytest.mark.parametrize(
    ("outcome", "side", "award", "opener_keeps"),
    [
        (Outcome.CONCEDED, Side.CONSUMER, 100, True),
        (Outcome.DEFAULTED, Side.CONSUMER, 100, True),
        (Outcome.REFUTED, Side.CONSUMER, 100, True),
        (Outcome.UPHELD, Side.CONSUMER, 0, False),
        (Outcome.UPHELD, Side.PROVIDER, 100, True),
        (Outcome.REFUTED, Side.PROVIDER, 0, False),
        # Refunded less the bond; a provider that nobody can prove right gets nothing.
        (Outcome.UNDECIDABLE, Side.CONSUMER, 100, False),
        (Outcome.UNDECIDABLE, Side.PROVIDER, 0, False),
        (Outcome.WITHDRAWN, Side.CONSUMER, 0, False),
    ],
)
def test_who_gets_the_stake_and_who_the_bonds(outcome: Outcome, side: Side, award: int, opener_keeps: bool) -> None:
    found = rules.award_qu(outcome, side, 100)
    assert found == award
    assert rules.opener_keeps_bonds(outcome, found, 100, spent=True) is opener_keeps


def test_an_arbiters_split_decides_the_bonds_by_the_larger_half() -> None:
    for award, keeps in ((0, False), (49, False), (50, True), (100, True)):
        assert rules.opener_keeps_bonds(Outcome.DECIDED, award, 100, spent=True) is keeps


def test_an_early_withdrawal_costs_nothing() -> None:
    assert rules.opener_keeps_bonds(Outcome.WITHDRAWN, 0, 100, spent=False)


@given(*[st.integers(0, 10**6)] * 5)
def test_an_award_is_paid_once_from_what_there_is(award: int, paid: int, has: int, fees: int, fund: int) -> None:
    found = rules.sources(award, paid_qu=paid, provider_qu=has, fees_qu=fees, fund_qu=fund)
    assert found.provider + found.fees + found.fund + found.unpaid == award
    assert min(found.provider, found.fees, found.fund, found.unpaid) >= 0
    assert found.provider <= min(paid, has)
    assert found.fees <= fees
    assert found.fund <= fund
    if found.fund:
        assert found.provider == min(award, paid, has), "the fund comes last"


@given(*[st.integers(-(10**6), 10**6)] * 2, *[st.integers(0, 10**6)] * 2)
def test_the_fund_keeps_its_caps(day: int, own: int, wanted: int, balance: int) -> None:
    paid = Caps(day, own).of(wanted, balance)
    assert 0 <= paid <= max(0, min(day, own, wanted, balance))


def test_two_arbiters_must_say_the_same() -> None:
    one, two, three = (UUID(int=i) for i in range(1, 4))
    assert rules.arbiters_needed(1_000, 1_000) == 1
    assert rules.arbiters_needed(1_001, 1_000) == 2
    assert rules.agreed_qu({one: 5}, 1) == 5
    assert rules.agreed_qu({one: 5}, 2) is None
    assert rules.agreed_qu({one: 5, two: 6}, 2) is None
    assert rules.agreed_qu({one: 5, two: 6, three: 5}, 2) == 5


def test_the_re_runner_is_never_related() -> None:
    """trust.md M7: 500 seeded draws, among relatives of every kind."""
    for seed in range(500):
        rng = random.Random(seed)
        accounts = [UUID(int=rng.getrandbits(128), version=4) for _ in range(8)]
        keys = [rng.randbytes(32) for _ in range(8)]
        parties, wallets = accounts[:2], keys[:2]
        crowd = [
            Somebody(f"peer-{number}", rng.choice(accounts), frozenset(rng.sample(keys, rng.randrange(3))))
            for number in range(rng.randrange(1, 20))
        ]
        seen = {one.peer_id for one in crowd if rng.random() < 0.2}
        drawn = rules.draw(rules.unrelated(crowd, parties, wallets, seen), rng.randrange)
        free = [
            one
            for one in crowd
            if one.account_id not in parties and not one.wallets & set(wallets) and one.peer_id not in seen
        ]
        assert (drawn is None) == (not free)
        assert drawn is None or drawn in free


def test_many_nodes_of_one_account_are_one_chance() -> None:
    many, single = uuid.uuid4(), uuid.uuid4()
    crowd = [Somebody(f"m{number}", many) for number in range(99)] + [Somebody("s", single)]
    rng = random.Random(7)
    hits = sum(rules.draw(crowd, rng.randrange) == crowd[-1] for _ in range(1_000))
    assert 400 < hits < 600


def test_the_fund_gets_its_part_of_all_fees_once() -> None:
    assert rules.fund_share_qu(10_000, 0, 2_000) == 2_000
    assert rules.fund_share_qu(10_000, 2_000, 2_000) == 0
    assert rules.fund_share_qu(10_004, 2_000, 2_000) == 0
    assert rules.fund_share_qu(10_000, 5_000, 2_000) == 0
