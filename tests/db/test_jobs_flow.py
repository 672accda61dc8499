# SPDX-License-Identifier: Apache-2.0
"""A job's life through the real service on a real database, the nodes played by hand."""

import pytest

from qubix_coordinator.db.database import Database
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.market import service as market
from qubix_coordinator.outbox import events
from qubix_coordinator.outbox.rules import START
from qubix_protocol import receipts
from qubix_protocol.api import ListingView
from qubix_protocol.receipts import Receipt
from qubix_protocol.states import JobState, Outcome, Reason
from tests.db.jobs_world import CAP, CREDIT, FEE_BPS, UNITS, World

RATE_TOO_DEAR = 360_000_000


@pytest.mark.asyncio
async def test_a_whole_job_is_checked_paid_and_receipted(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    assert (view.state, view.held_qu) == (JobState.QUEUED, CAP)
    assert (await world.job(view.job_id)).state is JobState.ASSIGNED
    (command,) = [one for one in await world.commands(node) if one["t"] == "assign"]
    assert (command["job_id"], command["units_total"], command["ranges"]) == (
        view.job_id,
        UNITS,
        [{"start": 0, "stop": UNITS}],
    )

    await node.accept()
    assert (await world.job(view.job_id)).state is JobState.RUNNING
    for start in range(0, UNITS, 25):
        await node.work(start, start + 25, 2_500, took_s=2.5)
    await node.report()
    checking = await world.job(view.job_id)
    assert (checking.state, checking.fraction, checking.paid_qu) == (JobState.VERIFYING, 1.0, 0)
    await world.check()

    done = await world.job(view.job_id)
    owed = 10_000
    assert (done.state, done.reason, done.units_accepted) == (JobState.SETTLED, Reason.COMPLETED, UNITS)
    assert (done.paid_qu, done.fee_qu) == (owed - owed * FEE_BPS // 10_000, owed * FEE_BPS // 10_000)
    assert done.held_qu == 0
    assert await node.earned_qu() == done.paid_qu
    assert await world.balance_qu(world.consumer.account_id) == CREDIT - owed
    await world.check_money()

    found = await jobs.result(world.desk, world.consumer, view.job_id)
    assert [(part.start, part.stop) for part in found.parts] == [(0, 25), (25, 50), (50, 75), (75, 100)]
    assert found.outputs["c"].shape == (UNITS, 4)

    (receipt,) = (await jobs.receipts(world.desk, world.consumer, view.job_id)).receipts
    both = receipts.check(
        Receipt(
            network=receipt.network,
            provider=receipt.provider,
            coordinator_key=bytes.fromhex(receipt.coordinator_key),
            report=bytes.fromhex(receipt.report),
            settlement=bytes.fromhex(receipt.settlement),
        ),
        coordinator_key=world.key.public,
    )
    assert both.report is not None
    assert (both.settlement.verdict, both.settlement.paid_qu) == ("accepted", done.paid_qu)


@pytest.mark.asyncio
async def test_everybody_who_watches_hears_of_it(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    await node.whole_job()
    await world.check()
    told = [event.payload for event in await events.read(db, START, [f"job:{view.job_id}"])]
    states = [state for i, state in enumerate(told) if i == 0 or told[i - 1]["state"] != state["state"]]
    assert [one["state"] for one in states] == ["queued", "assigned", "running", "verifying", "settled"]
    assert [one["revision"] for one in told] == sorted({one["revision"] for one in told})
    fractions = [one["fraction"] for one in told]
    assert fractions == sorted(fractions)
    balances = [
        event.payload["account"] for event in await events.read(db, START, [f"account:{world.consumer.account_id}"])
    ]
    assert [(one["balance_qu"], one["held_qu"]) for one in balances][-2:] == [
        (CREDIT - CAP, CAP),
        (CREDIT - 10_000, 0),
    ], "told once of the hold, and once of what was paid out of it and returned together"


@pytest.mark.asyncio
async def test_a_silent_node_is_paid_for_its_checked_chunks_and_another_goes_on(db: Database) -> None:
    """M3, R4.5: kill -9 of the node in the middle."""
    world = await World(db).open()
    first = await world.node()
    view = await world.assigned()
    await first.accept()
    await first.work(0, 40, 4_000, took_s=4.0)
    second = await world.node()
    await world.pass_time(9.0)
    assert (await world.job(view.job_id)).state is JobState.RUNNING
    await world.pass_time(2.0)
    assert (await world.job(view.job_id)).attempts[0].reason is Reason.SILENT
    await world.check()
    await world.engine.tick()

    half = await world.job(view.job_id)
    assert (half.state, half.units_accepted, half.attempts[0].paid_qu > 0) == (JobState.ASSIGNED, 40, True)
    attempt = await second.attempt()
    assert attempt.ranges == [[40, UNITS]]
    await second.accept()
    await second.work(40, 70, 3_000, took_s=3.0)
    await second.work(70, UNITS, 3_000, took_s=3.0)
    await second.report()
    await world.check()
    done = await world.job(view.job_id)
    assert (done.state, done.paid_qu + done.fee_qu) == (JobState.SETTLED, 10_000)
    assert [one.units_accepted for one in done.attempts] == [40, 60]
    assert await first.earned_qu() == 3_900
    await world.check_money()


@pytest.mark.asyncio
async def test_silence_stops_the_meter(db: Database) -> None:
    """B4: two links with a long silence between them, as long as the lease allows."""
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    await node.accept()
    await node.work(0, 50, 60_000, took_s=9.5)
    await node.report(Outcome.FAILED)
    await world.check()
    assert (await world.job(view.job_id)).attempts[0].billed_ms == 4_000


@pytest.mark.asyncio
async def test_heartbeats_keep_the_meter_and_the_lease(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    await node.accept()
    for beat in range(6):
        await world.pass_time(2.0)
        await node.beat(beat / 10)
    job = await world.job(view.job_id)
    assert (job.state, job.fraction) == (JobState.RUNNING, 0.5)
    await node.work(0, UNITS, 60_000, took_s=0.0)
    await node.report()
    await world.check()
    (attempt,) = (await world.job(view.job_id)).attempts
    assert attempt.billed_ms == 12_000


@pytest.mark.asyncio
async def test_a_wrong_result_is_not_paid_and_the_job_completes_elsewhere(db: Database) -> None:
    world = await World(db).open()
    liar = await world.node(rate_qu_per_h=1_800_000)
    honest = await world.node()
    view = await world.assigned()
    await liar.whole_job()
    await world.check([True, False, True, True])

    rejected = (await world.job(view.job_id)).attempts[0]
    assert (rejected.reason, rejected.units_accepted, rejected.verdict) == (Reason.WRONG_RESULT, 25, "rejected")
    offers = {one.provider: one for one in await jobs_listings(world)}
    assert (offers[liar.peer].jobs_rejected, offers[liar.peer].jobs_accepted) == (1, 0)
    await world.engine.tick()
    attempt = await honest.attempt()
    assert attempt.ranges == [[25, UNITS]]
    await honest.accept()
    await honest.work(25, UNITS, 7_500, took_s=7.5)
    await honest.report()
    await world.check()
    done = await world.job(view.job_id)
    assert done.state is JobState.SETTLED
    # The liar's first quarter passed its check: 2.5 s at half the rate, less the fee. The rest earned nothing.
    assert await liar.earned_qu() == 1_250 - 1_250 * FEE_BPS // 10_000
    await world.check_money()


@pytest.mark.asyncio
async def test_a_provider_that_lied_is_not_asked_again_for_this_job(db: Database) -> None:
    world = await World(db).open()
    liar = await world.node()
    view = await world.assigned()
    await liar.whole_job()
    await world.check([False] * 4)
    assert await liar.earned_qu() == 0
    await world.pass_time(31.0, step_s=15.5)
    waiting = await world.job(view.job_id)
    assert (waiting.state, waiting.reason, len(waiting.attempts)) == (JobState.QUEUED, Reason.NOBODY_FITS, 1)
    assert "wrong result" in waiting.detail


async def jobs_listings(world: World) -> list[ListingView]:
    return await market.listings(world.db, now_ms=world.desk.now_ms())


@pytest.mark.asyncio
async def test_an_assignment_that_nobody_answers_goes_elsewhere(db: Database) -> None:
    world = await World(db).open()
    deaf = await world.node(rate_qu_per_h=1_800_000)
    view = await world.assigned()
    await world.pass_time(4.0)
    assert [one["t"] for one in await world.commands(deaf)].count("assign") >= 3
    other = await world.node()
    await world.pass_time(2.0)
    job = await world.job(view.job_id)
    assert [one.reason for one in job.attempts] == [Reason.NOT_ACCEPTED_IN_TIME, Reason.NONE]
    assert job.attempts[1].provider == other.peer


@pytest.mark.asyncio
async def test_a_declined_job_goes_elsewhere(db: Database) -> None:
    world = await World(db).open()
    picky = await world.node(rate_qu_per_h=1_800_000)
    other = await world.node()
    view = await world.assigned()
    await picky.decline()
    await world.engine.tick()
    job = await world.job(view.job_id)
    assert [one.reason for one in job.attempts] == [Reason.DECLINED, Reason.NONE]
    assert job.attempts[1].provider == other.peer


@pytest.mark.asyncio
async def test_five_bad_attempts_end_the_job(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    for number in range(5):
        await node.accept()
        await node.report(Outcome.FAILED)
        while number < 4 and (await world.job(view.job_id)).state is JobState.QUEUED:
            await node.offer()
            await world.pass_time(2.0)
    job = await world.job(view.job_id)
    assert (job.state, job.reason) == (JobState.FAILED, Reason.ATTEMPTS_EXHAUSTED)
    assert (job.returned_qu, len(job.attempts)) == (CAP, 5)
    await world.check_money()


@pytest.mark.asyncio
async def test_a_job_that_nobody_can_run_says_why_and_expires(db: Database) -> None:
    world = await World(db).open()
    await world.node(rate_qu_per_h=RATE_TOO_DEAR)
    view = await world.assigned(deadline_s=60)
    await world.pass_time(31.0, step_s=15.5)
    waiting = await world.job(view.job_id)
    assert (waiting.state, waiting.reason) == (JobState.QUEUED, Reason.TOO_DEAR)
    assert "cap" in waiting.detail
    await world.pass_time(30.0, step_s=15.0)
    job = await world.job(view.job_id)
    assert (job.state, job.reason, job.returned_qu) == (JobState.FAILED, Reason.EXPIRED, CAP)
    await world.check_money()


@pytest.mark.asyncio
async def test_a_running_job_that_expires_pays_what_was_checked(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned(deadline_s=10)
    await node.accept()
    for start in (0, 20, 40):
        await node.work(start, start + 20, 2_000, took_s=2.0)
    await world.pass_time(5.0)
    assert (await world.job(view.job_id)).state is JobState.VERIFYING
    await world.check()
    job = await world.job(view.job_id)
    assert (job.state, job.reason, job.paid_qu + job.fee_qu) == (JobState.FAILED, Reason.EXPIRED, 6_000)
    assert len((await jobs.result(world.desk, world.consumer, view.job_id)).parts) == 3
    assert "cancel" in [one["t"] for one in await world.commands(node)]
    await world.check_money()


@pytest.mark.asyncio
async def test_an_overdue_attempt_ends(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    await node.accept()
    for _ in range(51):
        await world.pass_time(2.0)
        await node.beat()
    job = await world.job(view.job_id)
    assert job.attempts[0].reason is Reason.OVERDUE


@pytest.mark.asyncio
async def test_a_check_that_cannot_be_carried_out_blames_nobody(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    await node.whole_job()
    await world.check(carried_out=False)
    job = await world.job(view.job_id)
    assert (job.state, job.paid_qu, job.attempts[0].reason) == (JobState.ASSIGNED, 0, Reason.CHECK_FAILED)
    (listing,) = await jobs_listings(world)
    assert listing.jobs_rejected == 0


@pytest.mark.asyncio
async def test_a_check_that_never_comes_has_a_default_outcome(db: Database) -> None:
    """M5."""
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    await node.whole_job()
    await world.pass_time(141.0, step_s=47.0)
    job = await world.job(view.job_id)
    assert (job.attempts[0].reason, job.attempts[0].paid_qu) == (Reason.CHECK_FAILED, 0)
    assert job.state in (JobState.QUEUED, JobState.ASSIGNED)
    await world.check_money()


@pytest.mark.asyncio
async def test_leases_pause_while_no_coordinator_runs(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    await node.accept()
    await world.pass_time(2.0)
    world.clock.advance(120.0)
    await world.engine.tick()
    await world.pass_time(8.0)
    assert (await world.job(view.job_id)).state is JobState.RUNNING
    await node.beat()
    await world.pass_time(8.0)
    assert (await world.job(view.job_id)).state is JobState.RUNNING
    await world.pass_time(4.0)
    assert (await world.job(view.job_id)).attempts[0].reason is Reason.SILENT


@pytest.mark.asyncio
async def test_a_node_that_restarted_and_lost_its_work_is_replaced(db: Database) -> None:
    world = await World(db).open()
    node = await world.node(rate_qu_per_h=1_800_000)
    view = await world.assigned()
    await node.accept()
    await jobs.on_hello(world.desk, node.peer, ())
    job = await world.job(view.job_id)
    assert (job.state, job.attempts[0].reason) == (JobState.QUEUED, Reason.NODE_RESTARTED)


@pytest.mark.asyncio
async def test_occupancy_is_kept_by_the_coordinator(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    first, second = await world.submit(), await world.submit()
    await world.engine.tick()
    assert (await world.job(first.job_id)).state is JobState.ASSIGNED
    assert (await world.job(second.job_id)).state is JobState.QUEUED
    await node.whole_job()
    await world.engine.tick()
    assert (await world.job(second.job_id)).state is JobState.ASSIGNED
