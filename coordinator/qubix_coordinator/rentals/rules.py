# SPDX-License-Identifier: Apache-2.0
"""A rental's state machine, its meter and its money. Pure; every state × event is decided in a table.

The meter (trust.md M9): the coordinator asks with a fresh nonce, the node answers. Time is billed between two answers
that followed each other while the rental was active; everything else costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final, NamedTuple

from qubix_coordinator.ledger.rules import MS_PER_HOUR, owed_qu, split_fee
from qubix_protocol.states import RentalReason, RentalState

ACCEPT_MS: Final = 10_000
"""How long a node has to answer that the device is rented."""
START_MS: Final = 60_000
"""How long it has from then to its first answered nonce."""
RESEND_MS: Final = 1_000
OUTAGE_MS: Final = 3_000
"""No coordinator asked for longer than this: nobody's silence counted meanwhile."""
JOBS_OPEN_MAX: Final = 100
"""Of one rental: what ends with it is bounded."""


class Verb(Enum):
    APPLY = auto()
    IGNORE = auto()
    REFUSE = auto()


class Event(StrEnum):
    ACCEPT = "accept"
    DECLINE = "decline"
    ANSWER = "answer"
    """A fresh nonce was answered in time."""
    DUE = "due"
    """The state's deadline passed."""
    TIME_OVER = "time_over"
    HOLD_USED = "hold_used"
    STOP = "stop"
    NOTICE = "notice"
    """The provider says when it must end, earlier than agreed."""
    DEVICE_LOST = "device_lost"


class _Ends(NamedTuple):
    reason: RentalReason


_S, _E, _R = RentalState, Event, RentalReason
TABLE: Final[dict[RentalState, dict[Event, RentalState | Verb | _Ends]]] = {
    _S.REQUESTED: {
        _E.ACCEPT: _S.STARTING,
        _E.DECLINE: _Ends(_R.DECLINED),
        # Nothing was asked yet.
        _E.ANSWER: Verb.IGNORE,
        _E.DUE: _Ends(_R.NEVER_STARTED),
        _E.TIME_OVER: Verb.IGNORE,
        _E.HOLD_USED: Verb.IGNORE,
        _E.STOP: _Ends(_R.STOPPED_BY_CONSUMER),
        # It has not begun: to give notice now is to decline.
        _E.NOTICE: _Ends(_R.DECLINED),
        _E.DEVICE_LOST: _Ends(_R.DEVICE_LOST),
    },
    _S.STARTING: {
        _E.ACCEPT: Verb.IGNORE,
        _E.DECLINE: _Ends(_R.DECLINED),
        _E.ANSWER: _S.ACTIVE,
        _E.DUE: _Ends(_R.NEVER_STARTED),
        _E.TIME_OVER: Verb.IGNORE,
        _E.HOLD_USED: Verb.IGNORE,
        _E.STOP: _Ends(_R.STOPPED_BY_CONSUMER),
        _E.NOTICE: _Ends(_R.DECLINED),
        _E.DEVICE_LOST: _Ends(_R.DEVICE_LOST),
    },
    _S.ACTIVE: {
        _E.ACCEPT: Verb.IGNORE,
        # A node that came back and cannot go on with it.
        _E.DECLINE: _Ends(_R.SHORT_NOTICE),
        _E.ANSWER: _S.ACTIVE,
        _E.DUE: _S.UNREACHABLE,
        _E.TIME_OVER: _Ends(_R.TIME_OVER),
        _E.HOLD_USED: _Ends(_R.HOLD_USED_UP),
        _E.STOP: _Ends(_R.STOPPED_BY_CONSUMER),
        _E.NOTICE: _S.ACTIVE,
        _E.DEVICE_LOST: _Ends(_R.DEVICE_LOST),
    },
    _S.UNREACHABLE: {
        _E.ACCEPT: Verb.IGNORE,
        _E.DECLINE: _Ends(_R.SHORT_NOTICE),
        _E.ANSWER: _S.ACTIVE,
        _E.DUE: _Ends(_R.PROVIDER_GONE),
        _E.TIME_OVER: _Ends(_R.TIME_OVER),
        _E.HOLD_USED: _Ends(_R.HOLD_USED_UP),
        _E.STOP: _Ends(_R.STOPPED_BY_CONSUMER),
        _E.NOTICE: _S.UNREACHABLE,
        _E.DEVICE_LOST: _Ends(_R.DEVICE_LOST),
    },
    _S.ENDED: {
        _E.ACCEPT: Verb.REFUSE,
        _E.DECLINE: Verb.IGNORE,
        _E.ANSWER: Verb.REFUSE,
        _E.DUE: Verb.IGNORE,
        _E.TIME_OVER: Verb.IGNORE,
        _E.HOLD_USED: Verb.IGNORE,
        _E.STOP: Verb.IGNORE,
        _E.NOTICE: Verb.IGNORE,
        _E.DEVICE_LOST: Verb.IGNORE,
    },
}
BLAMED: Final = frozenset({_R.PROVIDER_GONE, _R.SHORT_NOTICE, _R.DEVICE_LOST, _R.DECLINED, _R.NEVER_STARTED})
"""Endings that count against the provider."""


