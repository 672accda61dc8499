# SPDX-License-Identifier: Apache-2.0
"""The two state machines: a job, and one node's attempt at it. Pure; every state × event is decided in a table.

A job is in the hands of one attempt or of several, each with units of its own. An attempt ends on the node's side
(reported, silent, overdue, stopped) and then waits for its check; its units stay its own until the verdict decides what
is paid, and which of them wait for somebody else.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final

from qubix_protocol.states import AttemptState, JobState, Reason

ACCEPT_MS: Final = 5_000
"""How long a node has to answer an assignment."""
CHECK_MS: Final = 120_000
"""How long verifiers have for a check, beside twice the run's forecast."""
SAY_WHY_MS: Final = 30_000
"""A job that found nobody for this long says why (P6)."""
MATCH_AGAIN_MS: Final = 1_000
MATCH_AGAIN_MS_MAX: Final = 5_000
WAIT_AGAIN_MS: Final = 100
"""For a job whose providers are only busy while others are free."""
ATTEMPTS_BAD_MAX: Final = 5
REFUSALS_MAX: Final = 2
"""So many providers' word that the input cannot be computed with ends a job: nobody gains by saying so, and the second
is another provider where there is one."""
TIME_LIMIT_BASE_MS: Final = 60_000
TIME_LIMIT_FACTOR: Final = 4
FETCH_BYTES_PER_MS: Final = 1_000
"""The slowest connection that inputs may come over: 1 MB/s."""
RESEND_MS: Final = 1_000
OUTAGE_MS: Final = 3_000
"""No coordinator ticked for longer than this: leases were not running meanwhile."""


class Verb(Enum):
    """What to do with an event."""

    APPLY = auto()
    IGNORE = auto()
    """Known already, or of no consequence; answered as if it were news."""
    REFUSE = auto()


class JobEvent(StrEnum):
    ASSIGN = "assign"
    START = "start"
    EMPTIED = "emptied"
    """An attempt ended with nothing to check."""
    HANDED_IN = "handed_in"
    """An attempt ended; its links are to be checked."""
    CHECKED = "checked"
    CANCEL = "cancel"
    EXPIRE = "expire"
    ACCEPT = "accept"
    """The consumer's word that what was delivered is right."""
    WINDOW_ENDED = "window_ended"
    """Nobody disputed what was delivered in time."""
    DISPUTE = "dispute"
    RESOLVE = "resolve"
    """The last dispute about what was delivered is decided."""
    RENTAL_OVER = "rental_over"
    """The rental that the job runs on has ended."""
    REFUTED = "refuted"
    """A spot check found that what an attempt delivered is wrong: its units are nobody's again."""


@dataclass(frozen=True, slots=True)
class Hands:
    """A job's open attempts, counted by state."""

    offered: int = 0
    running: int = 0
    verifying: int = 0

    @property
    def live(self) -> int:
        return self.offered + self.running

    @property
    def open(self) -> int:
        return self.live + self.verifying

    @property
    def state(self) -> JobState:
        """What the job shows: that somebody works on it, else that somebody is about to, else that it is checked."""
        if self.running:
            return JobState.RUNNING
        if self.offered:
            return JobState.ASSIGNED
        return JobState.VERIFYING if self.verifying else JobState.QUEUED


@dataclass(frozen=True, slots=True)
class JobFacts:
    """`hands` are counted with the attempt that the event is about, as the event has left it."""

    state: JobState
    hands: Hands = Hands()
    hands_max: int = 1
    complete: bool = False
    """Every unit is accepted (and paid)."""
    reported_all: bool = False
    """The attempts in hand have committed reports that cover all that was left."""
    hold_left_qu: int = 1
    bad_attempts: int = 0
    owed_qu: int = 0
    """For what was delivered and waits for acceptance (of kernels without a verifier alone)."""
    refusals: int = 0
    """Attempts that ended with BAD_INPUT."""
    closing: Reason | None = None


@dataclass(frozen=True, slots=True)
class JobDecision:
    """`stop_hands`: the live attempts must end first; what they made is checked and paid."""

    verb: Verb
    state: JobState
    reason: Reason = Reason.NONE
    closing: Reason | None = None
    stop_hands: bool = False


