# SPDX-License-Identifier: Apache-2.0
"""A wish from the one before it and a request, and what has become of it. Pure."""

from dataclasses import dataclass, replace
from typing import Final

from msgspec import UNSET

from qubix_protocol.wishes import DeviceWishBody, WishState

AGAIN_FIRST_MS: Final = 60_000
AGAIN_LONGEST_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Wish:
    """`free_ms` by the coordinator's clock."""

    rate_qu_per_h: int | None = None
    paused: bool = False
    free_ms: int | None = None
    why: str = ""


def changed(before: Wish, body: DeviceWishBody, now_ms: int) -> Wish:
    """What the request leaves out stays as it was; a maintenance that is called off takes its reason with it."""
    wish = before
    if body.rate_qu_per_h is not UNSET:
        wish = replace(wish, rate_qu_per_h=body.rate_qu_per_h)
    if body.paused is not UNSET:
        wish = replace(wish, paused=body.paused)
    if body.why is not UNSET:
        wish = replace(wish, why=body.why)
    if body.free_in_s is not UNSET:
        free_ms = None if body.free_in_s is None else now_ms + body.free_in_s * 1000
        wish = replace(wish, free_ms=free_ms, why=wish.why if free_ms is not None else "")
    return wish


def again_ms(refusals: int, now_ms: int) -> int:
    """When a wish that was refused so many times is told again: what the node lacked may have come."""
    pause_ms: int = AGAIN_FIRST_MS << min(refusals - 1, 16)
    return now_ms + min(AGAIN_LONGEST_MS, pause_ms)


def state(revision: int, taken: int | None, problem: str, *, online: bool) -> WishState:
    if taken == revision:
        return WishState.REFUSED if problem else WishState.DONE
    return WishState.WAITING if online else WishState.AWAY
