# SPDX-License-Identifier: Apache-2.0
"""One rental from its request to its end, through the real service and a real database (R8.1-8.4, B4, P13, M9)."""

import asyncio
from uuid import UUID

import pytest
from tortoise.exceptions import IntegrityError

from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.errors import CauseReused, Conflict, Forbidden, InvalidInput, NotEnoughBalance, NotFound
from qubix_coordinator.ledger.audit import audit
from qubix_coordinator.rentals import service as rentals
from qubix_protocol.states import Availability, RentalReason, RentalState
from tests.db.jobs_world import CREDIT, FEE_BPS
from tests.db.rentals_world import HOLD, RATE, SECONDS, RentalWorld

pytestmark = pytest.mark.asyncio


async def test_a_rental_holds_meters_settles_and_returns(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.rent(node)
    assert (view.state, view.hold_qu, view.held_qu) == (RentalState.REQUESTED, HOLD, HOLD)
    assert await world.balance_qu(world.consumer.account_id) == CREDIT - HOLD
    assert await world.visible() == 0
    assert [one["rental_id"] for one in await node.told("rental_start")] == [view.rental_id]

    await world.later(3)
    await node.say_yes(view.rental_id)
    assert (await world.rental(view.rental_id)).state is RentalState.STARTING
    await world.later(2)
    await node.answer(view.rental_id)
    begun = await world.rental(view.rental_id)
    assert begun.state is RentalState.ACTIVE
    assert begun.billed_ms == 0, "start-up costs nothing"
    assert begun.ends_ms is not None
    assert begun.ends_ms - world.desk.now_ms() == SECONDS * 1000

    await world.beats(node, view.rental_id, 4)
    running = await world.rental(view.rental_id)
    assert (running.billed_ms, running.owed_qu, running.paid_qu) == (20_000, 20_000, 0)
    await world.later(2)
    ended = await world.stop(view.rental_id)
    assert (ended.state, ended.reason) == (RentalState.ENDED, RentalReason.STOPPED_BY_CONSUMER)
    fee = 20_000 * FEE_BPS // 10_000
    assert (ended.paid_qu, ended.fee_qu, ended.returned_qu) == (20_000 - fee, fee, HOLD - 20_000)
    assert await world.balance_qu(world.consumer.account_id) == CREDIT - 20_000
    assert await node.earned_qu() == 20_000 - fee
    assert await world.visible() == 1
    assert [one["reason"] for one in await node.told("rental_end")] == ["stopped_by_consumer"]
    assert await world.stop(view.rental_id) == ended, "stopping twice is fine"
    await world.check_rentals()
    assert (await db.run(audit)).clean


async def test_what_is_billed_is_settled_each_minute(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node)
    await world.beats(node, view.rental_id, 12)
    before = await world.rental(view.rental_id)
    assert before.paid_qu == 0
    await world.beats(node, view.rental_id, 1)
    await world.later(1)
    after = await world.rental(view.rental_id)
    assert after.paid_qu + after.fee_qu == 60_000, "a minute after the first billed time"
    await world.beats(node, view.rental_id, 6)
    await world.later(5)
    ended = await world.rental(view.rental_id)
    assert (ended.state, ended.reason) == (RentalState.ENDED, RentalReason.TIME_OVER)
    assert ended.paid_qu + ended.fee_qu + ended.returned_qu == HOLD
    assert 95_000 <= ended.billed_ms <= 100_000
    await world.check_rentals()


async def test_silence_stops_the_meter_and_then_ends_the_rental(db: Database) -> None:
    """M9: nothing is billed from the last answer on; the rest returns by itself (R8.4)."""
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node)
    await world.beats(node, view.rental_id, 3)
    await world.later(14)
    assert (await world.rental(view.rental_id)).state is RentalState.ACTIVE
    await world.later(1)
    assert (await world.rental(view.rental_id)).state is RentalState.UNREACHABLE
    await world.later(44)
    assert (await world.rental(view.rental_id)).state is RentalState.UNREACHABLE
    await world.later(1)
    ended = await world.rental(view.rental_id)
    assert (ended.state, ended.reason) == (RentalState.ENDED, RentalReason.PROVIDER_GONE)
    assert ended.billed_ms == 15_000
    assert ended.returned_qu == HOLD - 15_000
    assert await db.fetch_value("SELECT failures FROM listing") == 1
    await world.check_rentals()