class _Then(Enum):
    """What a table entry says where the state alone does not decide."""

    FOLLOW = auto()
    """The state that the hands show."""
    GO_ON = auto()
    """Settled, or on with the hands that are left, or queued again for the rest, or ended, by the facts."""
    CLOSE = auto()
    """Stop the live attempts; the job ends when the last one is checked."""
    CLOSE_UNLESS_REPORTED = auto()
    """As above, but a result that is here already beats a later cancel (trust.md M4)."""
    END = auto()
    PAY = auto()
    """What is owed is paid; the job ends as it was to end."""
    CONTEST = auto()
    RESOLVED = auto()


_J, _E = JobState, JobEvent
_FINAL_ROW: Final[dict[JobEvent, Verb | _Then]] = {
    _E.ASSIGN: Verb.REFUSE,
    _E.START: Verb.REFUSE,
    _E.EMPTIED: Verb.REFUSE,
    _E.HANDED_IN: Verb.REFUSE,
    _E.CHECKED: Verb.REFUSE,
    _E.CANCEL: Verb.REFUSE,
    _E.EXPIRE: Verb.IGNORE,
    # Said again, or too late to matter.
    _E.ACCEPT: Verb.IGNORE,
    _E.WINDOW_ENDED: Verb.IGNORE,
    _E.RENTAL_OVER: Verb.IGNORE,
    # What is paid may still be disputed; the job itself stays as it ended (see disputes/).
    _E.DISPUTE: Verb.REFUSE,
    _E.RESOLVE: Verb.REFUSE,
    _E.REFUTED: Verb.IGNORE,
}
_NOT_DELIVERED: Final[dict[JobEvent, Verb | _Then]] = {
    _E.ACCEPT: Verb.REFUSE,
    _E.WINDOW_ENDED: Verb.IGNORE,
    _E.DISPUTE: Verb.REFUSE,
    _E.RESOLVE: Verb.REFUSE,
}
_NOBODY_WORKS: Final[dict[JobEvent, Verb | _Then]] = {
    _E.ASSIGN: Verb.REFUSE,
    _E.START: Verb.REFUSE,
    _E.EMPTIED: Verb.REFUSE,
    _E.HANDED_IN: Verb.REFUSE,
    _E.CHECKED: Verb.REFUSE,
    # Committed outputs beat a later cancel (trust.md M4): they are accepted or disputed.
    _E.CANCEL: Verb.REFUSE,
    _E.EXPIRE: Verb.IGNORE,
    _E.RENTAL_OVER: Verb.IGNORE,
}
JOB_TABLE: Final[dict[JobState, dict[JobEvent, Verb | _Then]]] = {
    _J.QUEUED: {
        _E.ASSIGN: _Then.FOLLOW,
        _E.START: Verb.REFUSE,
        _E.EMPTIED: Verb.REFUSE,
        _E.HANDED_IN: Verb.REFUSE,
        _E.CHECKED: Verb.REFUSE,
        _E.CANCEL: _Then.END,
        _E.EXPIRE: _Then.END,
        **_NOT_DELIVERED,
        _E.RENTAL_OVER: _Then.END,
        _E.REFUTED: _Then.GO_ON,
    },
    # Nobody works yet; what earlier hands made may be in check.
    _J.ASSIGNED: {
        _E.ASSIGN: _Then.FOLLOW,
        _E.START: _Then.FOLLOW,
        _E.EMPTIED: _Then.GO_ON,
        _E.HANDED_IN: Verb.REFUSE,
        _E.CHECKED: _Then.GO_ON,
        _E.CANCEL: _Then.CLOSE,
        _E.EXPIRE: _Then.CLOSE,
        **_NOT_DELIVERED,
        _E.RENTAL_OVER: _Then.CLOSE,
        _E.REFUTED: _Then.GO_ON,
    },
    _J.RUNNING: {
        _E.ASSIGN: _Then.FOLLOW,
        _E.START: Verb.IGNORE,
        _E.EMPTIED: _Then.GO_ON,
        _E.HANDED_IN: _Then.FOLLOW,
        _E.CHECKED: _Then.GO_ON,
        _E.CANCEL: _Then.CLOSE,
        _E.EXPIRE: _Then.CLOSE,
        **_NOT_DELIVERED,
        _E.RENTAL_OVER: _Then.CLOSE,
        _E.REFUTED: _Then.GO_ON,
    },
    # Nobody works any more; units that wait may still be given to somebody.
    _J.VERIFYING: {
        _E.ASSIGN: _Then.FOLLOW,
        _E.START: Verb.IGNORE,
        _E.EMPTIED: Verb.REFUSE,
        _E.HANDED_IN: Verb.IGNORE,
        _E.CHECKED: _Then.GO_ON,
        _E.CANCEL: _Then.CLOSE_UNLESS_REPORTED,
        _E.EXPIRE: _Then.CLOSE,
        _E.RENTAL_OVER: _Then.CLOSE,
        **_NOT_DELIVERED,
        _E.REFUTED: _Then.GO_ON,
    },
    _J.DELIVERED: {
        **_NOBODY_WORKS,
        _E.ACCEPT: _Then.PAY,
        _E.WINDOW_ENDED: _Then.PAY,
        _E.DISPUTE: _Then.CONTEST,
        _E.RESOLVE: Verb.REFUSE,
        _E.REFUTED: _Then.GO_ON,
    },
    _J.DISPUTED: {
        **_NOBODY_WORKS,
        _E.ACCEPT: Verb.REFUSE,
        _E.WINDOW_ENDED: Verb.IGNORE,
        # Of another attempt: a job has as many disputes as attempts.
        _E.DISPUTE: _Then.CONTEST,
        _E.RESOLVE: _Then.RESOLVED,
        # What is disputed is decided there.
        _E.REFUTED: Verb.IGNORE,
    },
    _J.SETTLED: _FINAL_ROW,
    _J.RESOLVED: _FINAL_ROW,
    _J.FAILED: _FINAL_ROW,
    _J.CANCELLED: {**_FINAL_ROW, _E.CANCEL: Verb.IGNORE},
}
_PAID: Final = {JobEvent.ACCEPT: Reason.ACCEPTED_BY_CONSUMER, JobEvent.WINDOW_ENDED: Reason.NOT_DISPUTED}
_CLOSING: Final = {
    JobEvent.CANCEL: Reason.CANCELLED_BY_CONSUMER,
    JobEvent.EXPIRE: Reason.EXPIRED,
    JobEvent.RENTAL_OVER: Reason.RENTAL_ENDED,
}


