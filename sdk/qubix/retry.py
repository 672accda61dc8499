# SPDX-License-Identifier: Apache-2.0
"""When a request is sent again, and after how long. Pure: chance is an argument."""

from typing import Final

RETRIED_STATUSES: Final = frozenset({429, 502, 503, 504})
FIRST_S: Final = 0.1
LONGEST_S: Final = 5.0


def delay_s(tries: int, draw: float, asked: str = "") -> float:
    """Seconds to wait after `tries` failed ones: doubling, capped, and `draw` in [0, 1) spreads the callers apart.

    `asked` is a Retry-After header in seconds: never come back earlier, within half a minute.
    """
    doubled = min(FIRST_S * 2.0 ** (tries - 1), LONGEST_S)
    wanted = float(asked) if asked.isdigit() else 0.0
    return max(doubled * (0.5 + draw / 2), min(wanted, 30.0))


def may_repeat(status: int, *, repeatable: bool) -> bool:
    """429 was refused before anything was done, so even what is not repeatable may be sent again."""
    return status in RETRIED_STATUSES and (repeatable or status == 429)
