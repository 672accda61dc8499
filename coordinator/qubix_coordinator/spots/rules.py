# SPDX-License-Identifier: Apache-2.0
"""What a spot check does next. Pure.

One contrary run proves nothing: the one that made it may be wrong. A second, unrelated one decides.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from qubix_coordinator.ledger.rules import owed_qu

DRAWS_MAX: Final = 4
AGAINST_MAX: Final = 2
"""So many contrary runs refute a result."""
PRICE_QU_MIN: Final = 10


class State(StrEnum):
    WAITING = "waiting"
    """For somebody to run it, or for the money to pay them."""
    RERUNNING = "rerunning"
    LOOKING = "looking"
    """The two results are compared by a verifier process."""
    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    """One made something else, and nobody else could be found: not paid, and nobody is blamed."""
    NOT_DONE = "not_done"


OPEN: Final = frozenset({State.WAITING, State.RERUNNING, State.LOOKING})


class Event(StrEnum):
    DRAWN = "drawn"
    RAN = "ran"
    NOT_RAN = "not_ran"
    SAME = "same"
    DIFFERS = "differs"
    UNTOLD = "untold"
    """The comparison could not be carried out."""
    DUE = "due"
    DISPUTED = "disputed"
    """What a dispute looks at is decided there."""


@dataclass(frozen=True, slots=True)
class Facts:
    """`against`: how many contrary runs there were before this event."""

    state: State
    draws: int = 0
    against: int = 0


def decide(facts: Facts, event: Event) -> State | None:
    """The next state; None: the event is of no consequence here."""
    if facts.state not in OPEN:
        return None
    if event is Event.DISPUTED:
        return State.NOT_DONE
    if event is Event.DUE:
        return _given_up(facts)
    return {
        State.WAITING: {Event.DRAWN: State.RERUNNING},
        State.RERUNNING: {Event.RAN: State.LOOKING, Event.NOT_RAN: _again(facts)},
        State.LOOKING: {Event.SAME: State.PASSED, Event.DIFFERS: _contrary(facts), Event.UNTOLD: _again(facts)},
    }[facts.state].get(event)


def _given_up(facts: Facts) -> State:
    return State.UNDECIDED if facts.against else State.NOT_DONE


def _again(facts: Facts) -> State:
    return State.WAITING if facts.draws < DRAWS_MAX else _given_up(facts)


def _contrary(facts: Facts) -> State:
    if facts.against + 1 >= AGAINST_MAX:
        return State.FAILED
    return State.WAITING if facts.draws < DRAWS_MAX else State.UNDECIDED


def price_max_qu(rate_qu_per_h: int, forecast_ms: int, attempt_units: int, units: int) -> int:
    """Twice what the units cost where they ran: who runs them again may ask more."""
    return max(PRICE_QU_MIN, 2 * owed_qu(rate_qu_per_h, forecast_ms * units // attempt_units))