def decide_job(facts: JobFacts, event: JobEvent) -> JobDecision:
    then = JOB_TABLE[facts.state][event]
    if isinstance(then, Verb):
        return JobDecision(then, facts.state, closing=facts.closing)
    if then is _Then.END:
        return _ended(_CLOSING[event], facts)
    if then is _Then.PAY:
        return _ended(facts.closing) if facts.closing else JobDecision(Verb.APPLY, JobState.SETTLED, _PAID[event])
    if then is _Then.CONTEST:
        return JobDecision(Verb.APPLY, JobState.DISPUTED, Reason.DISPUTE_OPENED, facts.closing)
    if then is _Then.RESOLVED:
        return JobDecision(Verb.APPLY, JobState.RESOLVED, Reason.DISPUTE_DECIDED)
    if then is _Then.GO_ON:
        return _go_on(facts)
    beaten = then is _Then.CLOSE_UNLESS_REPORTED and facts.reported_all
    if beaten or (event is JobEvent.ASSIGN and facts.closing is not None):
        return JobDecision(Verb.REFUSE, facts.state, closing=facts.closing)
    if then is _Then.FOLLOW:
        return JobDecision(Verb.APPLY, facts.hands.state, facts.closing or Reason.NONE, facts.closing)
    # The first reason to close stands: a consumer who cancelled is not told later that the job expired.
    closing = facts.closing or _CLOSING[event]
    return JobDecision(Verb.APPLY, facts.state, closing, closing, stop_hands=facts.hands.live > 0)


def _go_on(facts: JobFacts) -> JobDecision:
    if facts.complete:
        if facts.owed_qu:
            return JobDecision(Verb.APPLY, JobState.DELIVERED, Reason.AWAITING_ACCEPTANCE)
        return JobDecision(Verb.APPLY, JobState.SETTLED, Reason.COMPLETED)
    reason = facts.closing or _cannot_go_on(facts)
    if facts.hands.open:
        newly = reason is not None and facts.closing is None
        stop = newly and facts.hands.live > 0
        return JobDecision(Verb.APPLY, facts.hands.state, reason or Reason.NONE, reason, stop_hands=stop)
    if reason is not None:
        return _ended(reason, facts)
    return JobDecision(Verb.APPLY, JobState.QUEUED, Reason.WAITING_FOR_PROVIDER)


