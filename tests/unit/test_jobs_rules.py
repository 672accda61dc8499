# SPDX-License-Identifier: Apache-2.0
"""Every state × event of jobs and attempts is decided, every open state has a deadline with a default outcome."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.jobs import rules
from qubix_coordinator.jobs.rules import (
    ATTEMPT_TABLE,
    ATTEMPTS_BAD_MAX,
    JOB_TABLE,
    REFUSALS_MAX,
    AttemptEvent,
    Hands,
    JobEvent,
    JobFacts,
    Verb,
    decide_attempt,
    decide_job,
)
from qubix_protocol.states import (
    FINAL_ATTEMPT_STATES,
    FINAL_JOB_STATES,
    AttemptState,
    JobState,
    Reason,
)

OPEN_ATTEMPT_STATES = [AttemptState.OFFERED, AttemptState.RUNNING, AttemptState.VERIFYING]
ON_DELIVERY = (JobEvent.ACCEPT, JobEvent.WINDOW_ENDED, JobEvent.DISPUTE, JobEvent.RESOLVE)
"""Events about what was delivered; the others are about who works."""


IN_HAND = {
    JobState.QUEUED: [Hands()],
    JobState.ASSIGNED: [Hands(offered=1), Hands(offered=2, verifying=1)],
    JobState.RUNNING: [Hands(running=1), Hands(1, 2, 1), Hands(running=1, verifying=2)],
    JobState.VERIFYING: [Hands(verifying=1), Hands(verifying=3)],
}
"""Every open state with hands that show it."""
OPEN_FACTS = [(state, hands) for state, found in IN_HAND.items() for hands in found]
AFTER = {
    JobEvent.ASSIGN: lambda hands: replace(hands, offered=hands.offered + 1),
    JobEvent.START: lambda hands: replace(hands, offered=hands.offered - 1, running=hands.running + 1),
    JobEvent.HANDED_IN: lambda hands: replace(hands, running=hands.running - 1, verifying=hands.verifying + 1),
    JobEvent.EMPTIED: lambda hands: (
        replace(hands, offered=hands.offered - 1) if hands.offered else replace(hands, running=hands.running - 1)
    ),
    JobEvent.CHECKED: lambda hands: replace(hands, verifying=hands.verifying - 1),
    JobEvent.CANCEL: lambda hands: hands,
    JobEvent.EXPIRE: lambda hands: hands,
    JobEvent.RENTAL_OVER: lambda hands: hands,
}
"""What each event leaves of the hands."""
ENDINGS = [
    {},
    {"complete": True},
    {"hold_left_qu": 0},
    {"refusals": REFUSALS_MAX},
    {"bad_attempts": 99},
    {"reported_all": True},
]


def after(hands: Hands, event: JobEvent) -> Hands | None:
    """None: these hands cannot have such an event."""
    left = AFTER[event](hands)
    return left if min(left.offered, left.running, left.verifying) >= 0 else None


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("event", JobEvent)
def test_every_job_state_decides_every_event(state: JobState, event: JobEvent) -> None:
    decision = decide_job(JobFacts(state), event)
    assert decision.verb in Verb
    if decision.verb is not Verb.APPLY:
        assert decision.state is state


@pytest.mark.parametrize(("state", "hands"), OPEN_FACTS)
@pytest.mark.parametrize("event", AFTER)
@pytest.mark.parametrize("closing", [None, Reason.EXPIRED])
def test_a_job_shows_what_its_hands_do(state: JobState, hands: Hands, event: JobEvent, closing: Reason | None) -> None:
    """Whatever happens to a job in several hands, it moves to the state that the hands that are left show, ends only
    when none is left, and stops none but those that are live."""
    assert hands.state is state
    left = after(hands, event)
    for changes in ENDINGS:
        if left is None or (closing is not None and state is JobState.QUEUED):
            continue
        facts = JobFacts(state, left, 3, closing=closing, **changes)  # type: ignore[arg-type]
        decision = decide_job(facts, event)
        shown = state if decision.verb is not Verb.APPLY else decision.state
        if shown in FINAL_JOB_STATES:
            assert left.open == 0 or facts.complete
            assert decision.closing is None
        elif decision.verb is Verb.APPLY:
            assert shown is left.state
            assert decision.closing is closing or closing is None
        if decision.stop_hands:
            assert left.live > 0
            assert decision.closing is not None
        if event is JobEvent.ASSIGN and closing is not None:
            assert decision.verb is Verb.REFUSE
        elif event is JobEvent.ASSIGN:
            assert decision.verb is Verb.APPLY
        elif event is JobEvent.START and state is not JobState.VERIFYING:
            assert shown is JobState.RUNNING
        if event is JobEvent.HANDED_IN and decision.verb is Verb.REFUSE:
            raise AssertionError("a result that was handed in is never refused")


@pytest.mark.parametrize("state", AttemptState)
@pytest.mark.parametrize("event", AttemptEvent)
@pytest.mark.parametrize("links", [0, 3])
def test_every_attempt_state_decides_every_event(state: AttemptState, event: AttemptEvent, links: int) -> None:
    decision = decide_attempt(state, event, links=links)
    if decision.verb is not Verb.APPLY:
        assert decision.state is state
    if state in FINAL_ATTEMPT_STATES:
        assert decision.verb is not Verb.APPLY


def test_the_tables_are_complete() -> None:
    assert set(JOB_TABLE) == set(JobState)
    assert set(ATTEMPT_TABLE) == set(AttemptState)
    assert all(set(row) == set(JobEvent) for row in JOB_TABLE.values())
    assert all(set(row) == set(AttemptEvent) for row in ATTEMPT_TABLE.values())


@pytest.mark.parametrize("state", sorted(FINAL_JOB_STATES))
@pytest.mark.parametrize("event", JobEvent)
def test_a_final_job_never_moves(state: JobState, event: JobEvent) -> None:
    assert decide_job(JobFacts(state), event).verb is not Verb.APPLY


@pytest.mark.parametrize(("state", "hands"), OPEN_FACTS)
@pytest.mark.parametrize("event", [JobEvent.EXPIRE, JobEvent.CANCEL, JobEvent.RENTAL_OVER])
def test_every_open_job_ends_when_it_expires(state: JobState, hands: Hands, event: JobEvent) -> None:
    """Its deadline, its owner or the end of its rental ends it at once, or as soon as every attempt in hand was stopped
    and checked."""
    wanted = {
        JobEvent.EXPIRE: Reason.EXPIRED,
        JobEvent.CANCEL: Reason.CANCELLED_BY_CONSUMER,
        JobEvent.RENTAL_OVER: Reason.RENTAL_ENDED,
    }[event]
    decision = decide_job(JobFacts(state, hands, 3), event)
    assert decision.verb is Verb.APPLY
    assert decision.reason is wanted
    if decision.state in FINAL_JOB_STATES:
        assert hands.open == 0
        return
    assert decision.closing is wanted
    assert decision.stop_hands == (hands.live > 0)
    while hands.open:
        following = JobEvent.EMPTIED if hands.live else JobEvent.CHECKED
        hands = AFTER[following](hands)
        decision = decide_job(JobFacts(decision.state, hands, 3, closing=decision.closing), following)
        assert decision.state is hands.state or hands.open == 0
    assert decision.state is (JobState.CANCELLED if event is JobEvent.CANCEL else JobState.FAILED)
    assert decision.reason is wanted


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hold_left_qu": 0}, Reason.CAP_REACHED),
        ({"refusals": REFUSALS_MAX}, Reason.BAD_INPUT),
        ({"bad_attempts": ATTEMPTS_BAD_MAX + 2}, Reason.ATTEMPTS_EXHAUSTED),
    ],
)
def test_a_job_that_cannot_be_completed_stops_its_other_hands_once(changes: dict[str, int], reason: Reason) -> None:
    facts = JobFacts(JobState.RUNNING, Hands(1, 1, 1), 3, **changes)  # type: ignore[arg-type]
    decision = decide_job(facts, JobEvent.EMPTIED)
    assert (decision.state, decision.closing, decision.stop_hands) == (JobState.RUNNING, reason, True)
    again = decide_job(replace(facts, closing=reason), JobEvent.EMPTIED)
    assert (again.closing, again.stop_hands) == (reason, False)
    ended = decide_job(replace(facts, hands=Hands(), closing=reason), JobEvent.CHECKED)
    assert (ended.state, ended.reason) == (JobState.FAILED, reason)


def test_a_job_in_several_hands_may_lose_each_once_more() -> None:
    for hands_max in (1, 4):
        facts = JobFacts(JobState.RUNNING, Hands(), hands_max, bad_attempts=ATTEMPTS_BAD_MAX + hands_max - 2)
        assert decide_job(facts, JobEvent.EMPTIED).state is JobState.QUEUED
        over = replace(facts, bad_attempts=facts.bad_attempts + 1)
        assert decide_job(over, JobEvent.EMPTIED).reason is Reason.ATTEMPTS_EXHAUSTED


@pytest.mark.parametrize("state", OPEN_ATTEMPT_STATES)
def test_every_open_attempt_has_a_default_outcome(state: AttemptState) -> None:
    for links in (0, 2):
        decision = decide_attempt(state, AttemptEvent.DUE, links=links)
        assert decision.verb is Verb.APPLY
        assert decision.state is not state


@pytest.mark.parametrize(("state", "hands"), OPEN_FACTS)
@pytest.mark.parametrize("event", ON_DELIVERY)
def test_nothing_is_accepted_or_disputed_before_it_is_delivered(state: JobState, hands: Hands, event: JobEvent) -> None:
    decision = decide_job(JobFacts(state, hands, owed_qu=5), event)
    assert decision.verb is (Verb.IGNORE if event is JobEvent.WINDOW_ENDED else Verb.REFUSE)


@pytest.mark.parametrize("closing", [None, Reason.EXPIRED, Reason.CANCELLED_BY_CONSUMER])
def test_what_is_owed_is_delivered_before_the_job_ends(closing: Reason | None) -> None:
    """Complete, cancelled or expired: as soon as nobody works, whatever is owed for can be judged first."""
    facts = JobFacts(JobState.VERIFYING, complete=closing is None, owed_qu=5, closing=closing)
    delivered = decide_job(facts, JobEvent.CHECKED)
    assert (delivered.state, delivered.closing) == (JobState.DELIVERED, closing)
    assert delivered.reason is (closing or Reason.AWAITING_ACCEPTANCE)
    ends = {
        None: JobState.SETTLED,
        Reason.EXPIRED: JobState.FAILED,
        Reason.CANCELLED_BY_CONSUMER: JobState.CANCELLED,
    }
    for event, reason in ((JobEvent.ACCEPT, Reason.ACCEPTED_BY_CONSUMER), (JobEvent.WINDOW_ENDED, Reason.NOT_DISPUTED)):
        decision = decide_job(JobFacts(JobState.DELIVERED, owed_qu=5, closing=closing), event)
        assert (decision.verb, decision.state, decision.reason) == (Verb.APPLY, ends[closing], closing or reason)


@pytest.mark.parametrize("event", [JobEvent.CANCEL, JobEvent.EXPIRE])
def test_a_queued_job_that_owes_delivers_before_it_ends(event: JobEvent) -> None:
    assert decide_job(JobFacts(JobState.QUEUED, owed_qu=5), event).state is JobState.DELIVERED
    assert decide_job(JobFacts(JobState.QUEUED), event).state in FINAL_JOB_STATES


def test_committed_outputs_beat_a_later_cancel_and_deadline() -> None:
    """trust.md M4."""
    for state in (JobState.DELIVERED, JobState.DISPUTED):
        assert decide_job(JobFacts(state, owed_qu=5), JobEvent.CANCEL).verb is Verb.REFUSE
        assert decide_job(JobFacts(state, owed_qu=5), JobEvent.EXPIRE).verb is Verb.IGNORE


def test_a_dispute_excludes_acceptance_and_the_windows_end() -> None:
    disputed = decide_job(JobFacts(JobState.DELIVERED, owed_qu=5), JobEvent.DISPUTE)
    assert (disputed.verb, disputed.state) == (Verb.APPLY, JobState.DISPUTED)
    facts = JobFacts(JobState.DISPUTED, owed_qu=5)
    assert decide_job(facts, JobEvent.ACCEPT).verb is Verb.REFUSE
    assert decide_job(facts, JobEvent.WINDOW_ENDED).verb is Verb.IGNORE
    resolved = decide_job(facts, JobEvent.RESOLVE)
    assert (resolved.verb, resolved.state) == (Verb.APPLY, JobState.RESOLVED)
    assert decide_job(JobFacts(JobState.DELIVERED, owed_qu=5), JobEvent.RESOLVE).verb is Verb.REFUSE


def test_a_delivered_attempt_is_passed_or_failed_once() -> None:
    assert decide_attempt(AttemptState.VERIFYING, AttemptEvent.FORMED, links=1).state is AttemptState.DELIVERED
    assert decide_attempt(AttemptState.DELIVERED, AttemptEvent.PASSED, links=1).state is AttemptState.ACCEPTED
    assert decide_attempt(AttemptState.DELIVERED, AttemptEvent.FAILED_CHECK, links=1).state is AttemptState.REJECTED
    for event in AttemptEvent:
        if event not in (AttemptEvent.PASSED, AttemptEvent.FAILED_CHECK):
            assert decide_attempt(AttemptState.DELIVERED, event, links=1).verb is not Verb.APPLY


def test_each_deadline_has_its_reason() -> None:
    assert rules.due_reason(AttemptState.OFFERED, limit_ms=None, now_ms=5) is Reason.NOT_ACCEPTED_IN_TIME
    assert rules.due_reason(AttemptState.RUNNING, limit_ms=9, now_ms=5) is Reason.SILENT
    assert rules.due_reason(AttemptState.RUNNING, limit_ms=5, now_ms=5) is Reason.OVERDUE
    assert rules.due_reason(AttemptState.VERIFYING, limit_ms=5, now_ms=5) is Reason.CHECK_FAILED
    for state in (AttemptState.OFFERED, AttemptState.RUNNING):
        assert rules.due_reason(state, limit_ms=9, now_ms=5, leaving=True) is Reason.LEFT
    assert rules.due_reason(AttemptState.VERIFYING, limit_ms=5, now_ms=5, leaving=True) is Reason.CHECK_FAILED
    assert Reason.LEFT in rules.UNCOUNTED - rules.BLAMELESS


def test_a_reported_result_beats_a_later_cancel() -> None:
    """trust.md M4."""
    reported = JobFacts(JobState.VERIFYING, reported_all=True)
    assert decide_job(reported, JobEvent.CANCEL).verb is Verb.REFUSE
    partial = decide_job(JobFacts(JobState.VERIFYING), JobEvent.CANCEL)
    assert (partial.verb, partial.closing) == (Verb.APPLY, Reason.CANCELLED_BY_CONSUMER)
    complete = JobFacts(JobState.VERIFYING, complete=True, closing=partial.closing)
    assert decide_job(complete, JobEvent.CHECKED).state is JobState.SETTLED


def test_cancelling_stops_the_attempts_first() -> None:
    for state, hands in OPEN_FACTS:
        decision = decide_job(JobFacts(state, hands), JobEvent.CANCEL)
        assert decision.stop_hands == (hands.live > 0)
        assert decision.state is (JobState.CANCELLED if state is JobState.QUEUED else state)
    assert decide_job(JobFacts(JobState.CANCELLED), JobEvent.CANCEL).verb is Verb.IGNORE


def test_a_cancel_beats_what_only_a_part_has_reported() -> None:
    """One of two hands has committed its report: the other's work is what the cancel is about."""
    decision = decide_job(JobFacts(JobState.RUNNING, Hands(running=1, verifying=1), 2), JobEvent.CANCEL)
    assert (decision.verb, decision.closing) == (Verb.APPLY, Reason.CANCELLED_BY_CONSUMER)


