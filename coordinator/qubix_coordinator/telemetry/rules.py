# SPDX-License-Identifier: Apache-2.0
"""Which samples count, and how a batch is put together. Pure. Times are by the coordinator's clock."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from qubix_coordinator.telemetry.folding import HOUR_S, MINUTE_S
from qubix_protocol.history import HistorySource
from qubix_protocol.messages import DeviceSample, Sample

CLOCK_AHEAD_MS_MAX: Final = 120_000
"""A node's clock may run ahead by this much of what the handshake told it; beyond it a sample would stay the newest for
ever."""
LATE_MS_MAX: Final = 3_600_000
"""What a node tells later than this is not kept: the roll-ups of its time may be taken as done."""


class Said(msgspec.Struct, frozen=True, gc=False):
    """One sample, who said it, and when that was heard."""

    peer_id: str
    received_ms: int
    device_id: str
    sample: Sample


NOBODY: Final = 0
"""The number of a device that is not in the market."""


class Once(NamedTuple):
    """Samples in order of their device's number and their second; of both together there is one."""

    numbers: "NDArray[np.int64]"
    seconds: "NDArray[np.int64]"
    said: list[Said]


def plausible(samples: Iterable[DeviceSample], now_ms: int) -> list[DeviceSample]:
    """Neither from the future nor too late, and of numbers that are numbers: by their sum, which is none as soon as one
    of them is none."""
    first_ms, last_ms = now_ms - LATE_MS_MAX, now_ms + CLOCK_AHEAD_MS_MAX
    return [
        one
        for one in samples
        if first_ms <= (told := one.sample).at_ms <= last_ms
        and math.isfinite(
            (told.utilisation_pct or 0.0)
            + (told.temperature_c or 0.0)
            + (told.memory_busy_pct or 0.0)
            + (told.fan_pct or 0.0)
        )
    ]


def once(numbers: Sequence[int], batch: Sequence[Said]) -> Once:
    """The newest of each device and second, of equals the last. `numbers` are the devices'."""
    of = np.array(numbers, np.int64)
    at_ms = np.array([one.sample.at_ms for one in batch], np.int64)
    order = np.lexsort((at_ms, of))
    of, at_s = of[order], at_ms[order] // 1000
    last = _differ(of, at_s)[1:] & (of != NOBODY)
    return Once(of[last], at_s[last], [batch[place] for place in order[last].tolist()])


def newest(once: Once) -> dict[tuple[str, str], Said]:
    """The newest sample of each device of each node, by peer and device id."""
    last = (once.said[place] for place in np.flatnonzero(_differ(once.numbers)[1:]).tolist())
    return {(one.peer_id, one.device_id): one for one in last}


def by_minute(once: Once) -> dict[int, list[int]]:
    """Devices' numbers by the second in which a minute begins."""
    minutes = once.seconds // MINUTE_S * MINUTE_S
    first = _differ(once.numbers, minutes)[:-1]
    found: dict[int, list[int]] = defaultdict(list)
    for minute, number in zip(minutes[first].tolist(), once.numbers[first].tolist(), strict=True):
        found[minute].append(number)
    return found


def _differ(*columns: "NDArray[np.int64]") -> "NDArray[np.bool_]":
    """At each row whether it differs from the one before; true for the first, and behind the last."""
    differ = np.zeros(len(columns[0]) + 1, np.bool_)
    differ[[0, -1]] = True
    for column in columns:
        differ[1:-1] |= column[1:] != column[:-1]
    return differ


def stretch_ms(window_ms: int, most: int) -> int:
    """So long that at most `most` of them cover the window; never below a second, since more is not kept."""
    return max(1_000, -(-window_ms // max(1, most - 1)))


@dataclass(frozen=True, slots=True)
class Keeping:
    """For how long there is what."""

    sample_s: int
    minute_s: int
    hour_s: int


class Plan(NamedTuple):
    """Points of `bucket_s` each, on multiples of it, that cover from `since_s` until before `until_s`."""

    source: HistorySource
    bucket_s: int
    since_s: int
    until_s: int


def plan(since_ms: int, until_ms: int, points: int, now_ms: int, keep: Keeping) -> Plan:
    """The coarsest source that is fine enough, and that is still kept where the time begins. At most `points`."""
    since_s, until_s, now_s = since_ms // 1000, -(-until_ms // 1000), now_ms // 1000
    wanted_s = -(-(until_s - since_s) // max(1, points - 1))
    if wanted_s >= HOUR_S or since_s < now_s - keep.minute_s:
        source, step_s = HistorySource.HOUR, HOUR_S
    elif wanted_s >= MINUTE_S or since_s < now_s - keep.sample_s:
        source, step_s = HistorySource.MINUTE, MINUTE_S
    else:
        source, step_s = HistorySource.SAMPLE, 1
    bucket_s = -(-wanted_s // step_s) * step_s
    return Plan(source, bucket_s, since_s // bucket_s * bucket_s, -(-until_s // step_s) * step_s)