def _cannot_go_on(facts: JobFacts) -> Reason | None:
    """Why no further attempt is made. What other hands are still making is stopped then: it could not be completed."""
    if facts.hold_left_qu == 0:
        return Reason.CAP_REACHED
    if facts.refusals >= REFUSALS_MAX:
        return Reason.BAD_INPUT
    if facts.bad_attempts >= bad_attempts_max(facts.hands_max):
        return Reason.ATTEMPTS_EXHAUSTED
    return None


def bad_attempts_max(hands_max: int) -> int:
    """Of a job in several hands each may fail once more: their failures can come all at once."""
    return ATTEMPTS_BAD_MAX + hands_max - 1


def _ended(reason: Reason, facts: JobFacts | None = None) -> JobDecision:
    """Unless something was delivered, which is accepted or disputed first."""
    if facts is not None and facts.owed_qu:
        return JobDecision(Verb.APPLY, JobState.DELIVERED, reason, reason)
    state = JobState.CANCELLED if reason is Reason.CANCELLED_BY_CONSUMER else JobState.FAILED
    return JobDecision(Verb.APPLY, state, reason)


# Attempts -----------------------------------------------------------------------------------------------------------


class AttemptEvent(StrEnum):
    ACCEPT = "accept"
    DECLINE = "decline"
    BEAT = "beat"
    LINK = "link"
    REPORT = "report"
    LOST = "lost"
    """The node is back and no longer knows it."""
    STOP = "stop"
    """The job is cancelled or has expired."""
    DUE = "due"
    """The state's deadline passed: acceptance, lease or time limit, check."""
    PASSED = "passed"
    FAILED_CHECK = "failed_check"
    UNCHECKED = "unchecked"
    """The check could not be carried out."""
    FORMED = "formed"
    """What it made is of the right form, and there is no verifier to say more."""


class _Ends(Enum):
    """Verifying when there is something to check, else empty."""

    BY_LINKS = auto()


_A, _V = AttemptState, AttemptEvent
_OVER: Final[dict[AttemptEvent, AttemptState | Verb | _Ends]] = {
    _V.ACCEPT: Verb.REFUSE,
    _V.DECLINE: Verb.IGNORE,
    _V.BEAT: Verb.REFUSE,
    _V.LINK: Verb.REFUSE,
    # Kept as evidence and acknowledged, so that the node forgets it; never paid.
    _V.REPORT: Verb.IGNORE,
    _V.LOST: Verb.IGNORE,
    _V.STOP: Verb.IGNORE,
    _V.DUE: Verb.IGNORE,
    _V.PASSED: Verb.IGNORE,
    _V.FAILED_CHECK: Verb.IGNORE,
    _V.UNCHECKED: Verb.IGNORE,
    _V.FORMED: Verb.IGNORE,
}
ATTEMPT_TABLE: Final[dict[AttemptState, dict[AttemptEvent, AttemptState | Verb | _Ends]]] = {
    _A.OFFERED: {
        _V.ACCEPT: _A.RUNNING,
        _V.DECLINE: _A.EMPTY,
        # Whoever works on it has accepted it, even if that word was lost.
        _V.BEAT: _A.RUNNING,
        _V.LINK: _A.RUNNING,
        _V.REPORT: _Ends.BY_LINKS,
        # It never had it: the assignment is sent again.
        _V.LOST: Verb.IGNORE,
        _V.STOP: _A.EMPTY,
        _V.DUE: _A.EMPTY,
        _V.PASSED: Verb.REFUSE,
        _V.FAILED_CHECK: Verb.REFUSE,
        _V.UNCHECKED: Verb.REFUSE,
        _V.FORMED: Verb.REFUSE,
    },
    _A.RUNNING: {
        _V.ACCEPT: Verb.IGNORE,
        _V.DECLINE: _Ends.BY_LINKS,
        _V.BEAT: _A.RUNNING,
        _V.LINK: _A.RUNNING,
        _V.REPORT: _Ends.BY_LINKS,
        _V.LOST: _Ends.BY_LINKS,
        _V.STOP: _Ends.BY_LINKS,
        _V.DUE: _Ends.BY_LINKS,
        _V.PASSED: Verb.REFUSE,
        _V.FAILED_CHECK: Verb.REFUSE,
        _V.UNCHECKED: Verb.REFUSE,
        _V.FORMED: Verb.REFUSE,
    },
    _A.VERIFYING: {
        _V.ACCEPT: Verb.IGNORE,
        _V.DECLINE: Verb.IGNORE,
        _V.BEAT: Verb.REFUSE,
        _V.LINK: Verb.REFUSE,
        # The report of an attempt that was stopped: it completes the receipt when it speaks of the same chain.
        _V.REPORT: _A.VERIFYING,
        _V.LOST: Verb.IGNORE,
        _V.STOP: Verb.IGNORE,
        _V.DUE: _A.EMPTY,
        _V.PASSED: _A.ACCEPTED,
        _V.FAILED_CHECK: _A.REJECTED,
        _V.UNCHECKED: _A.EMPTY,
        _V.FORMED: _A.DELIVERED,
    },
    # The job's acceptance window runs; the consumer's word, its end or a decision passes or fails it.
    _A.DELIVERED: {**_OVER, _V.PASSED: _A.ACCEPTED, _V.FAILED_CHECK: _A.REJECTED},
    _A.ACCEPTED: _OVER,
    _A.REJECTED: _OVER,
    _A.EMPTY: _OVER,
}


