# SPDX-License-Identifier: Apache-2.0
"""Kernels without a verifier: what is delivered is readable, owed, and paid by the consumer's word or when the window
ends (trust.md M3, M5, M6)."""

import asyncio
from collections.abc import Iterator
from uuid import UUID

import pytest
from tortoise.exceptions import IntegrityError

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Principal, Scope
from qubix_coordinator.artifacts import service as artifacts
from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.errors import Conflict, NotFound
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.ledger.audit import audit
from qubix_protocol.envelope import open_envelope
from qubix_protocol.messages import Settlement
from qubix_protocol.states import AttemptState, JobState, Reason
from tests.db.jobs_world import CAP, UNITS, World
from tests.db.unchecked_world import OWED, WINDOW_S, UncheckedWorld
from tests.support.own import unchecked


@pytest.fixture(autouse=True)
def with_orbit() -> Iterator[None]:
    with unchecked.registered():
        yield


async def readable(world: World, digest: bytes) -> bool:
    found = await world.db.run(lambda tx: artifacts.find(tx, world.consumer.account_id, digest))
    return found is not None and found.usable


async def clean(world: World) -> None:
    await world.check_money()
    assert (await world.db.run(audit)).clean


@pytest.mark.asyncio
async def test_delivered_is_readable_and_owed_and_accepting_pays(db: Database) -> None:
    world = await UncheckedWorld(db).open()
    node = await world.node()
    view = await world.assigned()
    await node.whole_job()
    outputs = [link.output_digest for link in node.links]
    assert not any([await readable(world, digest) for digest in outputs]), "nothing is readable before it is owed"
    await world.check()
    job = await world.job(view.job_id)
    assert (job.state, job.reason) == (JobState.DELIVERED, Reason.AWAITING_ACCEPTANCE)
    assert (job.owed_qu, job.held_qu, job.paid_qu) == (OWED, CAP, 0)
    assert job.accept_until_ms == world.desk.now_ms() + WINDOW_S * 1000
    assert [(one.state, one.owed_qu, one.receipt) for one in job.attempts] == [(AttemptState.DELIVERED, OWED, False)]
    assert all([await readable(world, digest) for digest in outputs])
    parts = (await jobs.result(world.desk, world.consumer, view.job_id)).parts
    assert [(part.start, part.stop) for part in parts] == [(0, 25), (25, 50), (50, 75), (75, 100)]
    assert await node.earned_qu() == 0
    await clean(world)

    done = await jobs.accept(world.desk, world.consumer, view.job_id)
    assert (done.state, done.reason) == (JobState.SETTLED, Reason.ACCEPTED_BY_CONSUMER)
    assert (done.owed_qu, done.held_qu, done.paid_qu + done.fee_qu) == (0, 0, OWED)
    assert done.paid_qu == await node.earned_qu()
    assert done.attempts[0].state is AttemptState.ACCEPTED
    again = await jobs.accept(world.desk, world.consumer, view.job_id)
    assert again == done
    (receipt,) = (await jobs.receipts(world.desk, world.consumer, view.job_id)).receipts
    opened = open_envelope(
        bytes.fromhex(receipt.settlement), network="devnet", audience=world.key.public, now_ms=world.desk.now_ms()
    )
    assert opened.body(Settlement).paid_qu == done.paid_qu
    await clean(world)


@pytest.mark.asyncio
async def test_the_window_ends_and_pays_by_default(db: Database) -> None:
    """trust.md M5: nobody says anything, and it is paid."""
    world = await UncheckedWorld(db).open()
    node = await world.node()
    job = await world.delivered(node)
    await world.pass_time(WINDOW_S - 3_600, step_s=3_600)
    assert (await world.job(job.job_id)).state is JobState.DELIVERED
    await world.pass_time(3_600, step_s=1_200)
    done = await world.job(job.job_id)
    assert (done.state, done.reason) == (JobState.SETTLED, Reason.NOT_DISPUTED)
    assert done.paid_qu == await node.earned_qu() > 0
    await clean(world)


@pytest.mark.asyncio
async def test_a_checked_kernel_never_waits_for_the_consumers_word(db: Database) -> None:
    """trust.md M6."""
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    with pytest.raises(Conflict, match="checked"):
        await jobs.accept(world.desk, world.consumer, view.job_id)
    await node.whole_job()
    await world.check()
    job = await world.job(view.job_id)
    assert (job.state, job.accept_until_ms, job.owed_qu) == (JobState.SETTLED, None, 0)
    with pytest.raises(Conflict, match="checked"):
        await jobs.accept(world.desk, world.consumer, view.job_id)