def test_the_first_reason_to_close_stands() -> None:
    facts = JobFacts(JobState.VERIFYING, closing=Reason.CANCELLED_BY_CONSUMER)
    assert decide_job(facts, JobEvent.EXPIRE).closing is Reason.CANCELLED_BY_CONSUMER


@pytest.mark.parametrize(
    ("facts", "state", "reason"),
    [
        ({"complete": True, "hold_left_qu": 0}, JobState.SETTLED, Reason.COMPLETED),
        ({"hold_left_qu": 0}, JobState.FAILED, Reason.CAP_REACHED),
        ({"bad_attempts": ATTEMPTS_BAD_MAX}, JobState.FAILED, Reason.ATTEMPTS_EXHAUSTED),
        ({"bad_attempts": ATTEMPTS_BAD_MAX - 1}, JobState.QUEUED, Reason.WAITING_FOR_PROVIDER),
        ({"refusals": REFUSALS_MAX}, JobState.FAILED, Reason.BAD_INPUT),
        ({"refusals": REFUSALS_MAX - 1}, JobState.QUEUED, Reason.WAITING_FOR_PROVIDER),
        ({"closing": Reason.EXPIRED}, JobState.FAILED, Reason.EXPIRED),
        ({"closing": Reason.CANCELLED_BY_CONSUMER}, JobState.CANCELLED, Reason.CANCELLED_BY_CONSUMER),
    ],
)
def test_where_a_checked_job_goes(facts: dict[str, object], state: JobState, reason: Reason) -> None:
    decision = decide_job(JobFacts(JobState.VERIFYING, **facts), JobEvent.CHECKED)  # type: ignore[arg-type]
    assert (decision.state, decision.reason) == (state, reason)


