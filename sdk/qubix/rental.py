# SPDX-License-Identifier: Apache-2.0
"""A rented device in the hands of its consumer."""

import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from qubix.errors import BadUsage, Conflict, RentalEnded
from qubix.follow import Deadline, Follower
from qubix.job import AsyncJob
from qubix_protocol.api import ListingView
from qubix_protocol.messages import ExtendOrder, RentOrder
from qubix_protocol.rentals import ExtendBody, RentalBody, RentalView, SettleView
from qubix_protocol.states import Availability, RentalState

if TYPE_CHECKING:
    from qubix.async_client import AsyncClient

START_S: Final = 120.0
"""Longer than the market lets a device take to start."""


class AsyncRental:
    """Made by `AsyncClient.rent` and `AsyncClient.rental`. `view` is what was heard last.

    As a context manager it waits until the device answers, and stops the rental at the end.
    """

    def __init__(self, client: "AsyncClient", view: RentalView) -> None:
        self._client: Final = client
        self.view = view

    async def __aenter__(self) -> Self:
        await self.wait_started()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def id(self) -> str:
        return self.view.rental_id

    @property
    def over(self) -> bool:
        return self.view.state is RentalState.ENDED

    async def refresh(self) -> RentalView:
        """Asks anew."""
        self.view = await self._client.session.get(f"/rentals/{self.id}", RentalView)
        return self.view

    async def follow(self, timeout_s: float | None = None) -> AsyncGenerator[RentalView, None]:
        """Its views until it is over, the first one at once. Raises `NotFinished` after `timeout_s`."""
        deadline = Deadline(timeout_s, f"rental {self.id}")
        follower = Follower(self._client.session, f"rental:{self.id}", f"/rentals/{self.id}", RentalView)
        try:
            yield self.view
            while not self.over:
                view = await follower.look(deadline.left_s())
                if view is not None:
                    self.view = view
                    yield view
        finally:
            await follower.close()

    async def wait_started(self, timeout_s: float = START_S) -> RentalView:
        """Until the device has answered. Raises `RentalEnded` when it never does, `NotFinished`."""
        async with aclosing(self.follow(timeout_s)) as views:
            async for view in views:
                if view.started_ms is not None or self.over:
                    break
        if self.over:
            raise ended(self.view)
        return self.view

    async def wait(self, timeout_s: float | None = None) -> RentalView:
        """Until it is over, however it ends. Raises `NotFinished`."""
        async with aclosing(self.follow(timeout_s)) as views:
            async for _ in views:
                pass
        return self.view

    async def submit(self, kernel: str, /, **given: Any) -> AsyncJob:
        """As `AsyncClient.submit`, on this device; it costs nothing further. Jobs run one by one, in their order."""
        return await self._client.submit(kernel, cap_qu=0, rental=self.id, **given)

    async def submit_model(self, model: Any, inputs: Any, /, **given: Any) -> AsyncJob:
        """As `AsyncClient.submit_model`, on this device; it costs nothing further."""
        return await self._client.submit_model(model, inputs, cap_qu=0, rental=self.id, **given)

    async def extend(
        self, seconds: int, *, cap_qu: int | None = None, idempotency_key: str | None = None
    ) -> RentalView:
        """More time at the same rate; a repeated try extends once."""
        key, session = idempotency_key or str(uuid.uuid4()), self._client.session
        order = ExtendOrder(idempotency_key=key, rental_id=self.id, seconds=seconds, cap_qu=cap_qu)
        body = ExtendBody(seconds=seconds, cap_qu=cap_qu, order=await _signed(self._client, order))
        self.view = await session.post(f"/rentals/{self.id}/extend", body, RentalView, key=key)
        return self.view

    async def stop(self) -> RentalView:
        """Ends it: the answered time is paid, the rest returned at once, and its jobs stop. Asking twice is fine."""
        self.view = await self._client.session.post(f"/rentals/{self.id}/stop", None, RentalView)
        return self.view

    async def settle(self) -> SettleView:
        """Has done what is due; anybody may ask."""
        return await self._client.session.post(f"/rentals/{self.id}/settle", None, SettleView)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id}, {self.view.state})"


def ended(view: RentalView) -> RentalEnded:
    return RentalEnded(
        f"rental {view.rental_id} is over: {view.reason_text}",
        rental_id=view.rental_id,
        reason=view.reason,
        detail=view.detail,
        remedy="Rent another device.",
    )


def chosen(found: Sequence[ListingView], listing: str | None, rate_max: int | None) -> list[ListingView]:
    """Those to try, cheapest first. Raises `BadUsage` that says what excluded all of them."""
    if listing is not None:
        named = [one for one in found if one.listing_id == listing]
        if not named:
            raise BadUsage(
                "listing", f"no device in the market has the listing {listing}", "Take one of client.offers()"
            )
        return named
    if not found:
        raise BadUsage("listing", "no device in the market fits", "Leave out a filter, or wait for a device")
    free = [one for one in found if one.availability is Availability.AVAILABLE]
    if not free:
        raise BadUsage("listing", f"none of the {len(found)} that fit is free now", "Try again in a moment")
    cheap = [one for one in free if rate_max is None or one.rate_qu_per_h <= rate_max]
    if not cheap:
        least = min(one.rate_qu_per_h for one in free)
        raise BadUsage("rate_qu_per_h_max", f"the cheapest asks {least} QU an hour", f"Agree to {least} QU an hour")
    return sorted(cheap, key=lambda one: (one.rate_qu_per_h, one.listing_id))


async def start(
    client: "AsyncClient",
    offers: Sequence[ListingView],
    *,
    seconds: int,
    rate_max: int | None,
    cap_qu: int | None,
    key: str | None,
) -> RentalView:
    """Rents the first that is still free. Raises `Conflict`.

    All are asked for under one key, which the market keeps with the one that it rents out: a repeated try is never a
    second rental, whatever is cheapest by then.
    """
    name, last = key or str(uuid.uuid4()), len(offers) - 1
    for number, one in enumerate(offers):
        # Without a limit of the consumer's, what was seen is what is agreed to.
        rate = one.rate_qu_per_h if rate_max is None else rate_max
        order = RentOrder(
            idempotency_key=name, listing_id=one.listing_id, seconds=seconds, rate_qu_per_h_max=rate, cap_qu=cap_qu
        )
        body = RentalBody(
            listing_id=one.listing_id,
            seconds=seconds,
            rate_qu_per_h_max=rate,
            cap_qu=cap_qu,
            order=await _signed(client, order),
        )
        try:
            return await client.session.post("/rentals", body, RentalView, key=name)
        except Conflict as taken:
            if number == last or taken.field != "listing_id":
                raise
    raise AssertionError("the last try returns or raises")


async def _signed(client: "AsyncClient", order: RentOrder | ExtendOrder) -> str:
    """The order's envelope in hex, addressed to this coordinator."""
    network = await client.session.network()
    sealed = client.wallet.sign_order(
        order,
        network=network.network,
        coordinator_key=bytes.fromhex(network.coordinator_key),
        clock_ms=client.session.clock_ms(),
    )
    return sealed.hex()
