# SPDX-License-Identifier: Apache-2.0
"""Jobs on a rented device: they cost nothing further, run there alone and one by one, and end with the rental."""

import pytest
from tortoise.exceptions import IntegrityError

from qubix_coordinator.accounts.rules import Principal
from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.errors import Conflict, InvalidInput, NotFound
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.ledger.audit import audit
from qubix_coordinator.rentals import service as rentals
from qubix_protocol.api import JobView
from qubix_protocol.states import Availability, JobState, Reason
from tests.db.jobs_world import CREDIT, UNITS
from tests.db.rentals_world import HOLD, RentalWorld, Renter

pytestmark = pytest.mark.asyncio


async def submit(world: RentalWorld, rental_id: str, *, who: Principal | None = None, **changes: object) -> JobView:
    body = world.body(**({"cap_qu": 0, "rental": rental_id, "spread": None} | changes))
    key = f"job-{next(world.numbers)}"
    view = await rentals.submit_job(world.desk, who or world.consumer, body, key)
    await world.engine.tick()
    return view


async def work_off(world: RentalWorld, node: Renter) -> None:
    """The job that it has, with the clock standing still: an outage of nobody, and no beat missed."""
    await node.accept()
    for start in range(0, UNITS, 25):
        await node.work(start, start + 25, 2_500, took_s=0.0)
    await node.report()
    await world.check()


async def test_two_jobs_run_one_by_one_without_a_charge(db: Database) -> None:
    world = await RentalWorld(db).open()
    node, other = await world.renter(), await world.renter(rate_qu_per_h=1)
    view = await world.active(node)
    first, second = await submit(world, view.rental_id), await submit(world, view.rental_id)
    assert (first.cap_qu, first.held_qu, first.rental) == (0, 0, view.rental_id)
    states = [(await world.job(one.job_id)).state for one in (first, second)]
    assert states == [JobState.ASSIGNED, JobState.QUEUED]
    assert not await other.told("assign"), "however cheap another is"
    (command,) = await node.told("assign")
    assert (command["rental"], command["rate_qu_per_h"]) == (view.rental_id, 0)
    await work_off(world, node)
    await world.later(1)
    await world.engine.tick()
    await work_off(world, node)
    for one in (first, second):
        done = await world.job(one.job_id)
        assert (done.state, done.paid_qu, done.fee_qu, done.returned_qu) == (JobState.SETTLED, 0, 0, 0)
        assert len((await jobs.result(world.desk, world.consumer, one.job_id)).parts) == 4
        assert len((await jobs.receipts(world.desk, world.consumer, one.job_id)).receipts) == 1
        proof = await world.proof(one.job_id)
        assert (proof.opened.rental, proof.opened.hold_qu, proof.paid_qu) == (view.rental_id, 0, 0)
    await world.later(4)
    await node.answer(view.rental_id)
    ended = await world.stop(view.rental_id)
    assert await world.balance_qu(world.consumer.account_id) == CREDIT - 5_000
    assert ended.returned_qu == HOLD - 5_000
    await world.check_rentals()
    assert (await db.run(audit)).clean


async def test_nobody_else_s_job_goes_to_a_rented_device(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node)
    await node.offer(availability=Availability.RENTED)
    plain = await world.assigned()
    assert (await world.job(plain.job_id)).state is JobState.QUEUED
    assert await world.visible() == 0
    await world.stop(view.rental_id)
    await world.engine.tick()
    await world.pass_time(1)
    assert (await world.job(plain.job_id)).state is JobState.ASSIGNED


async def test_when_the_rental_ends_its_jobs_stop_and_what_was_checked_is_readable(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node)
    running, queued = await submit(world, view.rental_id), await submit(world, view.rental_id)
    await node.accept()
    await node.work(0, 50, took_s=0.0)
    ended = await world.stop(view.rental_id)
    assert ended.held_qu == 0
    (cancel,) = await node.told("cancel")
    assert cancel["reason"] == "rental_ended"
    over = await world.job(queued.job_id)
    assert (over.state, over.reason) == (JobState.FAILED, Reason.RENTAL_ENDED)
    assert (await world.job(running.job_id)).state is JobState.VERIFYING
    await world.check()
    stopped = await world.job(running.job_id)
    assert (stopped.state, stopped.reason, stopped.units_accepted) == (JobState.FAILED, Reason.RENTAL_ENDED, 50)
    assert [(part.start, part.stop) for part in (await jobs.result(world.desk, world.consumer, running.job_id)).parts]
    assert await world.visible() == 1
    assert await db.fetch_value("SELECT failures FROM listing") == 0
    await world.check_rentals()


