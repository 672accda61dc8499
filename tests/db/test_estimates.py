# SPDX-License-Identifier: Apache-2.0
"""What is told before anybody pays: who could run it, for how much and how long, and why the others could not."""

from typing import Any

import pytest

from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import InvalidInput
from qubix_coordinator.jobs import service as jobs
from qubix_kernels import get
from qubix_protocol.api import EstimateBody, EstimateView
from qubix_protocol.messages import Device
from qubix_protocol.states import DeviceKind
from tests.db.jobs_world import CREDIT, FEE_BPS, FORECAST_MS, METAS, World


async def asked(world: World, **terms: Any) -> EstimateView:
    body = EstimateBody(kernel="matmul", inputs=METAS, **terms)
    return await jobs.estimate(world.desk, body, world.consumer.account_id)


@pytest.mark.asyncio
async def test_each_offer_is_a_candidate_or_says_what_keeps_it_out(db: Database) -> None:
    world = await World(db).open()
    usual = await world.node(region="there")
    cheap = await world.node(rate_qu_per_h=1_800_000)
    small = Device(device_id="cpu-1", kind=DeviceKind.CPU, model="tiny", memory_bytes=1, backends=("cpu",))
    tiny = await world.node(device=small)
    unmeasured = await world.node(rates=())
    found = await asked(world)
    assert [one.provider for one in found.candidates] == [cheap.peer, usual.peer]
    assert [(one.provider, one.obstacle) for one in found.misfits] == [
        (unmeasured.peer, "unmeasured"),
        (tiny.peer, "memory"),
    ]
    assert [(one.obstacle, one.offers) for one in found.obstacles] == [("unmeasured", 1), ("memory", 1)]
    assert (found.fitting, found.balance_qu, found.cap_least_qu) == (2, CREDIT, 6_250)
    dear = found.candidates[1]
    assert (dear.cost_qu, dear.cost_high_qu, dear.region, dear.affordable) == (FORECAST_MS, 12_500, "there", True)
    assert dear.run_low_ms < dear.run_ms == FORECAST_MS < dear.run_high_ms
    assert dear.time_low_ms < FORECAST_MS < dear.time_ms < dear.time_high_ms


@pytest.mark.asyncio
async def test_c3_the_price_of_the_checks_is_in_the_forecast(db: Database) -> None:
    world = await World(db).open()
    await world.node()
    found = await asked(world)
    (one,) = found.candidates
    assert (found.fee_bps, one.fee_qu) == (FEE_BPS, one.cost_qu * FEE_BPS // 10_000)
    assert one.fee_qu > 0
    assert found.check_flops == get("matmul").check_cost(METAS, {}, found.units).flops > 0


@pytest.mark.asyncio
async def test_the_terms_of_the_job_decide_as_they_will(db: Database) -> None:
    world = await World(db).open()
    usual = await world.node()
    cheap = await world.node(rate_qu_per_h=1_800_000, region="there")
    for terms, obstacle, keeps in (
        ({"cap_qu": 12_499}, "cap", cheap),
        ({"rate_qu_per_h_max": 3_599_999}, "rate", cheap),
        ({"provider": usual.peer}, "provider", usual),
        ({"where": "price>=3_600_000"}, "query", usual),
        ({"where": "region=there"}, "query", cheap),
    ):
        found = await asked(world, **terms)  # type: ignore[arg-type]
        assert [one.provider for one in found.candidates] == [keeps.peer], terms
        assert [one.obstacle for one in found.obstacles] == [obstacle], terms
        assert found.misfits[0].why
    nobody = await asked(world, cap_qu=1)
    assert (nobody.candidates, nobody.fitting, nobody.cap_least_qu) == ((), 0, 6_250)
    late = await asked(world, deadline_s=9)
    assert (late.cap_least_qu, late.obstacles[0].obstacle) == (None, "deadline")
    with pytest.raises(InvalidInput) as refused:
        await asked(world, where="prise<5")
    assert refused.value.field == "where"
    assert "column 1" in str(refused.value)


@pytest.mark.asyncio
async def test_a_job_goes_only_where_its_query_finds(db: Database) -> None:
    """The line is asked whenever the job is dealt out: what changes meanwhile counts."""
    world = await World(db).open()
    cheap = await world.node(rate_qu_per_h=1_800_000, region="here")
    there = await world.node(region="there")
    view = await world.assigned(where="region=there")
    assert view.where == "region=there"
    (attempt,) = (await world.job(view.job_id)).attempts
    assert attempt.provider == there.peer
    waits = await world.assigned(where="region=elsewhere price<=9_999_999")
    await world.pass_time(30.0)
    seen = await world.job(waits.job_id)
    assert seen.attempts == ()
    assert "is not what the job's query asks for" in seen.detail
    await cheap.offer(rate_qu_per_h=1_800_000, region="elsewhere")
    await world.pass_time(60.0, step_s=15.0)
    assert {one.provider for one in (await world.job(waits.job_id)).attempts} == {cheap.peer}
    for line in ("regio=there", "price<"):
        with pytest.raises(InvalidInput) as refused:
            await world.submit(where=line)
        assert refused.value.field == "where"


@pytest.mark.asyncio
async def test_who_is_occupied_comes_last_and_who_is_too_dear_for_the_balance_is_marked(db: Database) -> None:
    world = await World(db).open(credit_qu=20_000)
    await world.node()
    cheap = await world.node(rate_qu_per_h=1_800_000)
    await world.assigned(cap_qu=10_000)
    assert (await cheap.attempt()).rate_qu_per_h == 1_800_000
    found = await asked(world)
    assert [(one.rate_qu_per_h, one.waiting) for one in found.candidates] == [(3_600_000, ""), (1_800_000, "is busy")]
    assert [one.affordable for one in found.candidates] == [False, True]
    anonymous = await jobs.estimate(world.desk, EstimateBody(kernel="matmul", inputs=METAS))
    assert anonymous.balance_qu is None
    assert all(one.affordable for one in anonymous.candidates)


@pytest.mark.asyncio
async def test_what_is_told_is_what_is_frozen(db: Database) -> None:
    """The order of the candidates is the order in which they are asked, and the bound is the one that is reserved."""
    world = await World(db).open()
    for rate in (3_600_000, 1_800_000, 7_200_000):
        await world.node(rate_qu_per_h=rate)
    first = (await asked(world)).candidates[0]
    view = await world.job((await world.assigned(cap_qu=first.cost_high_qu)).job_id)
    (attempt,) = view.attempts
    assert (attempt.provider, attempt.backend) == (first.provider, first.backend)
