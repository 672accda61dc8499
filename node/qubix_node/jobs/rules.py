# SPDX-License-Identifier: Apache-2.0
"""What becomes of an attempt on this node: one Enum, one table, one pure `decide`. Times are steady milliseconds."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from qubix_protocol.messages import Assign, Device
from qubix_protocol.states import Outcome


class Phase(StrEnum):
    UNKNOWN = "unknown"
    RECEIVED = "received"
    """Accepted and in the journal; waits for its turn."""
    FETCHING = "fetching"
    RUNNING = "running"
    STOPPING = "stopping"
    """Told to stop; its worker is being killed."""
    REPORTED = "reported"
    FORGOTTEN = "forgotten"


ACTIVE: Final = frozenset({Phase.RECEIVED, Phase.FETCHING, Phase.RUNNING, Phase.STOPPING})


class Action(StrEnum):
    ACCEPT = "accept"
    DECLINE = "decline"
    START = "start"
    KILL = "kill"
    REPORT = "report"
    """Build, journal and send the report of `Attempt.verdict`."""
    RESEND = "resend"
    """Send the report that was made again."""
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the node says of its own attempt. `code` is empty when it completed."""

    outcome: Outcome
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    phase: Phase = Phase.UNKNOWN
    fence: int = 0
    deadline_ms: int = 0
    verdict: Verdict | None = None
    settled: bool = False
    """Nobody waits for its report."""


# Events -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Assigned:
    """`obstacle` is why this node cannot take it now ("" when it can), found by `obstacle`."""

    fence: int
    time_limit_ms: int
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class Cancelled:
    fence: int


