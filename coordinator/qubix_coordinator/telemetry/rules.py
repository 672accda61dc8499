# SPDX-License-Identifier: Apache-2.0
"""Which samples count, and how a batch is put together. Pure. Times are by the coordinator's clock."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import msgspec

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


Once: TypeAlias = dict[int, dict[int, Said]]
"""Samples by their device's number and their second."""


def plausible(samples: Iterable[DeviceSample], now_ms: int) -> list[DeviceSample]:
    """Neither from the future nor too late, and of numbers that are numbers."""
    first_ms, last_ms = now_ms - LATE_MS_MAX, now_ms + CLOCK_AHEAD_MS_MAX
    return [one for one in samples if first_ms <= one.sample.at_ms <= last_ms and _finite(one.sample)]


def _finite(sample: Sample) -> bool:
    """By their sum, which is no number as soon as one of them is none."""
    return math.isfinite(
        (sample.utilisation_pct or 0.0)
        + (sample.temperature_c or 0.0)
        + (sample.memory_busy_pct or 0.0)
        + (sample.fan_pct or 0.0)
    )


def once(numbers: Iterable[int | None], batch: Iterable[Said]) -> Once:
    """The newest of each device and second. `numbers` are the devices', None for one that is not in the market."""
    found: Once = defaultdict(dict)
    for number, one in zip(numbers, batch, strict=True):
        if number is None:
            continue
        at_ms = one.sample.at_ms
        known = found[number].setdefault(at_ms // 1000, one)
        if known is not one and known.sample.at_ms <= at_ms:
            found[number][at_ms // 1000] = one
    return found


def newest(once: Once) -> dict[tuple[str, str], Said]:
    """The newest sample of each device of each node, by peer and device id."""
    last = (seconds[max(seconds)] for seconds in once.values())
    return {(one.peer_id, one.device_id): one for one in last}


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
