# SPDX-License-Identifier: Apache-2.0
"""Every state × event of jobs and attempts is decided, every open state has a deadline with a default outcome."""

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

OPEN_JOB_STATES = [state for state in JobState if state not in FINAL_JOB_STATES]
OPEN_ATTEMPT_STATES = [state for state in AttemptState if state not in FINAL_ATTEMPT_STATES]


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("event", JobEvent)
def test_every_job_state_decides_every_event(state: JobState, event: JobEvent) -> None:
    decision = decide_job(JobFacts(state), event)
    assert decision.verb in Verb
    if decision.verb is not Verb.APPLY:
        assert decision.state is state


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


@pytest.mark.parametrize("state", OPEN_JOB_STATES)
def test_every_open_job_ends_when_it_expires(state: JobState) -> None:
    """Its deadline ends it at once, or as soon as the attempt in hand was stopped or checked."""
    decision = decide_job(JobFacts(state), JobEvent.EXPIRE)
    assert decision.verb is Verb.APPLY
    if decision.state is JobState.FAILED:
        assert decision.reason is Reason.EXPIRED
        return
    assert decision.closing is Reason.EXPIRED
    next_event = JobEvent.CHECKED if state is JobState.VERIFYING else JobEvent.EMPTIED
    assert decision.stop_attempt == (state is not JobState.VERIFYING)
    ended = decide_job(JobFacts(state, closing=decision.closing), next_event)
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.EXPIRED)


@pytest.mark.parametrize("state", OPEN_ATTEMPT_STATES)
def test_every_open_attempt_has_a_default_outcome(state: AttemptState) -> None:
    for links in (0, 2):
        decision = decide_attempt(state, AttemptEvent.DUE, links=links)
        assert decision.verb is Verb.APPLY
        assert decision.state is not state


def test_each_deadline_has_its_reason() -> None:
    assert rules.due_reason(AttemptState.OFFERED, limit_ms=None, now_ms=5) is Reason.NOT_ACCEPTED_IN_TIME
    assert rules.due_reason(AttemptState.RUNNING, limit_ms=9, now_ms=5) is Reason.SILENT
    assert rules.due_reason(AttemptState.RUNNING, limit_ms=5, now_ms=5) is Reason.OVERDUE
    assert rules.due_reason(AttemptState.VERIFYING, limit_ms=5, now_ms=5) is Reason.CHECK_FAILED


def test_a_reported_result_beats_a_later_cancel() -> None:
    """trust.md M4."""
    reported = JobFacts(JobState.VERIFYING, reported_all=True)
    assert decide_job(reported, JobEvent.CANCEL).verb is Verb.REFUSE
    partial = decide_job(JobFacts(JobState.VERIFYING), JobEvent.CANCEL)
    assert (partial.verb, partial.closing) == (Verb.APPLY, Reason.CANCELLED_BY_CONSUMER)
    complete = JobFacts(JobState.VERIFYING, complete=True, closing=partial.closing)
    assert decide_job(complete, JobEvent.CHECKED).state is JobState.SETTLED


def test_cancelling_stops_the_attempt_first() -> None:
    for state in (JobState.ASSIGNED, JobState.RUNNING):
        decision = decide_job(JobFacts(state), JobEvent.CANCEL)
        assert decision.stop_attempt
        assert decision.state is state
    assert decide_job(JobFacts(JobState.QUEUED), JobEvent.CANCEL).state is JobState.CANCELLED
    assert decide_job(JobFacts(JobState.CANCELLED), JobEvent.CANCEL).verb is Verb.IGNORE


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
        following = rules.fraction(shown, 100, accepted, 100 - accepted, fraction)
        assert shown <= following <= 1.0
        shown = following