@dataclass(frozen=True, slots=True)
class AttemptDecision:
    verb: Verb
    state: AttemptState


def decide_attempt(state: AttemptState, event: AttemptEvent, *, links: int) -> AttemptDecision:
    then = ATTEMPT_TABLE[state][event]
    if isinstance(then, Verb):
        return AttemptDecision(then, state)
    if then is _Ends.BY_LINKS:
        return AttemptDecision(Verb.APPLY, AttemptState.VERIFYING if links else AttemptState.EMPTY)
    assert isinstance(then, AttemptState)
    return AttemptDecision(Verb.APPLY, then)


BLAMELESS: Final = frozenset(
    {
        Reason.COMPLETED,
        Reason.CANCELLED_BY_CONSUMER,
        Reason.EXPIRED,
        Reason.CHECK_FAILED,
        Reason.SUPERSEDED,
        Reason.RELIEVED,
        Reason.JOB_ENDED,
        Reason.BAD_INPUT,
        Reason.RENTAL_ENDED,
        Reason.DRAINING,
    }
)
"""Endings that do not count against the provider. One consumer's bad input must not take a provider from others."""
UNCOUNTED: Final = frozenset(
    {
        Reason.DECLINED,
        Reason.DRAINING,
        Reason.LEFT,
        Reason.NOT_ACCEPTED_IN_TIME,
        Reason.COMPLETED,
        Reason.RELIEVED,
        Reason.JOB_ENDED,
    }
)
"""Endings that do not count towards a job's bad attempts: it never ran there, or nothing was wrong with it."""


def match_again_ms(waited_ms: int, *, waiting: bool) -> int:
    """How long until a job that nobody took is looked at again: longer the longer it waits, so that many of them do
    not hold up the others."""
    return WAIT_AGAIN_MS if waiting else max(MATCH_AGAIN_MS, min(MATCH_AGAIN_MS_MAX, waited_ms // 8))


def due_reason(state: AttemptState, *, limit_ms: int | None, now_ms: int, leaving: bool = False) -> Reason:
    """Which deadline it was that passed. `leaving`: the provider said that it goes, and nothing since."""
    if state is AttemptState.VERIFYING:
        return Reason.CHECK_FAILED
    if leaving:
        return Reason.LEFT
    if state is AttemptState.OFFERED:
        return Reason.NOT_ACCEPTED_IN_TIME
    return Reason.OVERDUE if limit_ms is not None and limit_ms <= now_ms else Reason.SILENT


def running_due_ms(heard_ms: int, lease_ms: int, limit_ms: int) -> int:
    return min(heard_ms + lease_ms, limit_ms)


def check_due_ms(now_ms: int, forecast_ms: int) -> int:
    return now_ms + CHECK_MS + 2 * forecast_ms


def time_limit_ms(forecast_ms: int, input_bytes: int) -> int:
    return TIME_LIMIT_BASE_MS + TIME_LIMIT_FACTOR * forecast_ms + input_bytes // FETCH_BYTES_PER_MS


def paused(ticked_ms: int, now_ms: int) -> int:
    """Milliseconds by which leases are extended because no coordinator was there; 0 while one was."""
    gap_ms = now_ms - ticked_ms
    return gap_ms if ticked_ms > 0 and gap_ms > OUTAGE_MS else 0


def fraction(previous: float, units: int, accepted: int, under_way: float) -> float:
    """Of the whole job; never falls, even when a rejected attempt's work is lost (P7). `under_way` are the units that
    open attempts have done."""
    return max(previous, min(1.0, (accepted + under_way) / units))