@dataclass(frozen=True, slots=True)
class Decision:
    verb: Verb
    state: RentalState
    reason: RentalReason = RentalReason.NONE


def decide(state: RentalState, event: Event, closing: RentalReason | None = None) -> Decision:
    """`closing` is why its time was cut short: then that is what it ends with when the time is over."""
    then = TABLE[state][event]
    if isinstance(then, Verb):
        return Decision(then, state)
    if isinstance(then, _Ends):
        early = closing if event is Event.TIME_OVER else None
        return Decision(Verb.APPLY, RentalState.ENDED, early or then.reason)
    return Decision(Verb.APPLY, then)


# Deadlines ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Times:
    """How often is asked, how long is waited, by the settings."""

    beat_ms: int
    reach_ms: int
    """From an answer on: without a further one the rental is unreachable."""
    silence_ms: int
    """From an answer on: without a further one the rental ends."""
    settle_ms: int
    notice_ms: int
    """What a provider owes who ends a rental early."""


@dataclass(frozen=True, slots=True)
class Facts:
    state: RentalState
    since_ms: int
    """What the state's deadline counts from: the request, the node's yes, the last answer."""
    ends_ms: int | None = None
    billed_ms: int = 0
    affordable_ms: int | None = None
    nonce_asked_ms: int | None = None
    """When the nonce that waits for its answer was drawn; None while none waits."""
    sent_ms: int = 0
    """When the node was last told something that waits for an answer."""
    answered_ms: int | None = None
    unsettled_since_ms: int | None = None
    """When the first time that is not settled yet was billed, or the settlement before it, if later."""


def deadline_ms(facts: Facts, times: Times) -> int | None:
    """When the state's default outcome falls due (M5)."""
    waits = {
        RentalState.REQUESTED: ACCEPT_MS,
        RentalState.STARTING: START_MS,
        RentalState.ACTIVE: times.reach_ms,
        RentalState.UNREACHABLE: times.silence_ms,
    }
    return facts.since_ms + waits[facts.state] if facts.state in waits else None


def due_event(facts: Facts, times: Times, now_ms: int) -> Event | None:
    """What time alone has brought about; of several, what came first. Call again after applying it."""
    if facts.state is RentalState.ENDED:
        return None
    if facts.affordable_ms is not None and facts.billed_ms >= facts.affordable_ms and not _over(facts, now_ms):
        return Event.HOLD_USED
    limit = deadline_ms(facts, times)
    found = [(at, event) for at, event in ((limit, Event.DUE), (_end(facts), Event.TIME_OVER)) if at is not None]
    passed = [(at, event) for at, event in found if at <= now_ms]
    return min(passed, key=lambda pair: pair[0])[1] if passed else None


def _end(facts: Facts) -> int | None:
    return facts.ends_ms if facts.state in METERED else None


def _over(facts: Facts, now_ms: int) -> bool:
    return facts.ends_ms is not None and facts.ends_ms <= now_ms


METERED: Final = frozenset({RentalState.ACTIVE, RentalState.UNREACHABLE})
ASKED: Final = METERED | {RentalState.STARTING}


class Ask(Enum):
    """What the node is to be told now."""

    NOTHING = auto()
    START = auto()
    NEW_NONCE = auto()
    SAME_NONCE = auto()


def ask(facts: Facts, times: Times, now_ms: int) -> Ask:
    if facts.state is RentalState.REQUESTED:
        return Ask.START if now_ms >= facts.sent_ms + RESEND_MS else Ask.NOTHING
    if facts.state not in ASKED or now_ms < ask_due_ms(facts, times):
        return Ask.NOTHING
    fresh = facts.nonce_asked_ms is not None and now_ms < facts.nonce_asked_ms + times.reach_ms
    return Ask.SAME_NONCE if fresh else Ask.NEW_NONCE


def ask_due_ms(facts: Facts, times: Times) -> int:
    if facts.state is RentalState.REQUESTED:
        return facts.sent_ms + RESEND_MS
    if facts.nonce_asked_ms is not None:
        return min(facts.sent_ms + RESEND_MS, facts.nonce_asked_ms + times.reach_ms)
    return facts.sent_ms + times.beat_ms if facts.answered_ms is not None else 0


