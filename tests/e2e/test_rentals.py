# SPDX-License-Identifier: Apache-2.0
"""Rentals on real processes: rent the device, run jobs on it without a charge, stop it, lose it (R8, B4, M9, P13)."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import qubix
from qubix_protocol.barriers import Barrier
from qubix_protocol.states import Availability, JobState, RentalReason, RentalState
from tests.e2e.test_main_job import DEADLINE_S, audit, client, matrices, offers, until
from tests.support.barriers import Barriers
from tests.support.market import Market

RATE = 3_600_000
"""QU an hour: 1 QU a millisecond."""
QUICK = {"QUBIX_RENTAL_BEAT_S": "0.5", "QUBIX_RENTAL_REACH_S": "6", "QUBIX_RENTAL_SILENCE_S": "8"}


@pytest.fixture
def quick(folder: Path) -> Iterator[Market]:
    with Market(folder, **QUICK) as running:
        running.start_node(QUBIX_NODE_RATE_QU_PER_H=str(RATE), QUBIX_NODE_THREADS="1")
        yield running


def spent(view: object) -> int:
    return view.paid_qu + view.fee_qu  # type: ignore[attr-defined]


def test_two_jobs_on_a_rented_device_cost_its_time_alone_and_the_rest_returns_at_once(quick: Market) -> None:
    with client(quick) as api:
        until(offers(api, 1))
        before = api.account().balance_qu
        began = time.monotonic()
        with api.rent(seconds=300, rate_qu_per_h_max=RATE) as rental:
            assert api.account().balance_qu == before - 300_000
            assert api.offers() == (), "off the market"
            with pytest.raises(qubix.BadUsage, match="no device in the market fits"):
                api.rent(seconds=60)
            a, b = matrices(200)
            for job in [rental.submit("matmul", a=a, b=b), rental.submit("matmul", a=b, b=a)]:
                done = job.wait(DEADLINE_S)
                assert (done.state, done.cap_qu, done.paid_qu, done.rental) == (JobState.SETTLED, 0, 0, rental.id)
            np.testing.assert_allclose(job.result()["c"], b @ a, rtol=1e-3, atol=1e-3)
            assert len(job.receipts()) == 1
            until(lambda: rental.refresh().billed_ms > 0)
        lasted_ms = (time.monotonic() - began) * 1000
        view = rental.view
        assert (view.state, view.reason, view.held_qu) == (RentalState.ENDED, RentalReason.STOPPED_BY_CONSUMER, 0)
        assert 0 < view.billed_ms <= lasted_ms
        assert spent(view) == view.owed_qu == view.billed_ms
        assert api.account().balance_qu == before - view.billed_ms
        until(lambda: [one.availability for one in api.offers()] == [Availability.AVAILABLE])
        assert api.submit("matmul", a=a, b=b, cap_qu=5_000).wait(DEADLINE_S).state is JobState.SETTLED
    audit(quick)


@pytest.mark.slow
def test_a_killed_node_stops_the_meter_at_its_last_answer_and_the_rest_returns(quick: Market) -> None:
    with client(quick) as api:
        until(offers(api, 1))
        before = api.account().balance_qu
        rental = api.rent(seconds=300)
        rental.wait_started()
        until(lambda: rental.refresh().billed_ms > 1_000)
        job = rental.submit("matmul", **dict(zip("ab", matrices(4_000), strict=True)))
        until(lambda: job.refresh().state is JobState.RUNNING)
        quick.parts["node"].kill()
        killed_ms = time.time() * 1000
        view = rental.wait(DEADLINE_S)
        assert (view.reason, view.held_qu) == (RentalReason.PROVIDER_GONE, 0)
        assert view.started_ms is not None
        assert view.answered_ms is not None
        assert view.answered_ms <= killed_ms
        assert view.billed_ms <= view.answered_ms - view.started_ms
        assert spent(view) == view.billed_ms
        assert api.account().balance_qu == before - view.billed_ms
        until(lambda: job.refresh().ended_ms is not None)
        assert job.refresh().reason == "rental_ended"
        quick.start_node(QUBIX_NODE_RATE_QU_PER_H=str(RATE))
        until(offers(api, 1))
    audit(quick)


@pytest.mark.slow
def test_a_node_that_is_back_in_time_goes_on_with_the_rental_and_its_absence_is_free(folder: Path) -> None:
    with Market(folder, **QUICK | {"QUBIX_RENTAL_SILENCE_S": "120"}) as market:
        market.start_node(QUBIX_NODE_RATE_QU_PER_H=str(RATE))
        with client(market) as api:
            until(offers(api, 1))
            with api.rent(seconds=600) as rental:
                until(lambda: rental.refresh().billed_ms > 500)
                market.parts["node"].kill()
                until(lambda: rental.refresh().state is RentalState.UNREACHABLE)
                paused_ms = rental.view.billed_ms
                market.start_node(QUBIX_NODE_RATE_QU_PER_H=str(RATE))
                until(lambda: rental.refresh().billed_ms > paused_ms)
                a, b = matrices(100)
                assert rental.submit("matmul", a=a, b=b).wait(DEADLINE_S).state is JobState.SETTLED
            view = rental.view
            assert view.started_ms is not None
            assert view.answered_ms is not None
            assert view.billed_ms < view.answered_ms - view.started_ms - 5_000, "the absence is not billed"
        audit(market)


@pytest.mark.slow
def test_a_provider_that_stops_its_node_tells_its_renter_and_it_ends_with_a_reason(quick: Market) -> None:
    with client(quick) as api:
        until(offers(api, 1))
        rental = api.rent(seconds=300)
        rental.wait_started()
        quick.parts["node"].stop()
        view = rental.wait(DEADLINE_S)
        assert (view.reason, view.held_qu) == (RentalReason.SHORT_NOTICE, 0)
        assert "stopped" in view.detail
    audit(quick)


@pytest.mark.slow
def test_two_coordinators_meter_once_and_one_of_them_may_die(folder: Path) -> None:
    """The second replica serves the API; the first, which holds the gateway, is killed and comes back."""
    with Market(folder, **QUICK | {"QUBIX_RENTAL_SILENCE_S": "300"}) as market:
        market.start_node(QUBIX_NODE_RATE_QU_PER_H=str(RATE), QUBIX_NODE_THREADS="1")
        second = market.start("second", "qubix_coordinator", QUBIX_HTTP_PORT="0")
        with client(market) as api:
            until(offers(api, 1))
            other = qubix.Client(str(second.info["url"]), token=market.token, data_dir=market.folder / "client")
            with other, other.rent(seconds=300) as rental:
                until(lambda: rental.refresh().billed_ms > 2_000)
                market.parts["coordinator"].kill()
                billed_ms = rental.refresh().billed_ms
                market.start_coordinator()
                until(lambda: rental.refresh().billed_ms > billed_ms + 1_000)
                longer = rental.extend(60)
                assert longer.hold_qu == 360_000
            view = rental.view
            assert view.started_ms is not None
            assert view.answered_ms is not None
            assert view.billed_ms <= view.answered_ms - view.started_ms
            assert spent(view) + view.returned_qu == 360_000
        audit(market)


def cli(market: Market, *arguments: str, code: int = 0) -> str:
    """What `qubix …` says to a script; errors with it."""
    env = {"PATH": "/usr/bin:/bin", **market.env, "QUBIX_DATA_DIR": str(market.folder / "client")}
    env |= {"QUBIX_COORDINATOR_URL": market.url, "QUBIX_TOKEN": market.token, "HOME": str(market.folder)}
    done = subprocess.run(
        [sys.executable, "-m", "qubix", *arguments], env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.mark.slow
def test_a_rental_by_the_command_line(quick: Market) -> None:
    with client(quick) as api:
        until(offers(api, 1))
    told = cli(quick, "rent", "start", "60", code=1)
    assert "at most 60,000 QU are held" in told
    assert "Rent it?" in told
    assert "the cheapest asks" in cli(quick, "rent", "start", "60", "--rate-max", "5", "--yes", code=2)
    made = json.loads(cli(quick, "rent", "start", "60", "--yes", "--json"))
    name = made["rental_id"]
    assert "no device in the market fits" in cli(quick, "rent", "start", "60", "--yes", code=2)
    assert name in cli(quick, "rent", "list")
    longer = json.loads(cli(quick, "rent", "extend", name, "30", "--json"))
    assert (longer["seconds"], longer["hold_qu"]) == (90, 90_000)
    job = cli(quick, "job", "submit", "mandelbrot", "-p", "width=64", "-p", "height=64", "--rental", name, "--watch")
    assert "settled" in job
    assert "Give either --cap or --rental" in cli(quick, "job", "submit", "mandelbrot", code=2)
    over = json.loads(cli(quick, "rent", "stop", name, "--json"))
    assert (over["state"], over["reason"], over["held_qu"]) == ("ended", "stopped_by_consumer", 0)
    assert over["paid_qu"] + over["fee_qu"] + over["returned_qu"] == 90_000
    assert "stopped by the consumer" in cli(quick, "rent", "show", name)
    unknown = "00000000-0000-0000-0000-000000000000"
    assert "qubix rent list" in cli(quick, "rent", "show", unknown, code=2)


@pytest.mark.slow
@pytest.mark.parametrize("barrier", [Barrier.RENTAL_ASKED, Barrier.RENTAL_ANSWERED, Barrier.RENTAL_ENDED])
def test_a_coordinator_that_dies_at_any_step_of_a_rental_bills_nothing_twice(folder: Path, barrier: Barrier) -> None:
    with Barriers(folder / "b") as barriers, Market(folder, **QUICK, QUBIX_BARRIERS=str(folder / "b")) as market:
        market.start_node(QUBIX_NODE_RATE_QU_PER_H=str(RATE), QUBIX_NODE_THREADS="1")
        with client(market) as api:
            until(offers(api, 1))
            before = api.account().balance_qu
            rental = api.rent(seconds=15)
            rental.wait_started()
            with barriers.armed(barrier, market.parts["coordinator"].popen.pid) as hold:
                hold.wait()
                market.parts["coordinator"].kill()
            market.start_coordinator()
            view = rental.wait(DEADLINE_S)
            assert view.started_ms is not None
            assert view.answered_ms is not None
            assert view.billed_ms <= view.answered_ms - view.started_ms
            assert spent(view) == view.billed_ms
            assert view.returned_qu == 15_000 - view.billed_ms
            assert api.account().balance_qu == before - view.billed_ms
        audit(market)
