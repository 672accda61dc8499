# SPDX-License-Identifier: Apache-2.0
"""Several devices of one node rented together: all or none, whoever else wants them, each metered by itself."""

import asyncio
import dataclasses
import random
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qubix_coordinator.accounts.rules import Principal
from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import (
    CauseReused,
    Conflict,
    InvalidInput,
    NotEnoughBalance,
    NotFound,
    QubixError,
)
from qubix_coordinator.ledger.audit import audit_all_now
from qubix_coordinator.market import service as market
from qubix_coordinator.rentals import rules
from qubix_coordinator.rentals import service as rentals
from qubix_protocol.envelope import seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Device, RentOrder
from qubix_protocol.rentals import RentalBody, RentalGroupView, RentalView
from qubix_protocol.states import DeviceKind, RentalReason, RentalState
from tests.db.rentals_world import HOLD, RATE, SECONDS, RentalWorld, Renter
from tests.db.support_http import assembled, make_person
from tests.support.funds import fund

CREDIT = 1_000_000
MANY = 4


class GroupWorld(RentalWorld):
    """One node with several cards alike and a CPU."""

    node: Renter

    async def fill(self, **changes: Any) -> "GroupWorld":
        await self.open(CREDIT)
        self.node = await self.renter(**changes)
        for number in range(MANY):
            await self.card(self.node, number, **changes)
        return self

    async def card(self, node: Renter, number: int, **changes: Any) -> None:
        device = Device(
            device_id=f"GPU-{number}", kind=DeviceKind.CUDA, model="A card", memory_bytes=2**34, backends=("cuda",)
        )
        await node.offer(**(changes | {"device": device}))

    def listing(self, number: int, node: Renter | None = None) -> str:
        return str(market.listing_id((node or self.node).peer, f"GPU-{number}"))

    async def together(self, *numbers: int, who: Principal | None = None, key: str = "", **changes: Any) -> RentalView:
        first, *more = (self.listing(number) for number in numbers)
        body = RentalBody(**({"listing_id": first, "more": tuple(more), "seconds": SECONDS} | changes))
        return await rentals.create(self.desk, who or self.consumer, body, key or f"rent-{next(self.numbers)}")

    async def group(self, view: RentalView, who: Principal | None = None) -> RentalGroupView:
        assert view.group_id is not None
        return await rentals.get_group(self.desk, who or self.consumer, uuid.UUID(view.group_id))

    async def all_active(self, view: RentalView) -> RentalGroupView:
        for one in (await self.group(view)).rentals:
            await self.node.say_yes(one.rental_id)
        await self.rentals.tick()
        for one in (await self.group(view)).rentals:
            await self.node.answer(one.rental_id)
        return await self.group(view)

    async def taken(self) -> set[str]:
        found = await self.db.fetch("SELECT device_id FROM listing WHERE rental_id IS NOT NULL")
        return {row["device_id"] for row in found}

    async def clean(self) -> None:
        await self.check_rentals()
        report = await audit_all_now(self.db, self.desk.now_ms())
        asked = [one for one in report.violations if not one.check.startswith(("I8", "I9"))]
        assert not asked, asked


async def filled(db: Database, **changes: Any) -> GroupWorld:
    return await GroupWorld(db).fill(**changes)