def settle_due_ms(facts: Facts, times: Times) -> int | None:
    """When what is billed is to be paid, though the rental goes on."""
    return None if facts.unsettled_since_ms is None else facts.unsettled_since_ms + times.settle_ms


def act_due_ms(facts: Facts, times: Times) -> int | None:
    """When something is to be done about it, whatever the node says; None for one that has ended."""
    if facts.state is RentalState.ENDED:
        return None
    dues = (deadline_ms(facts, times), _end(facts), settle_due_ms(facts, times))
    return min(due for due in dues if due is not None)


def next_due_ms(facts: Facts, times: Times) -> int | None:
    """When the engine is to look again: then, or to ask."""
    due = act_due_ms(facts, times)
    return None if due is None else min(due, ask_due_ms(facts, times))


def paused(ticked_ms: int, now_ms: int) -> int:
    """Milliseconds by which deadlines are put off because no coordinator was there to ask; 0 while one was."""
    gap_ms = now_ms - ticked_ms
    return gap_ms if ticked_ms > 0 and gap_ms > OUTAGE_MS else 0


# The meter ------------------------------------------------------------------------------------------------------------


def fresh(expected: bytes | None, asked_ms: int | None, given: bytes, times: Times, now_ms: int) -> bool:
    """Whether an answer proves presence: it names the nonce that waits, within its time. Anything else is a replay, too
    late, early, or another rental's, and moves nothing."""
    return expected is not None and asked_ms is not None and given == expected and now_ms < asked_ms + times.reach_ms


class Span(NamedTuple):
    """Milliseconds [start, stop) by the coordinator's clock."""

    start: int
    stop: int

    @property
    def ms(self) -> int:
        return self.stop - self.start


def metered(
    answered_ms: int | None, now_ms: int, *, reach_ms: int, ends_ms: int | None, left_ms: int | None
) -> Span | None:
    """What the answer of now bills: the time since the one before, when that was near enough, up to the agreed end and
    to what the hold still affords."""
    if answered_ms is None or now_ms - answered_ms >= reach_ms:
        return None
    bounds = [
        now_ms,
        *([ends_ms] if ends_ms is not None else []),
        *([answered_ms + left_ms] if left_ms is not None else []),
    ]
    stop = min(bounds)
    return Span(answered_ms, stop) if stop > answered_ms else None


# Money ----------------------------------------------------------------------------------------------------------------


def hold_qu(rate_qu_per_h: int, seconds: int, cap_qu: int | None) -> int:
    """Rate × time, rounded up so that the whole time is covered; at most the cap, at least 1 QU (a hold is never
    empty)."""
    whole = max(1, -(-rate_qu_per_h * seconds * 1000 // MS_PER_HOUR))
    return whole if cap_qu is None else min(whole, cap_qu)


def shares_qu(rates_qu_per_h: Sequence[int], seconds: int, cap_qu: int | None) -> list[int] | None:
    """The hold of each of several devices. A cap below the whole price is divided by their rates, so that it lasts for
    all of them equally long (but 1 QU each, since a hold is never empty); None when it leaves nothing for one."""
    whole, count = [hold_qu(rate, seconds, None) for rate in rates_qu_per_h], len(rates_qu_per_h)
    if cap_qu is None or sum(whole) <= cap_qu:
        return whole
    if cap_qu < count:
        return None
    return [1 + (cap_qu - count) * (one - 1) // (sum(whole) - count) for one in whole]


def affordable_ms(rate_qu_per_h: int, hold: int) -> int | None:
    """The longest time whose price the hold covers; None: any."""
    return None if rate_qu_per_h == 0 else hold * MS_PER_HOUR // rate_qu_per_h


class Charge(NamedTuple):
    paid_qu: int
    fee_qu: int

    @property
    def total_qu(self) -> int:
        return self.paid_qu + self.fee_qu


def charge(rate_qu_per_h: int, billed_ms: int, fee_bps: int, *, paid_qu: int, fee_qu: int) -> Charge:
    """What a settlement adds: rounded once, from the time billed since the rental began (M1), less what was settled
    before. So it does not matter into how many periods a rental is cut."""
    split = split_fee(owed_qu(rate_qu_per_h, billed_ms, accepted_chunks=0), fee_bps)
    return Charge(split.paid_qu - paid_qu, split.fee_qu - fee_qu)


def notice_reason(now_ms: int, ends_ms: int, times: Times) -> RentalReason:
    return RentalReason.PROVIDER_MAINTENANCE if ends_ms - now_ms >= times.notice_ms else RentalReason.SHORT_NOTICE