@pytest.mark.asyncio
async def test_what_cannot_be_read_is_never_delivered(db: Database) -> None:
    """The form is checked where nothing else can be: the good start is owed, the rest runs elsewhere."""
    world = await UncheckedWorld(db).open()
    bad, good = await world.node(), await world.node(rate_qu_per_h=7_200_000)
    view = await world.assigned()
    await bad.whole_job()
    await world.check([True, False, True, True])
    job = await world.job(view.job_id)
    assert job.state is JobState.ASSIGNED
    assert (job.owed_qu, job.units_accepted) == (OWED // 4, 25)
    assert job.attempts[0].state is AttemptState.REJECTED
    attempt = await good.accept()
    assert attempt.ranges == [[25, 100]], "what is owed for is made by nobody else"
    for start in (25, 50, 75):
        await good.work(start, start + 25, 2_500, took_s=2.5)
    await good.report()
    await world.check()
    done = await jobs.accept(world.desk, world.consumer, view.job_id)
    assert done.state is JobState.SETTLED
    assert [one.paid_qu + one.fee_qu for one in done.attempts] == [OWED // 4, 15_000]
    assert [one.state for one in done.attempts] == [AttemptState.REJECTED, AttemptState.ACCEPTED]
    assert sum(one.units_accepted for one in done.attempts) == UNITS
    await clean(world)


@pytest.mark.asyncio
@pytest.mark.parametrize("word", ["cancel", "expire"])
async def test_a_part_is_delivered_before_the_job_ends(db: Database, word: str) -> None:
    """What was made until then is owed and may be disputed; the job ends as it was to end."""
    world = await UncheckedWorld(db).open()
    node = await world.node()
    view = await world.assigned(deadline_s=60)
    await node.accept()
    await node.work(0, 25, 2_500, took_s=2.5)
    if word == "cancel":
        await world.cancel(view.job_id)
    else:
        await world.pass_time(70, step_s=2)
    await world.check()
    reason = Reason.CANCELLED_BY_CONSUMER if word == "cancel" else Reason.EXPIRED
    job = await world.job(view.job_id)
    assert (job.state, job.reason, job.owed_qu > 0) == (JobState.DELIVERED, reason, True)
    assert len((await jobs.result(world.desk, world.consumer, view.job_id)).parts) == 1
    with pytest.raises(Conflict, match="delivered"):
        await world.cancel(view.job_id)
    done = await jobs.accept(world.desk, world.consumer, view.job_id)
    assert (done.state, done.reason) == (JobState.CANCELLED if word == "cancel" else JobState.FAILED, reason)
    assert done.paid_qu + done.fee_qu == job.owed_qu
    assert done.returned_qu == CAP - job.owed_qu
    await clean(world)


@pytest.mark.asyncio
async def test_a_job_with_nothing_delivered_ends_at_once(db: Database) -> None:
    world = await UncheckedWorld(db).open()
    node = await world.node()
    view = await world.assigned()
    await node.accept()
    job = await world.cancel(view.job_id)
    assert (job.state, job.returned_qu) == (JobState.CANCELLED, CAP)
    with pytest.raises(Conflict, match="no result"):
        await jobs.result(world.desk, world.consumer, view.job_id)
    again = await jobs.accept(world.desk, world.consumer, view.job_id)
    assert again.paid_qu == 0


@pytest.mark.asyncio
async def test_accepting_is_the_consumers_and_not_before_there_is_anything(db: Database) -> None:
    world = await UncheckedWorld(db).open()
    node = await world.node()
    view = await world.assigned()
    with pytest.raises(Conflict, match="nothing to accept"):
        await jobs.accept(world.desk, world.consumer, view.job_id)
    await node.whole_job()
    await world.check()
    owner = await world.db.run(lambda tx: accounts.account_of_node(tx, node.peer))
    with pytest.raises(NotFound):
        await jobs.accept(world.desk, Principal(owner, frozenset({Scope.USER})), view.job_id)
    assert (await world.job(view.job_id)).state is JobState.DELIVERED


@pytest.mark.asyncio
async def test_work_that_nobody_could_check_earns_no_reputation(db: Database) -> None:
    """trust.md C5."""
    world = await UncheckedWorld(db).open()
    node = await world.node()
    job = await world.delivered(node)
    await jobs.accept(world.desk, world.consumer, job.job_id)
    assert await db.fetch("SELECT jobs_accepted, verified FROM listing") == [{"jobs_accepted": 0, "verified": False}]


@pytest.mark.asyncio
async def test_anybody_may_have_what_is_due_done(db: Database) -> None:
    world = await UncheckedWorld(db).open()
    node = await world.node()
    view = await world.submit(deadline_s=3_600)
    assert await jobs.settle_due(world.desk, UUID(view.job_id)) == world.desk.now_ms() + 3_600_000
    await world.engine.tick()
    await node.whole_job()
    await world.check()
    until_ms = (await world.job(view.job_id)).accept_until_ms
    assert await jobs.settle_due(world.desk, UUID(view.job_id)) == until_ms
    world.clock.advance(WINDOW_S)
    assert await jobs.settle_due(world.desk, UUID(view.job_id)) is None
    assert (await world.job(view.job_id)).state is JobState.SETTLED
    with pytest.raises(NotFound):
        await jobs.settle_due(world.desk, UUID(int=7))
    await clean(world)


@pytest.mark.asyncio
async def test_what_is_due_is_done_without_an_engine(db: Database) -> None:
    """A recorded verdict is applied, a silent attempt ended, an expired job closed: by whoever asks."""
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned(deadline_s=60)
    await node.accept()
    world.clock.advance(61)
    await jobs.settle_due(world.desk, UUID(view.job_id))
    job = await world.job(view.job_id)
    assert (job.state, job.reason, job.returned_qu) == (JobState.FAILED, Reason.EXPIRED, CAP)


@pytest.mark.asyncio
async def test_accepting_the_windows_end_and_settling_race_to_one_payment(db: Database) -> None:
    world = await UncheckedWorld(db).open()
    node = await world.node()
    job = await world.delivered(node)
    world.clock.advance(WINDOW_S)
    key = UUID(job.job_id)
    await asyncio.gather(
        *[jobs.accept(world.desk, world.consumer, job.job_id) for _ in range(4)],
        *[jobs.settle_due(world.desk, key) for _ in range(4)],
        world.engine.tick(),
    )
    done = await world.job(job.job_id)
    assert done.state is JobState.SETTLED
    assert done.paid_qu + done.fee_qu == OWED
    assert done.paid_qu == await node.earned_qu()
    await clean(world)


@pytest.mark.asyncio
async def test_several_hands_are_each_paid_their_own(db: Database) -> None:
    world = await UncheckedWorld(db).open()
    one, two = await world.node(), await world.node()
    view = await world.assigned(spread=2)
    attempts = [await node.accept() for node in (one, two)]
    for part in (0, 25):
        for node, attempt in zip((one, two), attempts, strict=True):
            start = attempt.ranges[0][0] + part
            await node.work(start, start + 25, 2_500, took_s=2.5)
    for node in (one, two):
        await node.report()
        await world.check()
        state = (await world.job(view.job_id)).state
        assert (state is JobState.DELIVERED) == (node is two)
    done = await jobs.accept(world.desk, world.consumer, view.job_id)
    assert done.state is JobState.SETTLED
    assert [each.paid_qu + each.fee_qu for each in done.attempts] == [OWED // 2, OWED // 2]
    assert await one.earned_qu() == await two.earned_qu() > 0
    await clean(world)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE job SET due_ms = NULL",
        "UPDATE job SET owed_qu = cap_qu + 1",
        "UPDATE job SET owed_qu = 0",
        "UPDATE job SET has_verifier = true",
        "UPDATE job SET state = 'settled', ended_ms = 1, due_ms = NULL, owed_qu = 0",
        "UPDATE attempt SET paid_qu = 1",
        "UPDATE attempt SET owed_qu = 0",
        "UPDATE link SET paid = true",
    ],
)
async def test_the_database_refuses_by_itself(db: Database, sql: str) -> None:
    world = await UncheckedWorld(db).open()
    await world.delivered(await world.node())
    with pytest.raises(IntegrityError):
        await db.run(lambda tx: execute(tx, sql))
