# SPDX-License-Identifier: Apache-2.0
"""What the owner of a device wants of it from afar: its price, a pause, a time at which it must be free.

A wish is whole: it replaces the one before. The coordinator checks whose it is and keeps it; the node carries it out,
keeps it over restarts, and says what came of it.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from qubix_protocol.api import Body, View
from qubix_protocol.messages import Id, Message, Millis, Peer, Rate, Short
from qubix_protocol.selftest import Check
from qubix_protocol.states import Availability, DeviceKind

Revision = Annotated[int, Meta(ge=1, le=2**53)]
FREE_S_MAX = 30 * 86_400


class DeviceWish(Message, frozen=True, kw_only=True, tag="device_wish"):
    """Coordinator → node. Said again until it is answered, and after each handshake; a revision that the node has seen
    changes nothing."""

    device_id: Short
    revision: Revision
    rate_qu_per_h: Rate | None
    """None: what the node's own setting says."""
    paused: bool
    """Nothing new is begun; what runs or is rented goes on to its end."""
    free_ms: Millis | None
    """By the coordinator's clock: consumers are told, nothing new is begun, and from then on nothing runs there."""
    why: Short = ""


class DeviceWishTaken(Message, frozen=True, kw_only=True, tag="device_wish_taken"):
    """Node → coordinator. `problem` is empty when it is done. `rate_qu_per_h`: what the device asks from now on."""

    device_id: Short
    revision: Revision
    problem: Short = ""
    rate_qu_per_h: Rate


class WishState(StrEnum):
    WAITING = "waiting"
    """The node has not answered yet."""
    AWAY = "away"
    """The node cannot be reached: it is told when it comes back."""
    DONE = "done"
    REFUSED = "refused"


class DeviceWishBody(Body, frozen=True, kw_only=True):
    """`PATCH /provider/devices/{listing_id}`: what is left out stays as it was."""

    rate_qu_per_h: Rate | UnsetType | None = UNSET
    """null: what the node's own setting says."""
    paused: bool | UnsetType = UNSET
    free_in_s: Annotated[int, Meta(ge=0, le=FREE_S_MAX)] | UnsetType | None = UNSET
    """Maintenance: so many seconds from now it must be free; null calls it off."""
    why: Short | UnsetType = UNSET
    """What consumers are told."""


class DeviceWishView(View, frozen=True, kw_only=True):
    """The newest wish, and what the node says of it. `answered_ms`: when it said so."""

    state: WishState
    rate_qu_per_h: int | None
    paused: bool
    free_ms: int | None
    why: str
    wished_ms: int
    answered_ms: int | None = None
    problem: str = ""


class RunningView(View, frozen=True, kw_only=True):
    """What is on a device now."""

    job_id: Id | None
    rental_id: Id | None
    kernel: str
    fraction: float
    since_ms: int


class ProviderDeviceView(View, frozen=True, kw_only=True):
    """One device of a node of the account. What it asks and whether it is free is the node's own word; `wish` is the
    owner's."""

    listing_id: Id
    provider: Peer
    device_id: str
    kind: DeviceKind
    model: str
    memory_bytes: int
    online: bool
    availability: Availability
    rate_qu_per_h: int
    verified: bool
    reliability: float
    score: float
    jobs_accepted: int
    jobs_rejected: int
    failures: int
    backoff_ms: int | None
    """Until when the market gives it nothing new, after failures."""
    notice_s: int
    browser: bool
    """A tab shares it: it is set on the page that does."""
    wish: DeviceWishView | None
    running: tuple[RunningView, ...]
    tested_ms: int | None
    """When its last self-test was heard."""
    mend: tuple[Check, ...]
    """What that found to be mended or noted."""


class ProviderDevicesView(View, frozen=True, kw_only=True):
    """`GET /provider/devices`."""

    devices: tuple[ProviderDeviceView, ...]
