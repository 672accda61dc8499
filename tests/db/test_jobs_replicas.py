# SPDX-License-Identifier: Apache-2.0
"""Two coordinators on one database: no job in two pairs of hands, nothing paid twice, no lease that lasts longer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import pytest_asyncio

from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.jobs import verify
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.engine import Engine
from qubix_protocol import barriers
from qubix_protocol.api import JobView
from qubix_protocol.barriers import Barrier
from qubix_protocol.states import AttemptState, JobState
from tests.db.jobs_world import CREDIT, UNITS, Node, World
from tests.support_pg import PgServer, settings_for

pytestmark = pytest.mark.asyncio
NODES, JOBS = 3, 9
WORKED_MS = 2_500
LEASE_MS = 10_000


class Replicas:
    """The world's coordinator and another one with connections of its own; they share clock and key."""

    def __init__(self, world: World, other: Database) -> None:
        self.world = world
        desk = world.desk
        self.first = world.engine
        self.second = Engine(Desk(other, desk.settings, desk.clock, desk.key, desk.network))

    async def tick(self) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(self.first.tick())
            both.create_task(self.second.tick())

    async def record_all(self) -> int:
        """The verifier finds everything good; nobody has applied it yet."""
        found = 0
        while claim := await self.world.db.run(lambda tx: verify.claim(tx, "v", self.world.desk.now_ms())):
            finding = verify.Finding(
                carried_out=True,
                accepted=True,
                reason="ok",
                detail="",
                parts=(True,) * len(claim.outputs),
                seed=bytes(32),
                check_ms=7,
            )
            await self._record(claim.attempt_id, finding)
            found += 1
        return found

    async def _record(self, attempt_id: UUID, finding: verify.Finding) -> None:
        await self.world.db.run(lambda tx: verify.record(tx, attempt_id, "v", finding, self.world.desk.now_ms()))

    async def busy(self, nodes: list[Node]) -> list[Node]:
        """Nodes with an assignment to answer, at most one each; no job is with two of them."""
        rows = await self.world.db.fetch("SELECT job_id, peer_id FROM attempt WHERE state = 'offered'")
        assert len({row["job_id"] for row in rows}) == len(rows)
        assert len({row["peer_id"] for row in rows}) == len(rows)
        for node in nodes:
            told = [one["attempt_id"] for one in await self.world.commands(node) if one["t"] == "assign"]
            assert len(told) == len(set(told)), "an assignment was sent twice"
        return [node for node in nodes if node.peer in {row["peer_id"] for row in rows}]


@pytest_asyncio.fixture
async def replicas(pg_server: PgServer, db: Database) -> AsyncIterator[Replicas]:
    other = await Database.connect(settings_for(pg_server, db.dsn), db.dsn)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(other.close)
        yield Replicas(await World(db).open(), other)


async def test_two_that_tick_at_once_assign_and_pay_everything_once(replicas: Replicas) -> None:
    world = replicas.world
    nodes = [await world.node() for _ in range(NODES)]
    jobs = [await world.submit() for _ in range(JOBS)]
    checked = 0
    for _ in range(JOBS):
        await replicas.tick()
        working = await replicas.busy(nodes)
        if not working:
            break
        for node in working:
            await node.accept()
        world.clock.advance(WORKED_MS / 1000)
        for node in working:
            await node.work(0, UNITS, WORKED_MS, took_s=0.0)
            await node.report()
        checked += await replicas.record_all()
        await replicas.tick()
    assert checked == JOBS, "each was worked on and checked once"
    done = [await world.job(job.job_id) for job in jobs]
    assert {job.state for job in done} == {JobState.SETTLED}
    assert {len(job.attempts) for job in done} == {1}
    await _paid_once(replicas, nodes, done, JOBS)


async def _paid_once(replicas: Replicas, nodes: list[Node], done: list[JobView], links: int) -> None:
    world = replicas.world
    paid = sum(job.paid_qu for job in done)
    assert paid > 0
    assert sum([await node.earned_qu() for node in nodes]) == paid
    spent = sum(job.paid_qu + job.fee_qu for job in done)
    assert await world.balance_qu(world.consumer.account_id) == CREDIT - spent
    assert await world.db.fetch_value("SELECT count(*) FROM link WHERE paid") == links
    await world.check_money()


async def test_one_row_in_somebody_s_hands_is_left_to_them(replicas: Replicas) -> None:
    """SKIP LOCKED: while one replica holds a verdict's job or a listing, the other's tick neither waits nor repeats."""
    world = replicas.world
    node = await world.node()
    view = await world.submit()
    async with world.db.transaction() as tx:
        await tx.execute_query("SELECT id FROM listing FOR UPDATE")
        await asyncio.wait_for(replicas.second.tick(), 20)
        assert (await world.job(view.job_id)).state is JobState.QUEUED
    world.clock.advance(2.0)
    await replicas.tick()
    assert await replicas.busy([node]) == [node]


