# SPDX-License-Identifier: Apache-2.0
"""What a settled run leaves behind for the next forecast, and whose runs leave nothing."""

from typing import Any

import pytest

from qubix_coordinator.db.database import Database
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.market import history, learned
from qubix_protocol.api import CandidateView, EstimateBody
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.messages import KernelRate
from qubix_protocol.states import Outcome
from tests.db.jobs_world import FLOPS, FORECAST_MS, METAS, UNITS, Node, World


async def told(world: World) -> CandidateView:
    (found,) = (await jobs.estimate(world.desk, EstimateBody(kernel="matmul", inputs=METAS))).candidates
    return found


async def run(world: World, node: Node, took_ms: int) -> None:
    """A whole job that takes so long, by the node's word and by the coordinator's clock."""
    await node.offer()
    await world.assigned(cap_qu=200_000)
    await node.accept()
    for start in range(0, UNITS, UNITS // 4):
        await node.work(start, start + UNITS // 4, took_ms // 4, took_s=took_ms / 4000)
    await node.report()
    await world.check()


async def kept(db: Database) -> list[dict[str, Any]]:
    return await db.fetch(
        "SELECT subject, backend, size, cardinality(runs) AS runs, run_fit[1] AS mid FROM forecast_fit"
    )


@pytest.mark.asyncio
async def test_a_device_that_is_slower_than_it_says_is_forecast_so(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    before = await told(world)
    assert before.run_ms == FORECAST_MS
    for _ in range(8):
        await run(world, node, FORECAST_MS * 3 // 2)
    after = await told(world)
    assert 1.35 * FORECAST_MS <= after.run_ms <= 1.65 * FORECAST_MS
    assert after.cost_high_qu >= after.cost_qu * 5 // 4
    (row,) = await kept(db)
    assert (row["subject"], row["backend"], row["size"]) == ("matmul", "cpu", history.size_of(FORECAST_MS))
    assert row["runs"] == 8


@pytest.mark.asyncio
async def test_another_claim_changes_no_forecast_that_rests_on_runs(db: Database) -> None:
    """A node that dawdled, and says now that it is slow, is no slower for it; nor does one that boasts get faster."""
    world = await World(db).open()
    node = await world.node()
    for _ in range(8):
        await run(world, node, FORECAST_MS)
    honest = (await told(world)).run_ms
    for factor in (0.5, 2.0):
        pace = factor * FLOPS / FORECAST_MS * 1000
        await node.offer(rates=(KernelRate(kernel="matmul", backend="cpu", flops_per_s=pace, bytes_per_s=1e12),))
        assert (await told(world)).run_ms == pytest.approx(honest, rel=0.3)


@pytest.mark.asyncio
async def test_a_part_says_how_fast_it_was(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    await world.assigned(cap_qu=50_000)
    await node.accept()
    await node.work(0, UNITS // 10, FORECAST_MS // 5, took_s=FORECAST_MS / 5000)
    await node.report(Outcome.FAILED)
    await world.check()
    (row,) = await kept(db)
    assert row["mid"] == pytest.approx(0.693, abs=0.01)
    (around,) = await db.fetch("SELECT cardinality(arounds) AS n FROM forecast_fit")
    assert around["n"] == 0, "what a run that broke off took beside says nothing"


@pytest.mark.asyncio
async def test_bad_work_teaches_nothing(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    await world.assigned()
    await node.accept()
    await node.work(0, UNITS, 1, took_s=1.0)
    await node.report()
    await world.check([False])
    assert await kept(db) == []


@pytest.mark.asyncio
async def test_the_hour_is_known_of_every_kernel_and_fades(db: Database) -> None:
    """A device that is hot, or shared, is slower with a kernel that it was not asked for lately, too."""
    world = await World(db).open()
    knn = {"queries": ArrayMeta("float32", (500, 8)), "data": ArrayMeta("float32", (500, 8))}
    body = EstimateBody(kernel="knn", inputs=knn, params={"k": 3})
    rates = [
        KernelRate(kernel=name, backend="cpu", flops_per_s=FLOPS / FORECAST_MS * 1000, bytes_per_s=1e12)
        for name in ("matmul", "knn")
    ]
    node = await world.node(rates=tuple(rates))

    async def other() -> int:
        await node.offer(rates=tuple(rates))
        return (await jobs.estimate(world.desk, body)).candidates[0].run_ms

    before = await other()
    await run(world, node, FORECAST_MS * 2)
    hot = await other()
    assert before * 1.2 < hot < before * 2
    world.clock.advance(history.LATELY_HALF_MS / 1000)
    assert before * 1.05 < await other() < hot
    world.clock.advance(history.LATELY_KEPT_MS / 1000)
    assert await other() == before


@pytest.mark.asyncio
async def test_what_nobody_ran_for_half_a_year_is_forgotten_however_much_it_is(db: Database) -> None:
    world = await World(db).open()
    await run(world, await world.node(), FORECAST_MS)
    now_ms = world.desk.now_ms()
    await db.fetch(
        "INSERT INTO forecast_fit SELECT 'described ' || n, listing_id, backend, size, pace, runs, arounds, run_fit,"
        " around_fit, $1 FROM forecast_fit, generate_series(1, 5) AS n RETURNING 1",
        now_ms - learned.KEPT_MS - 1,
    )
    assert await learned.forget(db, now_ms=now_ms, batch=2) == 5
    assert [row["subject"] for row in await kept(db)] == ["matmul"]