@dataclass(frozen=True, slots=True)
class Began:
    """Its turn has come: inputs are fetched."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """All inputs are here, the worker starts."""


@dataclass(frozen=True, slots=True)
class Completed:
    """Every unit has its link."""


@dataclass(frozen=True, slots=True)
class Failed:
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed; nothing else."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """The node came up and found this attempt in its journal, without a report."""


@dataclass(frozen=True, slots=True)
class Quitting:
    """The node is asked to stop."""


@dataclass(frozen=True, slots=True)
class DeviceLost:
    """The device under it is gone, or does not answer."""

    reason: str


@dataclass(frozen=True, slots=True)
class ReportAcknowledged:
    """The report is durable at the coordinator."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The coordinator has decided: nothing we say changes it."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A link or report was sent many times in live sessions and never acknowledged: nobody wants it."""


Event = (
    Assigned
    | Cancelled
    | Began
    | Fetched
    | Completed
    | Failed
    | Ticked
    | Restarted
    | Quitting
    | DeviceLost
    | ReportAcknowledged
    | Settled
    | Unanswered
)
EVENTS: Final[tuple[type[Event], ...]] = (
    Assigned,
    Cancelled,
    Began,
    Fetched,
    Completed,
    Failed,
    Ticked,
    Restarted,
    Quitting,
    DeviceLost,
    ReportAcknowledged,
    Settled,
    Unanswered,
)


@dataclass(frozen=True, slots=True)
class Decision:
    """The attempt from now on, and what to do about it, in this order. `reason` goes with a decline."""

    attempt: Attempt
    actions: tuple[Action, ...] = ()
    reason: str = ""


Rule = Callable[[Attempt, Event, int], Decision]


def decide(attempt: Attempt, event: Event, now_ms: int) -> Decision:
    """Every phase and event has an answer; most answer that nothing changes."""
    return TABLE[attempt.phase, type(event)](attempt, event, now_ms)


# Rules --------------------------------------------------------------------------------------------------------------


def _nothing(attempt: Attempt, event: Event, now_ms: int) -> Decision:
    return Decision(attempt)


def _admit(attempt: Attempt, event: Event, now_ms: int) -> Decision:
    assert isinstance(event, Assigned)
    if event.obstacle:
        return Decision(attempt, (Action.DECLINE,), event.obstacle)
    new = Attempt(Phase.RECEIVED, event.fence, now_ms + event.time_limit_ms)
    return Decision(new, (Action.ACCEPT, Action.START))


def _again(known: tuple[Action, ...], reason: str = "") -> Rule:
    """The assignment of a known attempt came again: the same fence gets the same answer, a lower one is old news, a
    higher one contradicts what was signed before."""

    def rule(attempt: Attempt, event: Event, now_ms: int) -> Decision:
        assert isinstance(event, Assigned)
        if event.fence > attempt.fence:
            return Decision(attempt, (Action.DECLINE,), "fence_conflict")
        return Decision(attempt, known, reason) if event.fence == attempt.fence else Decision(attempt)

    return rule


def _cancel(attempt: Attempt, event: Event, now_ms: int) -> Decision:
    assert isinstance(event, Cancelled)
    if event.fence < attempt.fence:
        return Decision(attempt)
    return _stop(attempt, Verdict(Outcome.CANCELLED))


def _cancel_late(attempt: Attempt, event: Event, now_ms: int) -> Decision:
    return Decision(attempt, (Action.RESEND,))


def _stop(attempt: Attempt, verdict: Verdict) -> Decision:
    return Decision(replace(attempt, phase=Phase.STOPPING, verdict=verdict), (Action.KILL,))


def _move(phase: Phase) -> Rule:
    def rule(attempt: Attempt, event: Event, now_ms: int) -> Decision:
        return Decision(replace(attempt, phase=phase))

    return rule


def _complete(attempt: Attempt, event: Event, now_ms: int) -> Decision:
    return _report(attempt, Verdict(Outcome.COMPLETED))


def _fail(attempt: Attempt, event: Event, now_ms: int) -> Decision:
    assert isinstance(event, Failed)
    return _report(attempt, Verdict(Outcome.FAILED, event.code, event.detail))


def _stopped(attempt: Attempt, event: Event, now_ms: int) -> Decision:
    """However the runner ended: what it was told to stop for is what is reported."""
    if attempt.settled:
        return _forget(attempt, event, now_ms)
    return _report(attempt, attempt.verdict or Verdict(Outcome.CANCELLED))


def _restarted(attempt: Attempt, event: Event, now_ms: int) -> Decision:
    detail = "the node stopped in the middle and has started again"
    return _report(attempt, Verdict(Outcome.FAILED, "restarted", detail))


def _report(attempt: Attempt, verdict: Verdict) -> Decision:
    return Decision(replace(attempt, phase=Phase.REPORTED, verdict=verdict), (Action.REPORT,))


def _tick(attempt: Attempt, event: Event, now_ms: int) -> Decision:
    if now_ms < attempt.deadline_ms:
        return Decision(attempt)
    return _stop(attempt, Verdict(Outcome.FAILED, "overdue", "the time limit of the assignment has passed"))


def _quit(attempt: Attempt, event: Event, now_ms: int) -> Decision:
    return _stop(attempt, Verdict(Outcome.FAILED, "node_stopped", "the provider has stopped its node"))


def _lost(attempt: Attempt, event: Event, now_ms: int) -> Decision:
    assert isinstance(event, DeviceLost)
    return _stop(attempt, Verdict(Outcome.FAILED, "device_lost", event.reason))


def _forget(attempt: Attempt, event: Event, now_ms: int) -> Decision:
    return Decision(replace(attempt, phase=Phase.FORGOTTEN), (Action.FORGET,))


def _drop(attempt: Attempt, event: Event, now_ms: int) -> Decision:
    """Over without us: stop; nobody waits for a report."""
    return _stop(replace(attempt, settled=True), Verdict(Outcome.CANCELLED))


def _move_settled(attempt: Attempt, event: Event, now_ms: int) -> Decision:
    return Decision(replace(attempt, settled=True))


def _table() -> dict[tuple[Phase, type[Event]], Rule]:
    table: dict[tuple[Phase, type[Event]], Rule] = {(p, e): _nothing for p in Phase for e in EVENTS}
    for phase in (Phase.RECEIVED, Phase.FETCHING, Phase.RUNNING):
        table[phase, Assigned] = _again((Action.ACCEPT,))
        table[phase, Cancelled] = _cancel
        table[phase, Failed] = _fail
        table[phase, Ticked] = _tick
        table[phase, Restarted] = _restarted
        table[phase, Quitting] = _quit
        table[phase, DeviceLost] = _lost
        table[phase, Settled] = _drop
        table[phase, Unanswered] = _drop
    table |= {
        (Phase.UNKNOWN, Assigned): _admit,
        (Phase.RECEIVED, Began): _move(Phase.FETCHING),
        (Phase.FETCHING, Fetched): _move(Phase.RUNNING),
        (Phase.RUNNING, Completed): _complete,
        (Phase.STOPPING, Assigned): _again(()),
        (Phase.STOPPING, Completed): _stopped,
        (Phase.STOPPING, Failed): _stopped,
        (Phase.STOPPING, Restarted): _restarted,
        (Phase.STOPPING, Settled): _move_settled,
        (Phase.STOPPING, Unanswered): _move_settled,
        (Phase.REPORTED, Assigned): _again((Action.RESEND,)),
        (Phase.REPORTED, Cancelled): _cancel_late,
        (Phase.REPORTED, ReportAcknowledged): _forget,
        (Phase.REPORTED, Settled): _forget,
        (Phase.REPORTED, Unanswered): _forget,
        (Phase.FORGOTTEN, Assigned): _again((Action.DECLINE,), "already_done"),
    }
    return table


TABLE: Final = _table()


# Admission ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Facts:
    """What the node knows of itself when an assignment comes. Disk figures are bytes; `need` is of this job."""

    devices: tuple[Device, ...]
    kernels: Mapping[str, tuple[int, tuple[str, ...]]]
    """Name → (version, back ends)."""
    rate_qu_per_h: int
    jobs_parallel: int
    busy: int
    """Active attempts on the device in question."""
    fence_max: int
    """Of this job's attempts that were here before."""
    draining: bool
    bad_form: str
    """What the kernel says against the job's form; "" when nothing."""
    need_disk_bytes: int
    free_disk_bytes: int
    need_memory_bytes: int = 0
    """On the card, for the first chunk."""
    free_memory_bytes: int | None = None
    """On the card when nothing of ours ran there; None: not told, or no card."""
    rental: str | None = None
    """Which rental has the device."""
    closing: bool = False
    """Maintenance is announced: only the jobs of rentals go on."""


