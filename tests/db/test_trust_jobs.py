# SPDX-License-Identifier: Apache-2.0
"""Providers and consumers who try to be paid, or to read, what is not theirs: one exploit a test, by its rule."""

import asyncio
from typing import Any

import msgspec
import pytest

from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import Conflict, Forbidden, InvalidInput, Refused
from qubix_coordinator.jobs import service as jobs
from qubix_protocol import digests, receipts
from qubix_protocol.envelope import ANYONE
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import ArtifactRequest, Device, KernelRate, Link, Progress, Range
from qubix_protocol.states import Availability, DeviceKind, JobState, Outcome
from tests.db.jobs_world import CAP, FORECAST_MS, GIB, METAS, RATE, UNITS, Node, World
from tests.db.test_jobs_refusals import order

WHOLE_QU = FORECAST_MS * 5 // 4
"""The most that a job here may ever cost at its provider's rate: 1.25 times the frozen forecast."""


async def begun(db: Database, **changes: Any) -> tuple[World, Node, str]:
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned(**changes)
    await node.accept()
    return world, node, view.job_id


async def chunk(node: Node, start: int, stop: int, claimed_ms: int, seconds: int) -> None:
    """Runs so long, with a heartbeat each second, and claims whatever it likes."""
    for _ in range(seconds):
        await node.world.pass_time(1.0)
        await node.beat()
    await node.work(start, stop, claimed_ms, took_s=0.0)


# What a chunk costs -------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_m2_claims_above_all_reason_are_paid_by_observation_and_forecast(db: Database) -> None:
    world, node, job_id = await begun(db)
    await chunk(node, 0, 50, 10**9, 2)
    await chunk(node, 50, UNITS, 10**9, 60)
    await node.report()
    await world.check()
    job = await world.job(job_id)
    assert job.paid_qu + job.fee_qu == WHOLE_QU
    assert await node.earned_qu() == job.paid_qu


@pytest.mark.asyncio
async def test_m2_a_dearer_offer_after_the_assignment_changes_nothing(db: Database) -> None:
    world, node, job_id = await begun(db)
    before = bytes((await node.attempt()).offer_digest)
    await node.offer(rate_qu_per_h=RATE * 1000, rates=(slow(1e-9),))
    await chunk(node, 0, UNITS, 10_000, 10)
    await node.report()
    await world.check()
    attempt = await node.attempt()
    assert (attempt.rate_qu_per_h, attempt.forecast_ms, bytes(attempt.offer_digest)) == (RATE, FORECAST_MS, before)
    assert (await world.job(job_id)).paid_qu + (await world.job(job_id)).fee_qu == 10_000


def slow(flops_per_s: float) -> KernelRate:
    return KernelRate(kernel="matmul", backend="cpu", flops_per_s=flops_per_s, bytes_per_s=0.0)


@pytest.mark.asyncio
@pytest.mark.parametrize("flops_per_s", [5e-324, 1e-297, 1e-9])
async def test_m2_an_offer_that_is_forecast_to_take_for_ever_gets_nothing_and_stops_nobody(
    db: Database, flops_per_s: float
) -> None:
    world = await World(db).open()
    await world.node(rates=(slow(flops_per_s),), rate_qu_per_h=1)
    honest = await world.node()
    await world.assigned()
    assert (await honest.attempt()).forecast_ms == FORECAST_MS


@pytest.mark.asyncio
async def test_m2_a_forecast_of_nothing_pays_almost_nothing(db: Database) -> None:
    """Claiming to be endlessly fast wins the job, at the price of that claim."""
    world = await World(db).open()
    boaster = await world.node(rates=(slow(1e21),))
    view = await world.assigned()
    await boaster.accept()
    await chunk(boaster, 0, UNITS, 10**6, 10)
    await boaster.report()
    await world.check()
    job = await world.job(view.job_id)
    assert (job.state, job.paid_qu + job.fee_qu) == (JobState.SETTLED, 1)