async def test_m9_time_without_an_answer_is_not_billed_when_the_device_comes_back(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node)
    await world.beats(node, view.rental_id, 2)
    await world.later(30)
    await node.answer(view.rental_id)
    back = await world.rental(view.rental_id)
    assert (back.state, back.billed_ms) == (RentalState.ACTIVE, 10_000)
    await world.beats(node, view.rental_id, 2)
    assert (await world.rental(view.rental_id)).billed_ms == 20_000
    await world.check_rentals()


async def test_m9_a_replayed_early_late_or_foreign_answer_bills_nothing(db: Database) -> None:
    world = await RentalWorld(db).open()
    node, other = await world.renter(), await world.renter()
    mine, theirs = await world.active(node), await world.active(other)
    await world.later(5)
    used = await node.answer(mine.rental_id)
    billed = (await world.rental(mine.rental_id)).billed_ms
    assert billed == 5_000
    # Replayed, and early: nothing is asked.
    await world.later(2)
    await node.answer(mine.rental_id, used)
    await node.answer(mine.rental_id, b"e" * 32)
    assert (await world.rental(mine.rental_id)).billed_ms == billed
    # Another rental's.
    await world.later(3)
    await node.answer(mine.rental_id, await other.nonce(theirs.rental_id))
    assert (await world.rental(mine.rental_id)).billed_ms == billed
    with pytest.raises(Forbidden):
        await other.answer(mine.rental_id, await node.nonce(mine.rental_id))
    # Late: the next question has replaced it.
    old = await node.nonce(mine.rental_id)
    await world.later(16)
    assert await node.nonce(mine.rental_id) != old
    await node.answer(mine.rental_id, old)
    late = await world.rental(mine.rental_id)
    assert (late.billed_ms, late.state) == (billed, RentalState.UNREACHABLE)


