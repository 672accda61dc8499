# SPDX-License-Identifier: Apache-2.0
"""When work is spot-checked, and what a spot check does next (trust.md C5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.jobs import spot
from qubix_coordinator.spots import rules
from qubix_coordinator.spots.rules import OPEN, Event, Facts, State

QU = st.integers(0, 10**15)


@pytest.mark.parametrize(
    ("at_stake_qu", "proven_qu", "expected"),
    [(1, 0, 1.0), (100, 99, 1.0), (100, 100, 1.0), (100, 200, 0.5), (100, 2_000, 0.05), (1, 10**15, 0.05)],
)
def test_a_check_is_certain_above_the_proven_value_and_never_under_five_percent(
    at_stake_qu: int, proven_qu: int, expected: float
) -> None:
    assert spot.chance(at_stake_qu, proven_qu) == pytest.approx(expected)


@given(QU, QU, QU)
def test_more_at_stake_is_never_checked_less_and_more_proven_never_more(stake: int, more: int, proven: int) -> None:
    low, high = spot.chance(stake, proven), spot.chance(stake + more, proven)
    assert 0.05 <= low <= high <= 1.0
    assert spot.chance(stake, proven + more) <= low
    assert stake <= proven or low == 1.0


def test_every_state_and_event() -> None:
    going = Facts(State.WAITING)
    found = {(state, event): rules.decide(Facts(state, draws=1), event) for state in State for event in Event}
    assert {key: state for key, state in found.items() if state is not None} == {
        (State.WAITING, Event.DRAWN): State.RERUNNING,
        (State.RERUNNING, Event.RAN): State.LOOKING,
        (State.RERUNNING, Event.NOT_RAN): State.WAITING,
        (State.LOOKING, Event.SAME): State.PASSED,
        (State.LOOKING, Event.DIFFERS): State.WAITING,
        (State.LOOKING, Event.UNTOLD): State.WAITING,
        **{(state, Event.DUE): State.NOT_DONE for state in OPEN},
        **{(state, Event.DISPUTED): State.NOT_DONE for state in OPEN},
    }
    assert rules.decide(going, Event.SAME) is None


def test_one_contrary_run_refutes_nothing_and_two_do() -> None:
    assert rules.decide(Facts(State.LOOKING, draws=1, against=0), Event.DIFFERS) is State.WAITING
    assert rules.decide(Facts(State.LOOKING, draws=2, against=1), Event.DIFFERS) is State.FAILED
    assert rules.decide(Facts(State.LOOKING, draws=2, against=1), Event.SAME) is State.PASSED


@pytest.mark.parametrize("event", [Event.DUE, Event.NOT_RAN, Event.UNTOLD])
def test_what_nobody_could_say_blames_nobody(event: Event) -> None:
    state = State.LOOKING if event is Event.UNTOLD else State.RERUNNING
    assert rules.decide(Facts(state, rules.DRAWS_MAX, 0), event) is State.NOT_DONE
    assert rules.decide(Facts(state, rules.DRAWS_MAX, 1), event) is State.UNDECIDED


@given(st.lists(st.sampled_from(list(Event)), max_size=40))
def test_it_ends_and_stays_ended(events: list[Event]) -> None:
    facts, ended = Facts(State.WAITING), False
    for event in [*events, Event.DUE]:
        state = rules.decide(facts, event)
        assert not (ended and state)
        if state is not None:
            facts = Facts(state, facts.draws + (event is Event.DRAWN), facts.against + (event is Event.DIFFERS))
        assert facts.draws <= rules.DRAWS_MAX
        assert facts.against <= rules.AGAINST_MAX
        ended = facts.state not in OPEN
    assert ended