def test_an_attempt_without_links_has_nothing_to_check() -> None:
    for event in (AttemptEvent.REPORT, AttemptEvent.LOST, AttemptEvent.STOP, AttemptEvent.DUE):
        assert decide_attempt(AttemptState.RUNNING, event, links=0).state is AttemptState.EMPTY
        assert decide_attempt(AttemptState.RUNNING, event, links=1).state is AttemptState.VERIFYING


def test_a_superseded_attempt_is_refused() -> None:
    for state in (AttemptState.VERIFYING, *FINAL_ATTEMPT_STATES):
        for event in (AttemptEvent.LINK, AttemptEvent.BEAT):
            assert decide_attempt(state, event, links=1).verb is Verb.REFUSE


def test_leases_pause_only_after_an_outage() -> None:
    assert rules.paused(0, 10_000_000) == 0
    assert rules.paused(10_000, 10_000 + rules.OUTAGE_MS) == 0
    assert rules.paused(10_000, 20_000) == 10_000


@given(
    st.lists(st.tuples(st.integers(0, 100), st.floats(0, 1)), max_size=20),
)
def test_progress_never_decreases(steps: list[tuple[int, float]]) -> None:
    """P7, whatever attempts come and go."""
    shown = 0.0
    for accepted, fraction in steps:
        following = rules.fraction(shown, 100, accepted, (100 - accepted) * fraction)
        assert shown <= following <= 1.0
        shown = following
