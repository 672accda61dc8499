# SPDX-License-Identifier: Apache-2.0
"""What this node says to a rental, from what it knows of itself. Pure. Held times are steady milliseconds."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from qubix_protocol.messages import RentalStart

QUIET_MS: Final = 300_000
"""A rental that the coordinator did not speak of for so long is over: the device must not stay taken for ever."""


@dataclass(slots=True)
class Held:
    rental_id: str
    device_id: str
    heard_ms: int
    told_ends_ms: int | None = None
    """What the coordinator was told in this session of when it must end."""


@dataclass(frozen=True, slots=True)
class End:
    """When a rental must be over, by the coordinator's clock; `said_ms` as it was announced, which does not drift."""

    ends_ms: int
    said_ms: int
    why: str


@dataclass(frozen=True, slots=True)
class Facts:
    devices: Collection[str]
    rate_qu_per_h: int
    draining: bool
    """Nothing new is begun: the node stops, or its maintenance is announced."""
    held: str | None
    """The rental that has the device."""


def obstacle(start: RentalStart, facts: Facts) -> str:
    """Why the device cannot be rented now; "" when it can. One that is rented already says yes again."""
    if facts.held == start.rental_id:
        return ""
    tests = (
        ("draining", facts.draining),
        ("unknown_device", start.device_id not in facts.devices),
        ("price", start.rate_qu_per_h < facts.rate_qu_per_h),
        ("rented", facts.held is not None),
    )
    return next((name for name, bad in tests if bad), "")


def forgotten(held: Held, now_ms: int) -> bool:
    return now_ms - held.heard_ms >= QUIET_MS
