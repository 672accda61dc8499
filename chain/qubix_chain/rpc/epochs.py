# SPDX-License-Identifier: Apache-2.0
"""When the running epoch ends: Wednesdays at 12:00 UTC (qubic/integration, Partners). A guess, and pure."""

from datetime import datetime, timedelta
from typing import Final

from qubix_chain.rpc.types import EpochEnd, TickInfo

_WEDNESDAY: Final = 2
_HOUR: Final = 12
TICK_S_MAX: Final = 5.0
"""The slowest ticks that the documentation names: fewer than this many go by before the end is a cautious count."""


def next_end(now: datetime) -> datetime:
    """`now` is aware and in UTC; at the very moment of an end it is the one a week later."""
    noon = now.replace(hour=_HOUR, minute=0, second=0, microsecond=0)
    end = noon + timedelta(days=(_WEDNESDAY - now.weekday()) % 7)
    return end if end > now else end + timedelta(days=7)


def end(info: TickInfo, now: datetime) -> EpochEnd:
    at = next_end(now)
    return EpochEnd(info.epoch, at, info.tick + int((at - now).total_seconds() / TICK_S_MAX))
