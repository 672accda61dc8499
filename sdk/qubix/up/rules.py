# SPDX-License-Identifier: Apache-2.0
"""When a child that died is started again. Pure: the clock is an argument."""

from collections.abc import Sequence
from typing import Final

RESTARTS_MAX: Final = 5
WINDOW_S: Final = 60.0
FIRST_S: Final = 0.25
LONGEST_S: Final = 5.0
BAD_SETTINGS: Final = 2
"""The exit status of every part that was told something it cannot use."""


def recent(deaths_s: Sequence[float], now_s: float) -> list[float]:
    """The deaths that still count."""
    return [at for at in deaths_s if now_s - at < WINDOW_S]


def restart_after_s(deaths: int) -> float | None:
    """Seconds until the next start after so many recent deaths; None to give up."""
    if deaths > RESTARTS_MAX:
        return None
    return min(FIRST_S * 2.0 ** (deaths - 1), LONGEST_S)


def how_it_ended(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