@pytest.mark.asyncio
async def test_m1_a_cap_of_one_is_never_overspent(db: Database) -> None:
    world = await World(db).open()
    node = await world.node(rate_qu_per_h=0)
    view = await world.assigned(cap_qu=1)
    await node.accept()
    await node.work(0, 10)
    await node.report(Outcome.FAILED)
    await world.check()
    job = await world.job(view.job_id)
    assert (job.paid_qu + job.fee_qu, job.returned_qu, job.state) == (1, 0, JobState.FAILED)
    await world.check_money()


# Links --------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "units", [Range(0, 10), Range(0, 50), Range(49, 60), Range(60, 70), Range(50, 101), Range(50, 50), Range(60, 50)]
)
async def test_m3_units_twice_out_of_order_or_not_assigned_are_refused(db: Database, units: Range) -> None:
    world, node, _ = await begun(db)
    await node.work(0, 50)
    link = msgspec.structs.replace(node.next_link(50, UNITS, 1), units=units)
    await node.upload(link)
    with pytest.raises(Conflict, match="units"):
        await node.send(link)
    assert (await node.attempt()).units_done == 50
    await world.check_money()


@pytest.mark.asyncio
async def test_m3_an_heir_cannot_link_units_that_another_was_paid_for(db: Database) -> None:
    world, first, _ = await begun(db)
    await first.work(0, 50)
    await first.report(Outcome.FAILED)
    await world.check()
    heir = await world.node()
    await world.pass_time(2.0)
    attempt = await heir.accept()
    assert attempt.ranges == [[50, UNITS]]
    for start, stop in ((0, 50), (49, UNITS), (0, UNITS)):
        link = heir.next_link(start, stop, 1)
        await heir.upload(link)
        with pytest.raises(Conflict, match="units"):
            await heir.send(link)


@pytest.mark.asyncio
async def test_m3_a_link_is_not_rewritten_with_another_digest_predecessor_or_claim(db: Database) -> None:
    _, node, _ = await begun(db)
    sent = await node.work(0, 50)
    other = node.next_link(0, 50, 1, b"another output")
    await node.upload(other)
    for changes in (
        {"output_digest": other.output_digest, "output_bytes": other.output_bytes},
        {"predecessor": b"\x01" * 32},
        {"claimed_ms": 2**52},
        {"units": Range(0, 51)},
    ):
        with pytest.raises(Conflict, match="other content"):
            await node.send(msgspec.structs.replace(sent, **changes))  # type: ignore[arg-type]
    assert (await node.attempt()).links == 1
    assert await db.fetch_value("SELECT output_digest FROM link") == sent.output_digest


@pytest.mark.asyncio
async def test_m3_the_same_link_sent_at_once_many_times_is_one(db: Database) -> None:
    world, node, _ = await begun(db)
    await world.pass_time(1.0)
    link = node.next_link(0, 50, 500)
    await node.upload(link)
    await asyncio.gather(*(node.send(link) for _ in range(5)))
    attempt = await node.attempt()
    assert (attempt.links, attempt.units_done, attempt.claimed_ms) == (1, 50, 500)


@pytest.mark.asyncio
async def test_m3_an_output_that_somebody_else_sent_is_no_work(db: Database) -> None:
    """Whoever learns the digest of a lost attempt's output must not be paid for naming it."""
    world, first, _ = await begun(db)
    stolen = first.next_link(0, UNITS, 1)
    await first.upload(stolen)
    await world.pass_time(11.0)
    thief = await world.node()
    await world.pass_time(2.0)
    await thief.accept()
    for digest, size in (
        (stolen.output_digest, stolen.output_bytes),
        world.input_of("a", METAS["a"]),
    ):
        named = msgspec.structs.replace(stolen, output_digest=digest, output_bytes=size)
        with pytest.raises(Conflict, match="not here"):
            await thief.send(named)
    await thief.upload(stolen)
    answer = await thief.send(stolen)
    assert answer is not None