@pytest.mark.asyncio
async def test_a_group_is_a_rental_for_each_device_and_one_statement(db: Database) -> None:
    world = await filled(db)
    view = await world.together(0, 2, 3)
    group = await world.group(view)
    assert [one.device_id for one in group.rentals] == ["GPU-0", "GPU-2", "GPU-3"]
    assert group.rentals[0] == view
    assert {one.group_id for one in group.rentals} == {group.group_id}
    assert (group.hold_qu, group.held_qu) == (3 * HOLD, 3 * HOLD)
    assert await world.balance_qu(world.consumer.account_id) == CREDIT - 3 * HOLD
    assert await world.taken() == {"GPU-0", "GPU-2", "GPU-3"}
    assert len({one["rental_id"] for one in await world.node.told("rental_start")}) == 3
    await world.all_active(view)
    for _ in range(2):
        await world.later(5)
        for one in group.rentals:
            await world.node.answer(one.rental_id)
    await rentals.stop(world.desk, world.consumer, group.rentals[1].rental_id)
    apart = await world.group(view)
    assert [one.state for one in apart.rentals] == [RentalState.ACTIVE, RentalState.ENDED, RentalState.ACTIVE]
    assert not apart.over
    await world.later(5)
    for one in (apart.rentals[0], apart.rentals[2]):
        await world.node.answer(one.rental_id)
    done = await rentals.stop_group(world.desk, world.consumer, uuid.UUID(group.group_id))
    assert done.over
    assert [one.billed_ms for one in done.rentals] == [15_000, 10_000, 15_000]
    assert {one.reason for one in done.rentals} == {RentalReason.STOPPED_BY_CONSUMER}
    assert done.paid_qu + done.fee_qu == done.owed_qu == 40_000
    assert (done.held_qu, done.returned_qu) == (0, 3 * HOLD - 40_000)
    assert await rentals.stop_group(world.desk, world.consumer, uuid.UUID(group.group_id)) == done
    assert await world.taken() == set()
    await world.clean()


