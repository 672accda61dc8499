# SPDX-License-Identifier: Apache-2.0
"""What a provider's past work says of its next (trust.md C5). Pure; docs/adr/0027 says why it is counted so.

A record is a handful of sums that halve with time. Good work counts for consumers unrelated to the provider alone, and
weighs what it was worth in QU; failures count whoever asked.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

DAY_MS: Final = 86_400_000
HALF_LIFE_MS: Final = 30 * DAY_MS
UPTIME_HALF_LIFE_MS: Final = 3 * DAY_MS
WEIGHT_MAX: Final = 10.0
"""Of one piece of work, however dear: no single one makes or ends a provider."""
WRONG_WEIGHS: Final = 5.0
"""A wrong result, or a lost dispute, counts as so many right ones that are missing."""
Z: Final = 1.6448536269514722
"""One-sided 95 %."""
NOTHING: Final = 1e-9
LATE: Final = 1.25
"""Times its forecast: what runs longer is late. No more than this is ever billed, either (trust.md M2)."""
SLOWNESS_MAX: Final = 10.0
"""One run that stood still for hours does not hide how the others were."""
PUNCTUALITY_TELLS: Final = 0.1
AVAILABILITY_TELLS: Final = 0.1
"""How much of the reliability depends on each: neither loses anybody's work."""


class What(StrEnum):
    """What became of a piece of work, as far as one thing about it is known."""

    FINISHED = "finished"
    FAILED = "failed"
    """Taken on and not brought to an end, or declined."""
    RIGHT = "right"
    WRONG = "wrong"
    DISPUTE_WON = "dispute_won"
    DISPUTE_LOST = "dispute_lost"


GAINS: Final = frozenset({What.FINISHED, What.RIGHT, What.DISPUTE_WON})
"""These count only when the consumer is unrelated."""


@dataclass(frozen=True, slots=True)
class Outcome:
    what: What
    worth_qu: int
    at_ms: int
    counts: bool = True
    run_ms: int = 0
    forecast_ms: int = 0
    """Both of finished work alone."""


@dataclass(frozen=True, slots=True)
class Record:
    """Sums of weights as they stood at `at_ms`. `gained` and `pieces`: the weights of all that was finished or right,
    and how many those were."""

    at_ms: int = 0
    finished: float = 0.0
    failed: float = 0.0
    right: float = 0.0
    wrong: float = 0.0
    punctual: float = 0.0
    slowness: float = 0.0
    gained: float = 0.0
    pieces: float = 0.0
    won: float = 0.0
    lost: float = 0.0

    @property
    def empty(self) -> bool:
        return self.finished + self.right == 0.0


@dataclass(frozen=True, slots=True)
class Uptime:
    """How long a listing's offers stood lately: milliseconds that halve with time, as of the last offer."""

    since_ms: int = 0
    """The first offer; 0: none yet."""
    seen_ms: int = 0
    up_ms: float = 0.0


def weight(worth_qu: int, unit_qu: int) -> float:
    """In pieces of evidence of `unit_qu` each. Proportional, so that cutting work up gains nothing."""
    return min(WEIGHT_MAX, worth_qu / unit_qu)


def faded(record: Record, now_ms: int) -> Record:
    """As it stands later. A clock that was put back makes nothing younger."""
    if now_ms <= record.at_ms:
        return record
    left = 0.5 ** ((now_ms - record.at_ms) / HALF_LIFE_MS)
    return Record(
        at_ms=now_ms,
        finished=record.finished * left,
        failed=record.failed * left,
        right=record.right * left,
        wrong=record.wrong * left,
        punctual=record.punctual * left,
        slowness=record.slowness * left,
        gained=record.gained * left,
        pieces=record.pieces * left,
        won=record.won * left,
        lost=record.lost * left,
    )


def fold(record: Record, outcome: Outcome, unit_qu: int) -> Record:
    """The record with one more outcome."""
    if outcome.what in GAINS and not outcome.counts:
        return record
    now = faded(record, outcome.at_ms)
    if outcome.what in GAINS:
        return _gained(now, outcome, weight(outcome.worth_qu, unit_qu))
    return _lost(now, outcome.what, _loss(now, weight(outcome.worth_qu, unit_qu)))