@pytest.mark.asyncio
async def test_m3_run_time_that_no_receipt_could_hold_is_refused(db: Database) -> None:
    """Two links of 2^53 ms each would make a settlement that its reader must refuse."""
    world, node, job_id = await begun(db)
    await node.work(0, 50, 2**53)
    link = node.next_link(50, UNITS, 1)
    await node.upload(link)
    with pytest.raises(Conflict, match="claimed"):
        await node.send(link)
    await node.report(Outcome.FAILED)
    await world.check()
    (raw,) = (await jobs.receipts(world.desk, world.consumer, job_id)).receipts
    checked = receipts.check(
        receipts.Receipt(
            network=raw.network,
            provider=raw.provider,
            coordinator_key=bytes.fromhex(raw.coordinator_key),
            report=bytes.fromhex(raw.report),
            settlement=bytes.fromhex(raw.settlement),
        ),
        coordinator_key=world.key.public,
    )
    assert checked.settlement.run_ms == 2**53


# Words that should not hurt -----------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("fraction", [5e-324, 1e-310, 1e-200, 1e-12])
async def test_a_fraction_next_to_nothing_does_not_take_the_consumers_jobs_from_sight(
    db: Database, fraction: float
) -> None:
    world, node, job_id = await begun(db)
    await node.beat(fraction)
    await world.pass_time(1.0)
    assert (await node.attempt()).fraction == fraction
    view = await world.job(job_id)
    assert view.expected_finish_ms is not None
    assert view.expected_finish_ms < view.created_ms + 10 * FORECAST_MS
    assert msgspec.json.encode(view)
    assert (await jobs.list_jobs(world.desk, world.consumer)).jobs


@pytest.mark.asyncio
async def test_m4_what_comes_after_the_cancel_is_kept_and_never_paid(db: Database) -> None:
    world, node, job_id = await begun(db)
    await node.work(0, 50, 2_000, took_s=2.0)
    attempt = await node.attempt()
    await world.cancel(job_id)
    late = node.next_link(50, UNITS, 2_000)
    await node.upload(late)
    with pytest.raises(Refused):
        await node.send(late, attempt)
    await world.check()
    await node.report(attempt=attempt, links=2, units_done=UNITS, head=digests.of_link(late))
    await world.pass_time(1.0)
    job = await world.job(job_id)
    assert (job.state, job.units_accepted, job.paid_qu + job.fee_qu) == (JobState.CANCELLED, 50, 2_000)
    assert job.returned_qu == CAP - 2_000


@pytest.mark.asyncio
async def test_m4_a_race_of_cancel_and_report_has_one_winner_and_the_money_adds_up(db: Database) -> None:
    world, node, job_id = await begun(db)
    await node.work(0, UNITS, 5_000, took_s=5.0)
    await asyncio.gather(world.cancel(job_id), node.report(), return_exceptions=True)
    await world.check()
    job = await world.job(job_id)
    assert (job.state, job.units_accepted) == (JobState.SETTLED, UNITS)
    await world.check_money()


@pytest.mark.asyncio
async def test_m4_a_fence_that_was_never_given_opens_nothing(db: Database) -> None:
    world, node, _ = await begun(db)
    link = node.next_link(0, 50, 1)
    await node.upload(link)
    attempt = await node.attempt()
    for fence in (0, attempt.fence + 1, 2**53):
        with pytest.raises(Refused):
            await jobs.on_progress(
                world.desk,
                node.peer,
                Progress(attempt_id=str(attempt.id), fence=fence, fraction=1.0, elapsed_ms=0, link=link),
                b"raw",
            )
    assert (await node.attempt()).links == 0


# Data ---------------------------------------------------------------------------------------------------------------


def request(attempt: Any, digest: bytes, size_bytes: int, method: str) -> ArtifactRequest:
    return ArtifactRequest(
        method=method, digest=digest, size_bytes=size_bytes, attempt_id=str(attempt.id), fence=attempt.fence
    )