@pytest.mark.asyncio
async def test_so_many_alike_are_the_named_one_and_the_cheapest_others(db: Database) -> None:
    world = await filled(db)
    await world.card(world.node, 1, rate_qu_per_h=RATE // 2)
    await world.card(world.node, 3, rate_qu_per_h=2 * RATE)
    view = await world.together(2, count=3)
    assert [one.device_id for one in (await world.group(view)).rentals] == ["GPU-2", "GPU-1", "GPU-0"]
    with pytest.raises(Conflict, match="1 of the 2") as refused:
        await world.together(3, count=2)
    assert refused.value.field == "count"
    assert await world.taken() == {"GPU-0", "GPU-1", "GPU-2"}, "the CPU of the node is not alike"
    await rentals.stop_group(world.desk, world.consumer, uuid.UUID(str(view.group_id)))
    with pytest.raises(Conflict, match="3 of the 4"):
        await world.together(0, count=4, rate_qu_per_h_max=RATE)
    await world.clean()


@pytest.mark.asyncio
async def test_all_or_none(db: Database) -> None:
    world = await filled(db)
    other = await world.renter()
    await world.card(other, MANY)
    await world.together(1)
    events = len(await world.db.fetch("SELECT 1 FROM event"))
    refusals: list[tuple[type[QubixError], str, dict[str, Any]]] = [
        (Conflict, "more", {"more": (world.listing(1), world.listing(2))}),
        (Conflict, "more", {"more": (world.listing(MANY, other),)}),
        (NotFound, "more", {"more": (str(uuid.uuid4()),)}),
        (InvalidInput, "more", {"more": (world.listing(0),)}),
        (InvalidInput, "more", {"more": ("nothing",)}),
        (InvalidInput, "count", {"more": (world.listing(2),), "count": 2}),
        (InvalidInput, "cap_qu", {"more": (world.listing(2),), "cap_qu": 1}),
        (NotEnoughBalance, "seconds", {"more": (world.listing(2),), "seconds": 500}),
        (Conflict, "rate_qu_per_h_max", {"more": (world.listing(2),), "rate_qu_per_h_max": RATE - 1}),
    ]
    for kind, field, changes in refusals:
        with pytest.raises(kind) as refused:
            await world.together(0, **changes)
        assert refused.value.field == field, changes
        assert kind is not NotEnoughBalance or "for all devices together" in str(refused.value)
    assert await world.taken() == {"GPU-1"}
    assert await db.fetch_value("SELECT count(*) FROM rental") == 1
    assert await db.fetch_value("SELECT count(*) FROM rental_group") == 0
    assert len(await world.db.fetch("SELECT 1 FROM event")) == events, "nobody was told of anything"
    assert await world.balance_qu(world.consumer.account_id) == CREDIT - HOLD
    await world.clean()


@pytest.mark.asyncio
async def test_the_same_key_is_the_same_group(db: Database) -> None:
    world = await filled(db)
    first, again = await asyncio.gather(*(world.together(0, 1, key="k") for _ in range(2)))
    assert first == again
    assert await db.fetch_value("SELECT count(*) FROM rental") == 2
    with pytest.raises(CauseReused):
        await world.together(0, 2, key="k")
    with pytest.raises(CauseReused):
        await world.together(0, key="k")
    assert (await world.together(2, key="alone")).group_id is None


def test_one_device_alone_is_the_request_that_it_was_before() -> None:
    """A retry over an update of the coordinator finds its rental."""
    body = RentalBody(listing_id="7d444840-9dc0-11d1-b245-5ffdce74fad2", seconds=60, order="00")
    assert rentals._digest(body).hex() == "911834e0bb9fc54a42bc4d1236826cbaa1df1271eb3038907fef6e94e8090e16"
    assert rentals._digest(body) != rentals._digest(msgspec.structs.replace(body, count=2))


@pytest.mark.asyncio
async def test_the_signed_order_covers_every_device(db: Database) -> None:
    world, key = await filled(db), SigningKey.generate()
    more = (world.listing(1),)

    def order(**changes: Any) -> str:
        plain: dict[str, Any] = {
            "idempotency_key": "k",
            "listing_id": world.listing(0),
            "seconds": SECONDS,
            "rate_qu_per_h_max": RATE,
            "cap_qu": None,
            "more": more,
        }
        return seal(
            RentOrder(**(plain | changes)),
            key,
            network="devnet",
            audience=world.key.public,
            incarnation=0,
            counter=0,
            expires_ms=world.desk.now_ms() + 60_000,
        ).hex()

    for wrong in ({"more": ()}, {"more": (world.listing(2),)}, {"more": (), "count": 2}):
        with pytest.raises(InvalidInput) as refused:
            await world.together(0, 1, key="k", rate_qu_per_h_max=RATE, order=order(**wrong))
        assert str(refused.value.field).startswith("order.")
    assert await world.taken() == set()
    await world.together(0, 1, key="k", rate_qu_per_h_max=RATE, order=order())
    assert await world.taken() == {"GPU-0", "GPU-1"}


@pytest.mark.asyncio
async def test_a_device_that_declines_ends_its_own_rental_and_leaves_the_others(db: Database) -> None:
    world = await filled(db)
    view = await world.together(0, 1)
    one, other = (await world.group(view)).rentals
    await world.node.say_no(one.rental_id)
    await world.node.say_yes(other.rental_id)
    await world.rentals.tick()
    await world.node.answer(other.rental_id)
    group = await world.group(view)
    assert [rental.state for rental in group.rentals] == [RentalState.ENDED, RentalState.ACTIVE]
    assert (group.held_qu, group.returned_qu) == (HOLD, HOLD)
    await world.clean()


@pytest.mark.asyncio
async def test_a_cap_is_for_all_of_them_and_lasts_equally_long(db: Database) -> None:
    world = await filled(db)
    await world.card(world.node, 1, rate_qu_per_h=RATE // 3)
    group = await world.group(await world.together(0, 1, cap_qu=40_000))
    assert [one.hold_qu for one in group.rentals] == [29_999, 10_000]
    assert sum(one.hold_qu for one in group.rentals) <= 40_000


def test_shares_of_a_cap() -> None:
    draw = random.Random(7)
    for _ in range(2_000):
        rates = [draw.choice([0, 1, 999, RATE, 10**12]) for _ in range(draw.randint(1, 8))]
        seconds, cap = draw.randint(10, 10**6), draw.choice([None, 1, 10, 10**6, 10**15])
        shares = rules.shares_qu(rates, seconds, cap)
        whole = [rules.hold_qu(rate, seconds, None) for rate in rates]
        if shares is None:
            assert cap is not None
            assert cap < sum(whole)
            continue
        assert min(shares) >= 1
        assert sum(shares) <= (cap or sum(whole))
        assert all(share <= one for share, one in zip(shares, whole, strict=True))
        if len(rates) == 1:
            assert shares == [rules.hold_qu(rates[0], seconds, cap)]


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(3))
async def test_overlapping_groups_at_once_each_get_all_or_none(db: Database, seed: int) -> None:
    """Consumers want two to four of the same cards, by name or by number: no card is rented twice, nobody gets a part
    of what they wanted, and whoever was refused keeps their money."""
    world, draw = await filled(db), random.Random(seed)
    people = [await world.another(CREDIT) for _ in range(6)]

    async def want(who: Principal) -> RentalView | Conflict:
        numbers = draw.sample(range(MANY), draw.randint(2, MANY))
        try:
            if draw.random() < 0.5:
                return await world.together(numbers[0], count=len(numbers), who=who)
            return await world.together(*numbers, who=who)
        except Conflict as taken:
            return taken

    asked = [want(who) for who in people]
    answers = await asyncio.gather(*asked)
    got: list[str] = []
    for who, answer in zip(people, answers, strict=True):
        left_qu = await world.balance_qu(who.account_id)
        if isinstance(answer, Conflict):
            assert left_qu == CREDIT
            continue
        group = await world.group(answer, who)
        assert left_qu == CREDIT - len(group.rentals) * HOLD
        got += [one.device_id for one in group.rentals]
    assert len(got) == len(set(got)) >= 2
    assert await world.taken() == set(got)
    await world.clean()
    stops = [
        rentals.stop_group(world.desk, who, uuid.UUID(str(answer.group_id)))
        for who, answer in zip(people, answers, strict=True)
        if isinstance(answer, RentalView)
    ]
    await asyncio.gather(*stops, *(world.rentals.tick() for _ in range(2)))
    assert await world.taken() == set()
    await world.clean()


@pytest.mark.asyncio
async def test_who_rents_and_stops_other_cards_of_the_node_at_once_does_not_stand_in_the_way(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Each counts those that are left anew: nobody waits for who waits for them, and the last count is right."""
    world = await filled(db)
    people = [await world.another(CREDIT) for _ in range(MANY - 1)]

    async def alike() -> dict[str, int]:
        found = await db.fetch("SELECT device_id, devices_alike FROM listing WHERE rental_id IS NULL AND kind = 'cuda'")
        return {row["device_id"]: row["devices_alike"] for row in found}

    for _ in range(3):
        asked = [world.together(number, who=who) for number, who in enumerate(people)]
        views = await asyncio.gather(*asked, world.card(world.node, MANY - 1))
        assert await alike() == {f"GPU-{MANY - 1}": 1}
        stops = [rentals.stop(world.desk, who, one.rental_id) for who, one in zip(people, views, strict=False)]
        await asyncio.gather(*stops, world.rentals.tick())
        assert await alike() == {f"GPU-{number}": MANY for number in range(MANY)}
    assert "db.retry" not in caplog.messages
    await world.clean()


@pytest.mark.asyncio
async def test_over_http(db: Database, tmp_path: Path) -> None:
    world = await filled(db)
    person = await make_person(db)
    coordinator = await assembled(db, tmp_path, clock=world.clock)
    world.desk = dataclasses.replace(world.desk, key=coordinator.context.key)
    client = coordinator.app.test_client()
    world.consumer = Principal(person.account_id, world.consumer.scopes)
    await fund(db, person.account_id, CREDIT)
    body = {"listing_id": world.listing(0), "seconds": 60, "count": 2}
    headers = person.headers | {"Idempotency-Key": "k"}
    made = await client.post("/api/v1/rentals", json=body, headers=headers)
    assert made.status_code == 201, await made.get_data()
    group_id = (await made.get_json())["group_id"]
    url = f"/api/v1/rental-groups/{group_id}"
    found = await (await client.get(url, headers=person.headers)).get_json()
    assert (len(found["rentals"]), found["over"]) == (2, False)
    stranger = await make_person(db, name="else")
    assert (await client.get(url, headers=stranger.headers)).status_code == 404
    assert (await client.post(f"{url}/stop", headers=stranger.headers)).status_code == 404
    done = await (await client.post(f"{url}/stop", headers=person.headers)).get_json()
    assert (done["over"], done["returned_qu"]) == (True, done["hold_qu"])
    assert (await client.post("/api/v1/rentals", json=body | {"count": 65}, headers=headers)).status_code == 422
