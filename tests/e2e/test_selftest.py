# SPDX-License-Identifier: Apache-2.0
"""Self-tests on real processes: unasked, by `qubix selftest` beside a node and alone; then a trial (R1.6, B10, C6)."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_main_job import client, offers, until
from tests.e2e.test_trials import GENTLE
from tests.support.market import Market

DEADLINE_S = 120.0


def selftest(market: Market, folder: Path, *args: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "qubix", "selftest", "--json", *args],
        env={**os.environ, **market.env, "QUBIX_NODE_DEVICES": "cpu", "QUBIX_DATA_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def statuses(test: dict[str, Any]) -> dict[str, str]:
    return {check["id"]: check["status"] for check in test["checks"]}


@pytest.fixture
def market(folder: Path) -> Iterator[Market]:
    """An honest device is never late, however busy this machine is."""
    with Market(folder, **GENTLE, QUBIX_TRIAL_SLACK_S="60") as running:
        yield running


@pytest.mark.slow
def test_a_node_is_listed_then_tested_then_tried_then_verified_and_tested_when_asked_and_alone(market: Market) -> None:
    market.start_node(QUBIX_NODE_THREADS="1")
    folder = market.folder / "node"
    with client(market) as api:
        until(offers(api, 1))
        listing = api.offers()[0].listing_id
        assert (api.offers()[0].verified, api.offers()[0].score) == (False, 0.0), "at once, and unverified (R1.6)"
        until(lambda: api.selftest(listing).at_ms is not None)
        first = api.selftest(listing)
        assert (first.passed, first.full) == (True, True), first.checks
        until(lambda: api.trials(listing))
        (trial,) = api.trials(listing)
        assert (trial.verdict, trial.reason, trial.fill_bytes) == ("passed", "", 16 * 2**20), trial
        assert trial.proof_ms is not None
        assert (api.offers()[0].verified, api.offers()[0].score) == (True, trial.gflops)
        status, told = selftest(market, folder)
        assert (status, told["by"], len(told["tests"])) == (0, "node", 1)
        (test,) = told["tests"]
        assert statuses(test)["bandwidth"] == "pass", "sent and read back, signed like a job's data"
        assert statuses(test)["kernel_matmul_cpu"] == "pass"
        until(lambda: api.selftest(listing).at_ms != first.at_ms)
        heard = api.selftest(listing)
        assert [check.id for check in heard.checks] == [check["id"] for check in test["checks"]]
        market.parts["node"].stop()
        status, told = selftest(market, folder, "--quick")
        assert (status, told["by"]) == (0, "alone")
        assert statuses(told["tests"][0])["mesh"] == "pass"
        assert api.selftest(listing).at_ms == heard.at_ms, "alone, nothing is reported"
    market.parts["gateway"].stop()
    status, told = selftest(market, folder, "--quick")
    assert (status, statuses(told["tests"][0])["mesh"]) == (1, "fail")