def obstacle(assign: Assign, facts: Facts) -> str:
    """Why this node cannot take the assignment now; "" when it can. One word a cause."""
    device = next((device for device in facts.devices if device.device_id == assign.device_id), None)
    version, backends = facts.kernels.get(assign.kernel, (0, ()))
    tests = (
        ("draining", facts.draining or (facts.closing and assign.rental is None)),
        ("unknown_device", device is None),
        ("rented", facts.rental is not None and assign.rental != facts.rental),
        ("not_rented", facts.rental is None and assign.rental is not None),
        ("unknown_kernel", not version),
        ("kernel_version", version != assign.kernel_version),
        ("backend", assign.backend not in backends or device is None or assign.backend not in device.backends),
        ("price", assign.rental is None and assign.rate_qu_per_h < facts.rate_qu_per_h),
        ("bad_ranges", not _well_ordered(assign)),
        ("bad_input", bool(facts.bad_form)),
        ("old_fence", assign.fence < facts.fence_max),
        ("busy", facts.busy >= facts.jobs_parallel),
        ("disk", facts.need_disk_bytes > facts.free_disk_bytes),
        ("memory", facts.free_memory_bytes is not None and facts.need_memory_bytes > facts.free_memory_bytes),
    )
    return next((name for name, bad in tests if bad), "")


def _well_ordered(assign: Assign) -> bool:
    """Ranges rise, do not overlap and stay within the job."""
    end = 0
    for part in assign.ranges:
        if not end <= part.start < part.stop <= assign.units_total:
            return False
        end = part.stop
    return True


def fraction(units_done: int, ranges: Iterable[tuple[int, int]]) -> float:
    """Of this attempt's own units, 0–1."""
    total = sum(stop - start for start, stop in ranges)
    return min(1.0, units_done / total) if total else 1.0