async def test_a_verdict_that_waits_for_its_job_holds_up_no_other(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One engine alone: somebody has the job of the verdict that came first in hand; the others go on."""
    world, settled = replicas.world, asyncio.Semaphore(0)

    async def count(barrier: Barrier) -> None:
        if barrier is Barrier.SETTLED:
            settled.release()

    monkeypatch.setattr(barriers, "_ports", [count])
    nodes = [await world.node() for _ in range(NODES)]
    jobs = [await world.submit() for _ in nodes]
    await replicas.first.tick()
    for node in nodes:
        await node.accept()
        await node.work(0, UNITS, WORKED_MS, took_s=0.0)
        await node.report()
    assert await replicas.record_all() == NODES
    first = await nodes[0].attempt()
    await world.db.run(lambda tx: execute(tx, "UPDATE verdict SET recorded_ms = 1 WHERE attempt_id = $1", first.id))
    async with world.db.transaction() as tx:
        await tx.execute_query("SELECT id FROM job WHERE id = $1 FOR UPDATE", [first.job_id])
        settling = asyncio.create_task(replicas.first._settle_checked())
        async with asyncio.timeout(20):
            for _ in range(NODES - 1):
                await settled.acquire()
        assert not settling.done()
        assert (await world.job(str(first.job_id))).state is JobState.VERIFYING
    assert await asyncio.wait_for(settling, 20) is False, "nothing is left to check"
    await _paid_once(replicas, nodes, [await world.job(job.job_id) for job in jobs], NODES)


async def _running(replicas: Replicas) -> tuple[Node, int, int]:
    """A node at work, and its attempt's lease and time limit."""
    world = replicas.world
    await replicas.first.tick()
    node = await world.node()
    await world.submit()
    await replicas.first.tick()
    await node.accept()
    attempt = await node.attempt()
    assert attempt.due_ms is not None
    assert attempt.limit_ms is not None
    return node, attempt.due_ms, attempt.limit_ms


async def test_one_that_starts_while_the_other_lives_extends_no_lease(replicas: Replicas) -> None:
    node, due_ms, limit_ms = await _running(replicas)
    world = replicas.world
    for _ in range(9):
        world.clock.advance(1.0)
        await replicas.first.tick()
    await replicas.second.tick()
    attempt = await node.attempt()
    assert (attempt.state, attempt.due_ms, attempt.limit_ms) == (AttemptState.RUNNING.value, due_ms, limit_ms)
    assert due_ms == world.desk.now_ms() - 9_000 + LEASE_MS
    world.clock.advance(1.1)
    await replicas.tick()
    assert (await node.attempt()).state == AttemptState.EMPTY.value, "the silent node's lease ended when it had to"


async def test_one_that_goes_on_while_the_other_dies_extends_no_lease(replicas: Replicas) -> None:
    node, due_ms, limit_ms = await _running(replicas)
    world = replicas.world
    for turn in range(9):
        world.clock.advance(1.0)
        await (replicas.first if turn < 4 else replicas.second).tick()
    attempt = await node.attempt()
    assert (attempt.due_ms, attempt.limit_ms) == (due_ms, limit_ms)


async def test_after_an_outage_of_both_each_lease_is_extended_once(replicas: Replicas) -> None:
    node, _, limit_ms = await _running(replicas)
    world = replicas.world
    world.clock.advance(60.0)
    await replicas.tick()
    attempt = await node.attempt()
    assert attempt.limit_ms == limit_ms + 60_000
    assert attempt.due_ms == world.desk.now_ms() + LEASE_MS


async def test_a_listing_in_somebody_s_hands_does_not_make_a_spread_job_smaller(replicas: Replicas) -> None:
    """Metrics are being noted for one of two nodes: the job waits a moment instead of going to the other one whole."""
    world = replicas.world
    nodes = [await world.node() for _ in range(2)]
    view = await world.submit(spread=2)
    async with world.db.transaction() as tx:
        await tx.execute_query("SELECT id FROM listing WHERE peer_id = $1 FOR UPDATE", [nodes[0].peer])
        await asyncio.wait_for(replicas.second.tick(), 20)
        assert (await world.job(view.job_id)).state is JobState.QUEUED
    world.clock.advance(1.0)
    await replicas.tick()
    assert {one.provider for one in (await world.job(view.job_id)).attempts} == {node.peer for node in nodes}


async def test_two_that_deal_out_at_once_give_each_unit_to_one_hand(replicas: Replicas) -> None:
    """Six nodes, three jobs that each may have four: whoever deals, no node and no unit is in two hands."""
    world = replicas.world
    nodes = [await world.node() for _ in range(6)]
    jobs = [await world.submit(spread=None) for _ in range(NODES)]
    for _ in range(3):
        await replicas.tick()
        world.clock.advance(0.2)
    views = [await world.job(job.job_id) for job in jobs]
    hands = [one for view in views for one in view.attempts]
    assert len({one.provider for one in hands}) == len(hands) <= len(nodes)
    assert all(view.attempts for view in views), "every job has one before any has a second"
    for view in views:
        assert sum(one.units for one in view.attempts) == UNITS
    for node in nodes:
        if (await world.commands(node)) != []:
            await node.accept()
            ((start, stop),) = (await node.attempt()).ranges
            await node.work(start, stop, WORKED_MS, took_s=0.0)
            await node.report()
    assert await replicas.record_all() == len(hands)
    for _ in range(3):
        await replicas.tick()
    done = [await world.job(job.job_id) for job in jobs]
    assert {job.state for job in done} == {JobState.SETTLED}
    assert await world.db.fetch_value("SELECT count(*) FROM link WHERE paid") == len(hands)
    await world.check_money()
