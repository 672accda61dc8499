# SPDX-License-Identifier: Apache-2.0
"""Parts of a working market are killed one after the other, in seeded order: every job ends paid, once, and right."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import qubix
from qubix_protocol.states import FINAL_JOB_STATES
from tests.e2e.test_main_job import audit, client, matrices, offers, settled, until
from tests.support.market import Market

KILLS = 6
JOBS = 8


def _restart(market: Market) -> dict[str, Callable[[], object]]:
    return {
        "coordinator": market.start_coordinator,
        "gateway": market.start_gateway,
        "verifier": market.start_verifier,
        "one": lambda: market.start_node("one", QUBIX_NODE_THREADS="1"),
        "two": lambda: market.start_node("two", QUBIX_NODE_THREADS="1"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_market_whose_parts_are_killed_pays_every_job_once(folder: Path, seed: int) -> None:
    draw = random.Random(seed)
    with Market(folder) as market:
        restart = _restart(market)
        restart["one"]()
        restart["two"]()
        with client(market) as api:
            until(offers(api, 2))
            a, b = matrices(3_000)
            jobs = [api.submit("matmul", a=a, b=b, cap_qu=20_000) for _ in range(JOBS)]
            for _ in range(KILLS):
                before = _progress(jobs)
                until(lambda before=before: _progress(jobs) > before or _over(jobs))  # type: ignore[misc]
                victim = draw.choice(sorted(restart))
                market.parts[victim].kill()
                restart[victim]()
            rows = [0, 1499, 2999]
            for job in jobs:
                product = job.result(timeout_s=600)["c"]
                np.testing.assert_allclose(product[rows], a[rows] @ b, rtol=1e-2, atol=1e-2)
                settled(job.refresh())
        audit(market)


def _progress(jobs: list[qubix.Job]) -> int:
    return sum(attempt.units_done for job in jobs for attempt in job.refresh().attempts)


def _over(jobs: list[qubix.Job]) -> bool:
    return all(job.view.state in FINAL_JOB_STATES for job in jobs)
