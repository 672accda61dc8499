# SPDX-License-Identifier: Apache-2.0
"""A rented device in the hands of its consumer."""

import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from qubix import statements
from qubix.errors import BadUsage, Conflict, RentalEnded
from qubix.follow import Deadline, Follower
from qubix.job import AsyncJob
from qubix_protocol.api import ListingView
from qubix_protocol.messages import ExtendOrder, RentOrder
from qubix_protocol.rentals import ExtendBody, RentalBody, RentalGroupView, RentalSettleView, RentalView
from qubix_protocol.states import Availability, DeviceKind, RentalState

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
        body = ExtendBody(
            seconds=seconds,
            cap_qu=cap_qu,
            order=await statements.signed(self._client.session, self._client.wallet, order),
        )
        self.view = await session.post(f"/rentals/{self.id}/extend", body, RentalView, key=key)
        return self.view

    async def stop(self) -> RentalView:
        """Ends it: the answered time is paid, the rest returned at once, and its jobs stop. Asking twice is fine."""
        self.view = await self._client.session.post(f"/rentals/{self.id}/stop", None, RentalView)
        return self.view

    async def settle(self) -> RentalSettleView:
        """Has done what is due; anybody may ask."""
        return await self._client.session.post(f"/rentals/{self.id}/settle", None, RentalSettleView)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id}, {self.view.state})"


class AsyncRentalGroup:
    """Devices of one node rented together; made by `AsyncClient.rent_group` and `AsyncClient.rental_group`. Each of
    `rentals` goes its own way: one that ends leaves the others running.

    As a context manager it waits until all devices answer, and stops all rentals at the end.
    """

    def __init__(self, client: "AsyncClient", view: RentalGroupView) -> None:
        self._client: Final = client
        self.rentals: Final = tuple(AsyncRental(client, one) for one in view.rentals)
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
        return self.view.group_id

    @property
    def over(self) -> bool:
        return self.view.over

    async def refresh(self) -> RentalGroupView:
        """Asks anew."""
        return self._heard(await self._client.session.get(f"/rental-groups/{self.id}", RentalGroupView))

    async def wait_started(self, timeout_s: float = START_S) -> RentalGroupView:
        """Until every device has answered. Stops them all and raises `RentalEnded` when one never does; raises
        `NotFinished`."""
        try:
            for one in self.rentals:
                await one.wait_started(timeout_s)
        except RentalEnded:
            await self.stop()
            raise
        return await self.refresh()

    async def stop(self) -> RentalGroupView:
        """Ends them all: the answered time is paid, the rest returned at once. Asking twice is fine."""
        return self._heard(await self._client.session.post(f"/rental-groups/{self.id}/stop", None, RentalGroupView))

    def _heard(self, view: RentalGroupView) -> RentalGroupView:
        self.view = view
        for one, heard in zip(self.rentals, view.rentals, strict=True):
            one.view = heard
        return view

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id}, {len(self.rentals)} devices)"


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


def chosen_alike(found: Sequence[ListingView], count: int, rate_max: int | None) -> list[ListingView]:
    """The cheapest of each set of `count` or more free devices alike (node, kind, model), the cheapest set first.

    Raises `BadUsage` that says how many there are."""
    sets: dict[tuple[str, DeviceKind, str], list[ListingView]] = {}
    for one in found:
        if one.availability is Availability.AVAILABLE and (rate_max is None or one.rate_qu_per_h <= rate_max):
            sets.setdefault((one.provider, one.kind, one.model), []).append(one)
    for alike in sets.values():
        alike.sort(key=lambda one: (one.rate_qu_per_h, one.listing_id))
    enough = [alike for alike in sets.values() if len(alike) >= count]
    if not enough:
        most = max((len(alike) for alike in sets.values()), default=0)
        raise BadUsage("count", f"no node has {count} such devices free; the most is {most}", "Ask for fewer, or wait")
    enough.sort(key=lambda alike: (sum(one.rate_qu_per_h for one in alike[:count]), alike[0].listing_id))
    return [alike[0] for alike in enough]


