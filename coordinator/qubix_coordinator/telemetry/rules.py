# SPDX-License-Identifier: Apache-2.0
"""Which samples count. Pure."""

from collections.abc import Iterable
from typing import Final

from qubix_protocol.messages import DeviceSample, Sample

KEEP_MS: Final = 24 * 3_600_000
CLOCK_AHEAD_MS_MAX: Final = 120_000
"""A node's clock may run ahead by this much; beyond it a sample would stay the newest for ever."""


def plausible(samples: Iterable[DeviceSample], now_ms: int) -> list[DeviceSample]:
    """Neither from the future nor already past keeping."""
    return [s for s in samples if now_ms - KEEP_MS <= s.sample.at_ms <= now_ms + CLOCK_AHEAD_MS_MAX]


def newest(samples: Iterable[DeviceSample]) -> dict[str, Sample]:
    """The newest sample of each device."""
    found: dict[str, Sample] = {}
    for one in samples:
        if one.device_id not in found or found[one.device_id].at_ms <= one.sample.at_ms:
            found[one.device_id] = one.sample
    return found


def stretch_ms(window_ms: int, most: int) -> int:
    """So long that at most `most` of them cover the window; never below a second, since more is not kept."""
    return max(1_000, -(-window_ms // max(1, most - 1)))
