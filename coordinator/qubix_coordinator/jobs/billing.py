# SPDX-License-Identifier: Apache-2.0
"""What an attempt's accepted chunks cost, and which units are left to run. Pure (trust.md M1, M2).

A catalogue chunk bills the least of what the node claims, what the coordinator observed between heartbeats, and 1.25
times the frozen forecast: dawdling, and silence, earn nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from qubix_protocol.charges import FORECAST_DENOMINATOR, FORECAST_NUMERATOR, owed_qu
from qubix_protocol.charges import Chunk as Chunk
from qubix_protocol.charges import billed_ms as billed_ms
from qubix_protocol.charges import charge_qu as charge_qu
from qubix_protocol.messages import Range
from qubix_protocol.units import CHUNKS_MAX

CHUNK_MS: Final = 1_000
CHUNKS_AIM_MAX: Final = CHUNKS_MAX // 4
"""Leaves room for chunks that turn out smaller than planned."""


def observed_gap_ms(heard_ms: int, now_ms: int, heartbeat_ms: int) -> int:
    """Time between two words of a node, as far as it counts: silence beyond two heartbeats stops the meter."""
    return min(max(0, now_ms - heard_ms), 2 * heartbeat_ms)


def bill_max_qu(rate_qu_per_h: int, *, forecast_ms: int, attempt_units: int, units: int) -> int:
    """The most that `units` of an attempt can ever cost: so much of the hold is reserved for it while it is open."""
    if units == 0:
        return 0
    bound = forecast_ms * FORECAST_NUMERATOR * units // (FORECAST_DENOMINATOR * attempt_units)
    return max(1, owed_qu(rate_qu_per_h, bound))


def merge(ranges: Iterable[Range]) -> list[Range]:
    """In order, touching and overlapping ones joined."""
    merged: list[Range] = []
    for one in sorted(ranges, key=lambda r: (r.start, r.stop)):
        if merged and one.start <= merged[-1].stop:
            merged[-1] = Range(merged[-1].start, max(merged[-1].stop, one.stop))
        else:
            merged.append(one)
    return merged


def uncovered(units: int, done: Iterable[Range]) -> list[Range]:
    """What is left of [0, units)."""
    left, at = [], 0
    for one in merge(done):
        if at < one.start:
            left.append(Range(at, one.start))
        at = max(at, one.stop)
    if at < units:
        left.append(Range(at, units))
    return left


def cut(ranges: Iterable[Range], sizes: Iterable[int]) -> list[list[Range]]:
    """The ranges dealt out in order, so many units to each: every piece is as contiguous as the ranges are."""
    rest = list(ranges)
    pieces = []
    for size in sizes:
        piece = []
        while size and rest:
            one = rest.pop(0)
            middle = min(one.stop, one.start + size)
            piece.append(Range(one.start, middle))
            size -= middle - one.start
            if middle < one.stop:
                rest.insert(0, Range(middle, one.stop))
        pieces.append(piece)
    return pieces


def total(ranges: Iterable[Range]) -> int:
    return sum(one.units for one in ranges)


def chunk_units(units: int, forecast_ms: int) -> int:
    """About a second's worth, and few enough links."""
    by_time = units * CHUNK_MS // max(1, forecast_ms)
    by_count = -(-units // CHUNKS_AIM_MAX)
    return min(units, max(1, by_time, by_count))


def next_range(ranges: Sequence[Range], done: int) -> Range:
    """What an attempt that has done its first `done` units may do next: to the end of the assigned range."""
    for one in ranges:
        if done < one.units:
            return Range(one.start + done, one.stop)
        done -= one.units
    return Range(0, 0)