@pytest.mark.asyncio
async def test_d1_an_attempt_cannot_read_another_jobs_inputs_or_any_output(db: Database) -> None:
    world, node, _ = await begun(db)
    attempt = await node.attempt()
    await world.store(b"\x07" * 32, 1_000, None)
    link = node.next_link(0, 50, 1)
    await node.upload(link)
    for digest, size in ((b"\x07" * 32, 1_000), (link.output_digest, link.output_bytes)):
        with pytest.raises(Forbidden):
            await db.run(
                lambda tx, d=digest, s=size: jobs.may_access(tx, node.peer, request(attempt, d, s, "GET"))  # type: ignore[misc]
            )


@pytest.mark.asyncio
async def test_d1_an_attempt_stores_no_more_than_the_jobs_output(db: Database) -> None:
    """One upload at a time was bounded; endless uploads of one attempt must be, too."""
    _, node, _ = await begun(db)
    attempt = await node.attempt()
    size = UNITS * 4 * 4
    for number in range(20):
        link = replace_output(node.next_link(0, UNITS, 1), number, size)
        try:
            await db.run(
                lambda tx, one=link: jobs.may_access(  # type: ignore[misc]
                    tx, node.peer, request(attempt, one.output_digest, one.output_bytes, "PUT")
                )
            )
        except Forbidden:
            break
        await node.upload(link)
    else:
        raise AssertionError("nothing stopped it")
    # What it sent already may still be asked about.
    first = replace_output(link, 0, size)
    await db.run(lambda tx: jobs.may_access(tx, node.peer, request(attempt, first.output_digest, 3_000 + size, "HEAD")))


def replace_output(link: Link, number: int, size: int) -> Link:
    return msgspec.structs.replace(link, output_digest=bytes([number]) * 32, output_bytes=3_000 + size)


# Who deals with whom ------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_m6_a_job_that_names_no_limit_is_not_the_job_that_was_signed_with_one(db: Database) -> None:
    """An order for free work must not start a job at any price, nor the other way round."""
    world, key = await World(db).open(), SigningKey.generate()
    for signed, sent in ((0, None), (None, 0), (5, None), (5, 6)):
        text = order(world, key, "one", rate_qu_per_h_max=signed)
        with pytest.raises(InvalidInput) as refused:
            await jobs.submit(world.desk, world.consumer, world.body(order=text, rate_qu_per_h_max=sent), "one")
        assert refused.value.field == "order.rate_qu_per_h_max"
    for number, limit in enumerate((0, None, 5)):
        text = order(world, key, f"key {number}", rate_qu_per_h_max=limit)
        await jobs.submit(world.desk, world.consumer, world.body(order=text, rate_qu_per_h_max=limit), f"key {number}")


@pytest.mark.asyncio
async def test_m6_an_order_to_anyone_is_no_order_to_this_coordinator(db: Database) -> None:
    world = await World(db).open()
    text = order(world, SigningKey.generate(), "one", audience=ANYONE)
    with pytest.raises(InvalidInput) as refused:
        await jobs.submit(world.desk, world.consumer, world.body(order=text), "one")
    assert refused.value.field == "order"
    assert await db.fetch_value("SELECT count(*) FROM job") == 0


@pytest.mark.asyncio
async def test_one_node_does_not_crowd_the_market_with_devices(db: Database) -> None:
    """The market shows a bounded number of listings: one key must not fill it."""
    world = await World(db).open()
    node = await world.node()

    async def made_up(number: int) -> None:
        device = Device(device_id=f"fake-{number}", kind=DeviceKind.CPU, model="x", memory_bytes=GIB, backends=("cpu",))
        await node.offer(device=device, rate_qu_per_h=0)

    for number in range(63):
        await made_up(number)
    with pytest.raises(Refused, match="64 devices"):
        await made_up(63)
    assert await db.fetch_value("SELECT count(*) FROM listing") == 64
    await node.offer(availability=Availability.BUSY)
    await world.node()
    assert await db.fetch_value("SELECT count(*) FROM listing") == 65