def cheapest_alike(found: Sequence[ListingView], first: ListingView, count: int) -> list[ListingView]:
    """The first, and the cheapest free others of its node, kind and model."""
    alike = [
        one
        for one in found
        if (one.provider, one.kind, one.model) == (first.provider, first.kind, first.model)
        and (one.availability is Availability.AVAILABLE and one.listing_id != first.listing_id)
    ]
    return [first, *sorted(alike, key=lambda one: (one.rate_qu_per_h, one.listing_id))[: count - 1]]


async def start(
    client: "AsyncClient",
    offers: Sequence[ListingView],
    *,
    seconds: int,
    rate_max: int | None,
    cap_qu: int | None,
    key: str | None,
    more: Sequence[str] = (),
    count: int = 1,
) -> RentalView:
    """Rents the first that is still free, with what belongs to it. Raises `Conflict`.

    All are asked for under one key, which the market keeps with the one that it rents out: a repeated try is never a
    second rental, whatever is cheapest by then.
    """
    name, last = key or str(uuid.uuid4()), len(offers) - 1
    for number, one in enumerate(offers):
        # Without a limit of the consumer's, what was seen is what is agreed to.
        rate = one.rate_qu_per_h if rate_max is None else rate_max
        order = RentOrder(
            idempotency_key=name,
            listing_id=one.listing_id,
            seconds=seconds,
            rate_qu_per_h_max=rate,
            cap_qu=cap_qu,
            more=tuple(more),
            count=count,
        )
        body = RentalBody(
            listing_id=one.listing_id,
            seconds=seconds,
            rate_qu_per_h_max=rate,
            cap_qu=cap_qu,
            order=await statements.signed(client.session, client.wallet, order),
            more=tuple(more),
            count=count,
        )
        try:
            return await client.session.post("/rentals", body, RentalView, key=name)
        except Conflict as taken:
            if number == last or taken.field != "listing_id":
                raise
    raise AssertionError("the last try returns or raises")


async def start_group(
    client: "AsyncClient",
    offers: Sequence[ListingView],
    listings: Sequence[str],
    count: int | None,
    *,
    seconds: int,
    rate_max: int | None,
    cap_qu: int | None,
    key: str | None,
) -> RentalGroupView:
    """Rents the named listings, or the cheapest so many alike. Raises `BadUsage`, `Conflict`."""
    if listings and count is not None:
        raise BadUsage("count", "listings and count= are two ways to say the same", "Name listings, or give a count")
    if max(len(listings), count or 0) < 2:
        raise BadUsage("count", "a group has two devices or more", "Rent one with client.rent()")
    if listings:
        named = [chosen(offers, one, None)[0] for one in listings]
        rate = max(one.rate_qu_per_h for one in named) if rate_max is None else rate_max
        view = await start(
            client, named[:1], seconds=seconds, rate_max=rate, cap_qu=cap_qu, key=key, more=tuple(listings[1:])
        )
    else:
        assert count is not None
        firsts = chosen_alike(offers, count, rate_max)
        view = await _start_alike(client, offers, firsts, count, seconds, rate_max, cap_qu, key)
    return await client.session.get(f"/rental-groups/{view.group_id}", RentalGroupView)


async def _start_alike(
    client: "AsyncClient",
    offers: Sequence[ListingView],
    firsts: Sequence[ListingView],
    count: int,
    seconds: int,
    rate_max: int | None,
    cap_qu: int | None,
    key: str | None,
) -> RentalView:
    """At the first node that still has so many."""
    name = key or str(uuid.uuid4())
    for number, first in enumerate(firsts):
        # Without a limit of the consumer's, what was seen is what is agreed to.
        seen = max(one.rate_qu_per_h for one in cheapest_alike(offers, first, count))
        rate = seen if rate_max is None else rate_max
        try:
            return await start(client, [first], seconds=seconds, rate_max=rate, cap_qu=cap_qu, key=name, count=count)
        except Conflict as taken:
            if number == len(firsts) - 1 or taken.field not in ("listing_id", "count", "rate_qu_per_h_max"):
                raise
    raise AssertionError("the last try returns or raises")