def _loss(record: Record, own: float) -> float:
    """At least what one of the provider's pieces weighs: failing at the small ones is no way to keep a record."""
    usual = record.gained / record.pieces if record.pieces > 0 else 0.0
    return min(WEIGHT_MAX, max(own, usual))


def _gained(record: Record, outcome: Outcome, gain: float) -> Record:
    if outcome.what is What.DISPUTE_WON:
        return replace(record, won=record.won + 1.0)
    counted = replace(record, gained=record.gained + gain, pieces=record.pieces + 1.0)
    if outcome.what is What.RIGHT:
        return replace(counted, right=counted.right + gain)
    slow = min(SLOWNESS_MAX, outcome.run_ms / max(1, outcome.forecast_ms))
    return replace(
        counted,
        finished=counted.finished + gain,
        punctual=counted.punctual + (gain if slow <= LATE else 0.0),
        slowness=counted.slowness + gain * slow,
    )


def _lost(record: Record, what: What, loss: float) -> Record:
    if what is What.FAILED:
        return replace(record, failed=record.failed + loss)
    wrong = record.wrong + loss
    return replace(record, wrong=wrong, lost=record.lost + (1.0 if what is What.DISPUTE_LOST else 0.0))


def of_outcomes(outcomes: Iterable[Outcome], unit_qu: int) -> Record:
    """The same as folding them one by one as they come; in the order of their times."""
    record = Record()
    for outcome in outcomes:
        record = fold(record, outcome, unit_qu)
    return record


def lower_bound(good: float, bad: float) -> float:
    """Of the share of good ones, with 95 % confidence (Wilson's score interval): n / (n + 2.7) of n good ones, so 0
    without any."""
    total, z2 = good + bad, Z * Z
    if total < NOTHING:
        return 0.0
    spread = Z * math.sqrt(good * bad / total + z2 / 4)
    return max(0.0, min(1.0, (good + z2 / 2 - spread) / (total + z2)))


def completion(record: Record) -> float:
    return lower_bound(record.finished, record.failed)


def correctness(record: Record) -> float:
    return lower_bound(record.right, WRONG_WEIGHS * record.wrong)


def punctuality(record: Record) -> float:
    return min(1.0, record.punctual / record.finished) if record.finished > 0 else 0.0


def seen(uptime: Uptime, now_ms: int, gap_max_ms: int) -> Uptime:
    """An offer came. The time since the last one counts when it was no longer than an offer stands."""
    if uptime.since_ms == 0 or now_ms < uptime.seen_ms:
        return replace(uptime, since_ms=uptime.since_ms or now_ms, seen_ms=now_ms)
    gap_ms = now_ms - uptime.seen_ms
    kept = uptime.up_ms * 0.5 ** (gap_ms / UPTIME_HALF_LIFE_MS)
    return replace(uptime, seen_ms=now_ms, up_ms=kept + (_stretch_ms(gap_ms) if gap_ms <= gap_max_ms else 0.0))


def availability(uptime: Uptime, now_ms: int, gap_max_ms: int) -> float:
    """Of the last days, the latest most: the share in which the device was offered."""
    if uptime.since_ms == 0:
        return 0.0
    now = seen(uptime, max(now_ms, uptime.seen_ms), gap_max_ms)
    whole = _stretch_ms(max(now_ms, uptime.seen_ms) - uptime.since_ms)
    return min(1.0, now.up_ms / whole) if whole > 0 else 1.0


def _stretch_ms(length_ms: int) -> float:
    """What a stretch of time that ends now weighs."""
    return UPTIME_HALF_LIFE_MS / math.log(2) * -math.expm1(-math.log(2) * length_ms / UPTIME_HALF_LIFE_MS)


def reliability(record: Record, available: float) -> float:
    """The chance, cautiously put, that work given to it comes back finished and right. 0 without a record.

    completion × correctness × (0.9 + 0.1 punctuality) × (0.9 + 0.1 availability), the first two as lower bounds.
    """
    on_time = 1.0 - PUNCTUALITY_TELLS * (1.0 - punctuality(record))
    there = 1.0 - AVAILABILITY_TELLS * (1.0 - available)
    return completion(record) * correctness(record) * on_time * there
