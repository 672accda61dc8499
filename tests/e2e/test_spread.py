# SPDX-License-Identifier: Apache-2.0
"""One job over real nodes: merged right, each paid for its own; a killed node's share goes on elsewhere (R4.5, P13)."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qubix
from qubix_kernels import get
from qubix_protocol.api import AttemptView, JobView
from qubix_protocol.states import AttemptState, JobState
from tests.support.crash_market import Consumer, CrashMarket, check_everything, offered, until

OPTION: dict[str, Any] = {"spot": 100.0, "strike": 105.0, "volatility": 0.2, "maturity": 1.0, "seed": 7}
PATHS = 4096
LANES_ASKED = 1_000
FORECAST_MS = 10_000
"""Of the whole job by the nodes' own rates: more than two shares must be worth."""


@pytest.fixture
def market(folder: Path) -> Iterator[CrashMarket]:
    with CrashMarket(folder) as running:
        yield running


def lanes_of(api: qubix.Client, market: CrashMarket) -> int:
    """So many that each node forecasts about FORECAST_MS for all of them, however fast this machine is."""
    found = api.estimate("montecarlo_option", **OPTION, lanes=LANES_ASKED, paths_per_lane=PATHS)
    assert len(found.candidates) == 2, f"both nodes have measured the kernel: {market.logs()}"
    return LANES_ASKED * FORECAST_MS // max(one.run_ms for one in found.candidates)


def submitted(api: qubix.Client, lanes: int) -> tuple[qubix.Job, str]:
    key = str(uuid.uuid4())
    job = api.submit(
        "montecarlo_option", **OPTION, lanes=lanes, paths_per_lane=PATHS, cap_qu=100_000, idempotency_key=key
    )
    return job, key


def by_provider(market: CrashMarket, view: JobView, node: str) -> list[AttemptView]:
    return [one for one in view.attempts if one.provider == market.parts[node].info["peer_id"]]


def check_result(found: dict[str, np.ndarray], lanes: int) -> None:
    """Lanes of every part, computed here again."""
    kernel = get("montecarlo_option")
    assert found["sums"].shape == (lanes,)
    for first in (0, lanes // 2 - 5, lanes - 10):
        params = kernel.normalise({**OPTION, "lanes": 10, "paths_per_lane": PATHS, "first_lane": first})
        np.testing.assert_allclose(found["sums"][first : first + 10], kernel.run("cpu", {}, params)["sums"], rtol=1e-5)


def test_a_job_over_two_nodes_is_merged_and_a_killed_node_s_share_goes_on_elsewhere(market: CrashMarket) -> None:
    market.start_node("one")
    market.start_node("two")
    with Consumer(market) as consumer:
        api = consumer.api
        until(offered(api, 2))
        lanes = lanes_of(api, market)

        job, key = submitted(api, lanes)
        fractions = [update.fraction for update in job.follow()]
        assert fractions == sorted(fractions)
        check_result(job.result(), lanes)
        view = job.refresh()
        check_everything(market, view, key)
        assert view.state is JobState.SETTLED
        for node in ("one", "two"):
            own = by_provider(market, view, node)
            assert sum(one.units_accepted for one in own) > 0, view.attempts
            assert sum(one.paid_qu for one in own) > 0
        assert len(job.receipts()) == len(view.attempts)

        job, key = submitted(api, lanes)
        until(lambda: sum(one.units_done > 0 for one in job.refresh().attempts) == 2)
        market.kill("one")
        check_result(job.result(), lanes)
        view = job.refresh()
        check_everything(market, view, key)
        (dead,) = by_provider(market, view, "one")
        others = by_provider(market, view, "two")
        assert dead.state is AttemptState.ACCEPTED
        assert 0 < dead.units_accepted < dead.units
        assert dead.paid_qu > 0
        assert dead.units_accepted + sum(one.units_accepted for one in others) == view.units
        assert sum(one.units_done for one in view.attempts) == view.units, "a verified unit ran twice"
        assert len(others) >= 2, "its own share, and what the other one left"
