# SPDX-License-Identifier: Apache-2.0
"""Bodies of the API about rentals: one device of one node, for a time. As in `api`: JSON, whole QU, milliseconds."""

from typing import Annotated

from msgspec import Meta

from qubix_protocol.api import Body, View
from qubix_protocol.messages import Id, Peer, Rate, RentalSeconds
from qubix_protocol.states import DeviceKind, RentalReason, RentalState
from qubix_protocol.units import QU_MAX, RENTALS_MAX

Cap = Annotated[int, Meta(ge=1, le=QU_MAX)]
OrderHex = Annotated[str, Meta(max_length=8192)]


class RentalBody(Body, frozen=True, kw_only=True):
    """`POST /rentals` with an `Idempotency-Key` header. `order` is the hex of a signed `RentOrder` envelope."""

    listing_id: Id
    seconds: RentalSeconds
    rate_qu_per_h_max: Rate | None = None
    """The device may ask at most this; None: what it asks when the request comes. Of several, each."""
    cap_qu: Cap | None = None
    """The most it may cost, of several all together; less than rate × time ends it when that is used up. None: rate ×
    time."""
    order: OrderHex = ""
    more: Annotated[tuple[Id, ...], Meta(max_length=RENTALS_MAX - 1)] = ()
    """Further devices of the same node, rented together with `listing_id`: all or none."""
    count: Annotated[int, Meta(ge=1, le=RENTALS_MAX)] = 1
    """So many devices alike (node, kind, model), `listing_id` and the cheapest free others: all or none."""


class ExtendBody(Body, frozen=True, kw_only=True):
    """`POST /rentals/{id}/extend` with an `Idempotency-Key` header: more time at the same rate. `order` is the hex of a
    signed `ExtendOrder` envelope."""

    seconds: RentalSeconds
    cap_qu: Cap | None = None
    """The most that the added time may cost."""
    order: OrderHex = ""


class RentalView(View, frozen=True, kw_only=True):
    """`hold_qu = held_qu + paid_qu + fee_qu + returned_qu` at any time (trust M1)."""

    rental_id: Id
    state: RentalState
    reason: RentalReason
    reason_text: str
    detail: str
    listing_id: Id
    provider: Peer
    device_id: str
    kind: DeviceKind
    model: str
    backends: tuple[str, ...]
    rate_qu_per_h: int
    seconds: int
    """Agreed, with what it was extended by."""
    hold_qu: int
    held_qu: int
    paid_qu: int
    fee_qu: int
    returned_qu: int
    billed_ms: int
    owed_qu: int
    """For `billed_ms`, settled or not."""
    created_ms: int
    started_ms: int | None
    ends_ms: int | None
    """When it ends by itself; None before it has started."""
    ended_ms: int | None
    answered_ms: int | None
    """When the device last proved that it is there."""
    closing: RentalReason | None = None
    """How it will end at `ends_ms`, when the provider has given notice."""
    settle_due_ms: int | None = None
    """When anybody may have what is billed settled; None while nothing waits for it."""
    revision: int = 0
    group_id: Id | None = None
    """What it was rented together with: `GET /rental-groups/{group_id}`."""


class RentalGroupView(View, frozen=True, kw_only=True):
    """Devices rented together, and their money added up. Each is a rental of its own: it may end before the others."""

    group_id: Id
    provider: Peer
    rentals: tuple[RentalView, ...]
    over: bool
    """All of them are."""
    hold_qu: int
    held_qu: int
    paid_qu: int
    fee_qu: int
    returned_qu: int
    billed_ms: int
    owed_qu: int


class RentalsView(View, frozen=True, kw_only=True):
    rentals: tuple[RentalView, ...]
    next: str | None = None


class RentalSettleView(View, frozen=True, kw_only=True):
    """`POST /rentals/{id}/settle`, which anybody may ask. `done`: something was due and was done."""

    rental_id: Id
    done: bool
    state: RentalState
    paid_qu: int
    fee_qu: int
    returned_qu: int
    due_ms: int | None
    """When there will be something to do; None: never again."""