async def test_a_rental_that_nobody_takes_costs_nothing(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    silent = await world.rent(node)
    await world.later(10)
    ended = await world.rental(silent.rental_id)
    assert (ended.reason, ended.returned_qu) == (RentalReason.NEVER_STARTED, HOLD)
    assert len(await node.told("rental_start")) > 5, "said again until it is answered"
    declined = await world.rent(node)
    await node.say_no(declined.rental_id, "price")
    over = await world.rental(declined.rental_id)
    assert (over.reason, over.detail, over.returned_qu) == (RentalReason.DECLINED, "price", HOLD)
    unanswered = await world.rent(node)
    await node.say_yes(unanswered.rental_id)
    await world.later(60)
    assert (await world.rental(unanswered.rental_id)).reason is RentalReason.NEVER_STARTED
    assert await world.balance_qu(world.consumer.account_id) == CREDIT
    await world.check_rentals()


async def test_a_cap_below_the_whole_price_ends_the_rental_when_it_is_used_up(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node, cap_qu=12_000)
    assert view.hold_qu == 12_000
    await world.beats(node, view.rental_id, 3)
    ended = await world.rental(view.rental_id)
    assert (ended.reason, ended.billed_ms) == (RentalReason.HOLD_USED_UP, 12_000)
    assert (ended.paid_qu + ended.fee_qu, ended.returned_qu) == (12_000, 0)
    await world.check_rentals()


async def test_an_extension_adds_hold_and_time_once(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node)
    assert view.ends_ms is not None
    longer = await world.extend(view.rental_id, 50, key="once")
    again = await world.extend(view.rental_id, 50, key="once")
    assert (longer.hold_qu, longer.seconds, longer.ends_ms) == (HOLD + 50_000, 150, view.ends_ms + 50_000)
    assert again.hold_qu == longer.hold_qu
    with pytest.raises(CauseReused):
        await world.extend(view.rental_id, 60, key="once")
    await world.beats(node, view.rental_id, 25)
    assert (await world.rental(view.rental_id)).billed_ms == 125_000
    await world.stop(view.rental_id)
    with pytest.raises(Conflict, match="over"):
        await world.extend(view.rental_id, 50)
    await world.check_rentals()


async def test_an_extension_that_comes_after_the_end_is_refused_however_late_the_engine_is(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node)
    for _ in range(20):
        await world.later(4)
        await world.later(1)
        await node.answer(view.rental_id)
        if (await world.rental(view.rental_id)).billed_ms >= 95_000:
            break
    world.clock.advance(5)
    with pytest.raises(Conflict, match="over"):
        await world.extend(view.rental_id, 50)
    assert (await world.rental(view.rental_id)).reason is RentalReason.TIME_OVER
    await world.check_rentals()


async def test_notice_shortens_the_rental_and_says_so(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node, seconds=2_000, cap_qu=HOLD)
    await node.notice(view.rental_id, 700, detail="new fan")
    told = await world.rental(view.rental_id)
    assert told.closing is RentalReason.PROVIDER_MAINTENANCE
    assert told.ends_ms == world.desk.now_ms() + 700_000
    with pytest.raises(Conflict, match="notice"):
        await world.extend(view.rental_id, 50)
    await world.beats(node, view.rental_id, 2)
    assert (await world.rental(view.rental_id)).billed_ms == 10_000, "the meter runs until then"
    await node.notice(view.rental_id, 10, detail="now")
    for _ in range(2):
        await world.later(5)
        if (await world.rental(view.rental_id)).state is not RentalState.ENDED:
            await node.answer(view.rental_id)
    ended = await world.rental(view.rental_id)
    assert (ended.reason, ended.detail) == (RentalReason.SHORT_NOTICE, "now")
    assert await db.fetch_value("SELECT failures FROM listing") == 1
    await world.check_rentals()


async def test_maintenance_with_due_notice_costs_no_reputation(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter(rate_qu_per_h=3_600)
    view = await world.active(node, seconds=2_000)
    await node.notice(view.rental_id, 600)
    for _ in range(42):
        await world.later(14, step_s=7)
        await node.answer(view.rental_id)
    await world.later(14, step_s=7)
    ended = await world.rental(view.rental_id)
    assert ended.reason is RentalReason.PROVIDER_MAINTENANCE
    assert ended.paid_qu + ended.fee_qu == ended.billed_ms // 1000 == 588
    assert await db.fetch_value("SELECT failures FROM listing") == 0
    await world.check_rentals()


async def test_a_lost_device_ends_it_at_once(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node)
    await world.beats(node, view.rental_id, 1)
    await world.later(3)
    await node.notice(view.rental_id, 0, device_lost=True, detail="Xid 79")
    ended = await world.rental(view.rental_id)
    assert (ended.reason, ended.detail, ended.billed_ms) == (RentalReason.DEVICE_LOST, "Xid 79", 5_000)


async def test_two_renters_of_one_device_at_once_one_wins_and_the_other_is_told(db: Database) -> None:
    world = await RentalWorld(db).open()
    node, second = await world.renter(), await world.another()
    both = await asyncio.gather(world.rent(node), world.rent(node, who=second), return_exceptions=True)
    refused = [one for one in both if isinstance(one, BaseException)]
    assert len(refused) == 1
    assert isinstance(refused[0], Conflict)
    assert "rented" in str(refused[0])
    held = [await world.balance_qu(who.account_id) for who in (world.consumer, second)]
    assert sorted(held) == [CREDIT - HOLD, CREDIT]
    await world.check_rentals()


async def test_the_same_key_is_the_same_rental(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    both = await asyncio.gather(world.rent(node, key="k"), world.rent(node, key="k"))
    assert both[0].rental_id == both[1].rental_id
    with pytest.raises(CauseReused):
        await world.rent(node, key="k", seconds=SECONDS + 1)
    assert await world.balance_qu(world.consumer.account_id) == CREDIT - HOLD


async def test_what_cannot_be_rented_is_refused_with_a_remedy(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    with pytest.raises(Conflict, match="more than the 5") as dear:
        await world.rent(node, rate_qu_per_h_max=5)
    assert dear.value.field == "rate_qu_per_h_max"
    with pytest.raises(NotEnoughBalance, match="balance"):
        await world.rent(node, seconds=10_000)
    with pytest.raises(InvalidInput, match="missing"):
        await world.rent(node, key="x" * 201)
    await node.offer(availability=Availability.DRAINING)
    with pytest.raises(Conflict, match="not in the market"):
        await world.rent(node)
    with pytest.raises(NotFound):
        await world.rental("00000000-0000-0000-0000-000000000000")
    view = await world.rent(await world.renter())
    with pytest.raises(NotFound):
        await world.rental(view.rental_id, await world.another())


async def test_a_device_at_work_cannot_be_rented(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    await world.assigned()
    with pytest.raises(Conflict, match="running somebody's job"):
        await world.rent(node)


async def test_the_rate_stays_what_was_agreed_when_the_provider_asks_more(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node)
    await node.offer(rate_qu_per_h=10 * RATE)
    await world.beats(node, view.rental_id, 2)
    assert (await world.stop(view.rental_id)).returned_qu == HOLD - 10_000


async def test_anybody_may_have_settled_what_is_due(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node)
    await world.beats(node, view.rental_id, 1)
    early = await rentals.settle(world.desk, UUID(view.rental_id))
    assert not early.done
    assert early.due_ms is not None
    assert early.due_ms > world.desk.now_ms()
    world.clock.advance(60)
    late = await rentals.settle(world.desk, UUID(view.rental_id))
    assert late.done
    assert (late.state, late.paid_qu + late.fee_qu, late.due_ms) == (RentalState.ENDED, 5_000, None)
    await world.check_rentals()


async def test_deadlines_wait_while_no_coordinator_runs_and_that_time_is_free(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node, seconds=1_000, cap_qu=HOLD)
    await world.beats(node, view.rental_id, 2)
    world.clock.advance(300)
    await world.rentals.tick()
    waiting = await world.rental(view.rental_id)
    assert waiting.state is RentalState.ACTIVE
    await node.answer(view.rental_id)
    await world.beats(node, view.rental_id, 1)
    assert (await world.rental(view.rental_id)).billed_ms == 15_000
    await world.check_rentals()


async def test_a_node_that_comes_back_is_told_what_is_rented_and_what_is_over(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    over = await world.active(node)
    await world.stop(over.rental_id)
    view = await world.active(node)
    before = len(await node.told("rental_start"))
    stranger = "00000000-0000-0000-0000-0000000000aa"
    await rentals.on_hello(world.desk, node.peer, (over.rental_id, stranger))
    assert [one["rental_id"] for one in (await node.told("rental_start"))[before:]] == [view.rental_id]
    assert {one["rental_id"] for one in await node.told("rental_end")} == {over.rental_id, stranger}


async def test_replicas_ask_and_settle_once(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node)
    for _ in range(13):
        world.clock.advance(5)
        await world._ticked()
        await asyncio.gather(*[world.rentals.tick() for _ in range(3)])
        nonce = await node.nonce(view.rental_id)
        await asyncio.gather(*[node.answer(view.rental_id, nonce) for _ in range(3)])
    world.clock.advance(1)
    await asyncio.gather(*[world.rentals.tick() for _ in range(4)])
    now = await world.rental(view.rental_id)
    assert (now.billed_ms, now.paid_qu + now.fee_qu) == (65_000, 60_000)
    await world.check_rentals()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE rental SET paid_qu = hold_qu + 1",
        "UPDATE rental SET state = 'ended', ended_ms = 1, due_ms = NULL",
        "UPDATE rental SET due_ms = NULL",
        "UPDATE rental SET billed_ms = seconds * 1000 + 1",
        "UPDATE rental SET settled_ms = billed_ms + 1",
        "UPDATE rental SET rate_max = rate_qu_per_h - 1",
        "INSERT INTO rental_period (rental_id, listing_no, start_ms, stop_ms)"
        " SELECT rental_id, listing_no, stop_ms - 1, stop_ms + 1 FROM rental_period",
        "INSERT INTO rental SELECT (jsonb_populate_record(r, jsonb_build_object('id', gen_random_uuid(),"
        " 'no', no + 100, 'idempotency_key', 'other'))).* FROM rental r",
    ],
)
async def test_the_database_refuses_by_itself(db: Database, sql: str) -> None:
    """M9, I5: also a second renter, a second billed twice, and an end that leaves money behind."""
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node)
    await world.beats(node, view.rental_id, 2)
    with pytest.raises(IntegrityError):
        await db.run(lambda tx: execute(tx, sql))