async def test_nothing_begins_while_the_meter_does_not_run(db: Database) -> None:
    """M9: start-up is free, so nothing is computed in it."""
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.rent(node)
    job = await submit(world, view.rental_id)
    await node.say_yes(view.rental_id)
    await world.engine.tick()
    assert (await world.job(job.job_id)).state is JobState.QUEUED
    await world.rentals.tick()
    await node.answer(view.rental_id)
    await world.later(1)
    await world.engine.tick()
    assert (await world.job(job.job_id)).state is JobState.ASSIGNED
    second = await submit(world, view.rental_id)
    await work_off(world, node)
    await world.later(20)
    await world.engine.tick()
    assert (await world.rental(view.rental_id)).state == "unreachable"
    assert (await world.job(second.job_id)).state is not JobState.SETTLED


async def test_a_wrong_result_on_a_rental_is_tried_again_there(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node)
    job = await submit(world, view.rental_id)
    await node.accept()
    await node.work(0, UNITS, took_s=0.0)
    await node.report()
    await world.check([False])
    await world.engine.tick()
    await work_off(world, node)
    assert (await world.job(job.job_id)).state is JobState.SETTLED
    assert await db.fetch_value("SELECT jobs_rejected FROM listing") == 1


async def test_what_cannot_run_there_is_refused_at_once(db: Database) -> None:
    world = await RentalWorld(db).open()
    node = await world.renter()
    view = await world.active(node)
    with pytest.raises(InvalidInput, match="costs nothing") as priced:
        await submit(world, view.rental_id, cap_qu=5)
    assert priced.value.field == "cap_qu"
    with pytest.raises(InvalidInput, match="costs nothing"):
        await submit(world, view.rental_id, provider=node.peer)
    with pytest.raises(NotFound):
        await submit(world, view.rental_id, who=await world.another())
    with pytest.raises(NotFound):
        await submit(world, "00000000-0000-0000-0000-000000000000")
    with pytest.raises(InvalidInput, match="cap is 0"):
        await world.submit(cap_qu=0)
    await node.offer(rates=())
    with pytest.raises(InvalidInput, match="not measured"):
        await submit(world, view.rental_id)
    await world.stop(view.rental_id)
    with pytest.raises(Conflict, match="over"):
        await submit(world, view.rental_id)


async def test_the_database_keeps_others_off_a_rented_device(db: Database) -> None:
    """Trust B2: one consumer on a device at a time, whoever writes to it."""
    world = await RentalWorld(db).open()
    node = await world.renter()
    await world.assigned()
    with pytest.raises(IntegrityError, match="somebody works"):
        await db.run(lambda tx: execute(tx, "UPDATE listing SET rental_id = gen_random_uuid()"))
    await node.accept()
    await world.pass_time(20)
    view = await world.active(node)
    await submit(world, view.rental_id)
    again = (
        "INSERT INTO attempt SELECT (jsonb_populate_record(a, jsonb_build_object('id', gen_random_uuid(), 'fence', 9,"
        " 'rental_id', NULL, 'job_id', j.id, 'job_no', j.no, 'state', 'empty', 'due_ms', NULL))).*"
        " FROM attempt a, job j WHERE a.rental_id IS NOT NULL AND j.rental_id IS NULL"
    )
    with pytest.raises(IntegrityError, match="rented to somebody else"):
        await db.run(lambda tx: execute(tx, again))
    with pytest.raises(IntegrityError, match="attempt_free_on_rental"):
        await db.run(lambda tx: execute(tx, "UPDATE attempt SET rate_qu_per_h = 1 WHERE rental_id IS NOT NULL"))
    with pytest.raises(IntegrityError, match="job_cap_positive"):
        await db.run(lambda tx: execute(tx, "UPDATE job SET cap_qu = 1 WHERE rental_id IS NOT NULL"))
