# SPDX-License-Identifier: Apache-2.0
"""When an attempt is a straggler, and when it pays to let somebody else finish its work. Pure.

Times are what the coordinator observed between a node's words: neither silence nor an outage makes anybody slow.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from qubix_coordinator.jobs.shares import SEND_BYTES_PER_MS

NOTICE_MS: Final = 5_000
"""Nobody is judged earlier."""
SLOW_TIMES: Final = 2.0
"""A straggler needs more than this many times its forecast, and of what its siblings need of theirs."""
GAIN_TIMES: Final = 2.0
"""Somebody else must be this much faster with the rest, after what it needs to get going."""
BEGIN_MS: Final = 2_000
"""A stop, a check, an assignment and the start of a worker."""


@dataclass(frozen=True, slots=True)
class Pace:
    """An attempt of `units`, of which `left` are neither linked nor in the chunk that it works on. In `elapsed_ms` it
    came so many units further (`moved`), that chunk counted as done: it is slower than this, never faster."""

    units: int
    left: int
    forecast_ms: int
    moved: int
    elapsed_ms: int

    @property
    def slowness(self) -> float:
        """How many times its forecast it needs."""
        return self.elapsed_ms * self.units / (self.forecast_ms * self.moved)

    @property
    def rest_ms(self) -> float:
        """Until it is done, at this pace."""
        return self.elapsed_ms * self.left / self.moved


@dataclass(frozen=True, slots=True)
class Seen:
    """What the coordinator has of an attempt: its observed time now, and at its first link; the sizes of its first and
    last one (None: there is no link)."""

    units: int
    done: int
    forecast_ms: int
    chunk_units: int
    observed_ms: int
    first_observed_ms: int | None
    first_units: int | None
    last_units: int | None


def pace(seen: Seen, input_bytes: int) -> Pace:
    """From its first link on, since inputs were fetched before; an attempt without one is given time for that."""
    if seen.first_observed_ms is None or seen.first_units is None:
        elapsed_ms, moved = seen.observed_ms - input_bytes // SEND_BYTES_PER_MS, 0
    else:
        elapsed_ms, moved = seen.observed_ms - seen.first_observed_ms, seen.done - seen.first_units
    under_way = min(seen.last_units or seen.chunk_units, seen.units - seen.done)
    return Pace(
        units=seen.units,
        left=seen.units - seen.done - under_way,
        forecast_ms=seen.forecast_ms,
        moved=max(1, moved + under_way),
        elapsed_ms=max(0, elapsed_ms),
    )


def usual(siblings: Iterable[Pace]) -> float:
    """How many times its forecast the best of a job's other attempts needs: when all are slower than they say, the
    kernel is dearer than it was priced, and nobody straggles."""
    return max(1.0, min((one.slowness for one in siblings if one.elapsed_ms >= NOTICE_MS), default=1.0))


def straggles(one: Pace, usually: float) -> bool:
    return one.elapsed_ms >= NOTICE_MS and one.slowness > SLOW_TIMES * usually


def pays(one: Pace, helper_ms: int, usually: float, input_bytes: int) -> bool:
    """`helper_ms`: the helper's forecast of everything that is not linked."""
    begin_ms = BEGIN_MS + input_bytes // SEND_BYTES_PER_MS
    return begin_ms + GAIN_TIMES * usually * helper_ms < one.rest_ms
