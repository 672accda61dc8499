# SPDX-License-Identifier: Apache-2.0
"""Every phase × event of an attempt on the node is decided, and decided sensibly."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_node.jobs import rules
from qubix_node.jobs.rules import Action, Attempt, Facts, Phase, Verdict, decide
from qubix_protocol.messages import Assign, Device, Range
from qubix_protocol.states import DeviceKind, Outcome

NOW, FENCE = 1_000, 5
VERDICT = Verdict(Outcome.CANCELLED)
EVENTS: list[rules.Event] = [
    rules.Assigned(FENCE, 60_000),
    rules.Assigned(FENCE, 60_000, "busy"),
    rules.Assigned(FENCE - 1, 60_000),
    rules.Assigned(FENCE + 1, 60_000),
    rules.Cancelled(FENCE),
    rules.Cancelled(FENCE - 1),
    rules.Began(),
    rules.Fetched(),
    rules.Completed(),
    rules.Failed("code", "detail"),
    rules.Ticked(),
    rules.Restarted(),
    rules.Quitting(),
    rules.DeviceLost("it fell off the bus"),
    rules.ReportAcknowledged(),
    rules.Settled(),
    rules.Unanswered(),
]
ALLOWED = {
    Phase.UNKNOWN: {Phase.UNKNOWN, Phase.RECEIVED},
    Phase.RECEIVED: {Phase.RECEIVED, Phase.FETCHING, Phase.STOPPING, Phase.REPORTED},
    Phase.FETCHING: {Phase.FETCHING, Phase.RUNNING, Phase.STOPPING, Phase.REPORTED},
    Phase.RUNNING: {Phase.RUNNING, Phase.STOPPING, Phase.REPORTED},
    Phase.STOPPING: {Phase.STOPPING, Phase.REPORTED, Phase.FORGOTTEN},
    Phase.REPORTED: {Phase.REPORTED, Phase.FORGOTTEN},
    Phase.FORGOTTEN: {Phase.FORGOTTEN},
}


def at(phase: Phase, **changed: object) -> Attempt:
    stopping = VERDICT if phase is Phase.STOPPING else None
    return replace(Attempt(phase, FENCE, NOW + 60_000, stopping), **changed)  # type: ignore[arg-type]


def test_every_kind_of_event_is_walked() -> None:
    assert {type(event) for event in EVENTS} == set(rules.EVENTS)
    assert set(rules.TABLE) == set(itertools.product(Phase, rules.EVENTS))


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_phase_by_event(phase: Phase, event: rules.Event) -> None:
    decision = decide(at(phase), event, NOW)
    after = decision.attempt
    assert after.phase in ALLOWED[phase]
    assert (Action.REPORT in decision.actions) == (phase is not Phase.REPORTED and after.phase is Phase.REPORTED)
    assert (Action.FORGET in decision.actions) == (phase is not Phase.FORGOTTEN and after.phase is Phase.FORGOTTEN)
    assert (Action.KILL in decision.actions) == (phase is not Phase.STOPPING and after.phase is Phase.STOPPING)
    assert (Action.START in decision.actions) == (phase is Phase.UNKNOWN and after.phase is Phase.RECEIVED)
    assert bool(decision.reason) == (Action.DECLINE in decision.actions)
    if Action.REPORT in decision.actions:
        assert after.verdict is not None
    assert after.fence in (FENCE, decide(at(phase), event, NOW).attempt.fence), "a decision is repeatable"


def test_the_usual_way() -> None:
    attempt, seen = Attempt(), []
    for event in (
        rules.Assigned(FENCE, 60_000),
        rules.Began(),
        rules.Fetched(),
        rules.Completed(),
        rules.ReportAcknowledged(),
    ):
        decision = decide(attempt, event, NOW)
        attempt = decision.attempt
        seen.append((attempt.phase, decision.actions))
    assert seen == [
        (Phase.RECEIVED, (Action.ACCEPT, Action.START)),
        (Phase.FETCHING, ()),
        (Phase.RUNNING, ()),
        (Phase.REPORTED, (Action.REPORT,)),
        (Phase.FORGOTTEN, (Action.FORGET,)),
    ]
    assert attempt.verdict == Verdict(Outcome.COMPLETED)


@pytest.mark.parametrize("phase", [Phase.RECEIVED, Phase.FETCHING, Phase.RUNNING])
def test_an_assignment_that_comes_again_changes_nothing(phase: Phase) -> None:
    again = decide(at(phase), rules.Assigned(FENCE, 60_000), NOW)
    assert (again.attempt, again.actions) == (at(phase), (Action.ACCEPT,))
    assert decide(at(phase), rules.Assigned(FENCE - 1, 60_000), NOW).actions == ()
    assert decide(at(phase), rules.Assigned(FENCE + 1, 60_000), NOW).reason == "fence_conflict"


def test_a_finished_attempt_never_runs_again() -> None:
    decision = decide(at(Phase.FORGOTTEN), rules.Assigned(FENCE, 60_000), NOW)
    assert (decision.actions, decision.reason) == ((Action.DECLINE,), "already_done")
    assert decide(at(Phase.REPORTED), rules.Assigned(FENCE, 60_000), NOW).actions == (Action.RESEND,)


@pytest.mark.parametrize("phase", [Phase.RECEIVED, Phase.FETCHING, Phase.RUNNING])
def test_the_deadline_kills_not_a_moment_earlier(phase: Phase) -> None:
    attempt = at(phase, deadline_ms=NOW)
    assert decide(attempt, rules.Ticked(), NOW - 1).actions == ()
    late = decide(attempt, rules.Ticked(), NOW)
    assert late.actions == (Action.KILL,)
    ended = decide(late.attempt, rules.Failed("stopped", ""), NOW)
    assert ended.attempt.verdict is not None
    assert (ended.attempt.verdict.outcome, ended.attempt.verdict.code) == (Outcome.FAILED, "overdue")


@pytest.mark.parametrize("phase", [Phase.RECEIVED, Phase.FETCHING, Phase.RUNNING])
def test_an_attempt_whose_device_is_lost_is_killed_and_reported_as_that(phase: Phase) -> None:
    lost = decide(at(phase), rules.DeviceLost("Xid 79"), NOW)
    assert lost.actions == (Action.KILL,)
    ended = decide(lost.attempt, rules.Failed("worker_lost", "it was killed"), NOW)
    assert ended.attempt.verdict == Verdict(Outcome.FAILED, "device_lost", "Xid 79")
    assert decide(at(Phase.REPORTED), rules.DeviceLost("Xid 79"), NOW).actions == ()


def test_a_cancelled_attempt_is_reported_cancelled_however_its_run_ended() -> None:
    stopping = decide(at(Phase.RUNNING), rules.Cancelled(FENCE), NOW).attempt
    for end in (rules.Completed(), rules.Failed("worker_lost", "")):
        assert decide(stopping, end, NOW).attempt.verdict == Verdict(Outcome.CANCELLED)


def test_a_settled_attempt_is_dropped_without_a_report() -> None:
    dropped = decide(at(Phase.RUNNING), rules.Settled(), NOW)
    assert dropped.actions == (Action.KILL,)
    assert decide(dropped.attempt, rules.Failed("stopped", ""), NOW).actions == (Action.FORGET,)


@given(st.lists(st.sampled_from(EVENTS), max_size=30), st.integers(0, 200_000))
def test_no_order_of_events_reports_or_starts_twice(events: list[rules.Event], step_ms: int) -> None:
    attempt, done, now = Attempt(), [], 0
    for event in events:
        now += step_ms
        decision = decide(attempt, event, now)
        attempt = decision.attempt
        done += decision.actions
    for action in (Action.START, Action.REPORT, Action.FORGET, Action.KILL):
        assert done.count(action) <= 1


# Admission ----------------------------------------------------------------------------------------------------------

CPU = Device(device_id="cpu-1", kind=DeviceKind.CPU, model="m", memory_bytes=1, backends=("cpu",))
ASSIGN = Assign(
    job_id="00000000-0000-0000-0000-000000000001",
    attempt_id="00000000-0000-0000-0000-000000000002",
    fence=FENCE,
    device_id="cpu-1",
    backend="cpu",
    kernel="matmul",
    kernel_version=1,
    params={},
    inputs=(),
    units_total=10,
    ranges=(Range(0, 4), Range(6, 10)),
    chunk_units=1,
    time_limit_ms=60_000,
    rate_qu_per_h=100,
    offer_digest=bytes(32),
)
RENTAL = "00000000-0000-0000-0000-00000000000a"
FACTS = Facts(
    devices=(CPU,),
    kernels={"matmul": (1, ("cpu", "cuda"))},
    rate_qu_per_h=100,
    jobs_parallel=1,
    busy=0,
    fence_max=0,
    draining=False,
    bad_form="",
    need_disk_bytes=10,
    free_disk_bytes=10,
)


def test_what_fits_is_taken() -> None:
    assert rules.obstacle(ASSIGN, FACTS) == ""


@pytest.mark.parametrize(
    ("changed", "facts", "expected"),
    [
        ({}, {"draining": True}, "draining"),
        ({"device_id": "gpu-9"}, {}, "unknown_device"),
        ({"kernel": "nbody"}, {}, "unknown_kernel"),
        ({"kernel_version": 2}, {}, "kernel_version"),
        ({"backend": "cuda"}, {}, "backend"),
        ({"backend": "wgsl"}, {}, "backend"),
        ({"rate_qu_per_h": 99}, {}, "price"),
        ({"ranges": (Range(4, 6), Range(0, 4))}, {}, "bad_ranges"),
        ({"ranges": (Range(0, 4), Range(3, 6))}, {}, "bad_ranges"),
        ({"ranges": (Range(3, 3),)}, {}, "bad_ranges"),
        ({"ranges": (Range(0, 11),)}, {}, "bad_ranges"),
        ({}, {"bad_form": "inputs.a is missing"}, "bad_input"),
        ({}, {"fence_max": FENCE + 1}, "old_fence"),
        ({}, {"busy": 1}, "busy"),
        ({}, {"need_disk_bytes": 11}, "disk"),
        ({}, {"need_memory_bytes": 11, "free_memory_bytes": 10}, "memory"),
        ({}, {"need_memory_bytes": 10, "free_memory_bytes": 10}, ""),
        ({}, {"need_memory_bytes": 11, "free_memory_bytes": None}, ""),
        ({}, {"rental": RENTAL}, "rented"),
        ({"rental": RENTAL}, {}, "not_rented"),
        ({"rental": RENTAL}, {"rental": RENTAL.replace("a", "b")}, "rented"),
        ({"rental": RENTAL, "rate_qu_per_h": 0}, {"rental": RENTAL, "closing": True}, ""),
        ({"rental": RENTAL}, {"rental": RENTAL, "draining": True}, "draining"),
        ({}, {"closing": True}, "draining"),
    ],
)
def test_what_does_not_fit_is_declined_by_its_reason(
    changed: dict[str, object], facts: dict[str, object], expected: str
) -> None:
    import msgspec

    assign = msgspec.structs.replace(ASSIGN, **changed)
    assert rules.obstacle(assign, replace(FACTS, **facts)) == expected  # type: ignore[arg-type]
