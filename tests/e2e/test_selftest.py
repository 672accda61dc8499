# SPDX-License-Identifier: Apache-2.0
"""`qubix selftest` on real processes: beside a node that runs, asked for over the API, and alone (R1.6, B10)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.test_main_job import client, offers, until
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


def test_a_node_is_tested_unasked_when_asked_and_alone(market: Market) -> None:
    market.start_node()
    folder = market.folder / "node"
    with client(market) as api:
        until(offers(api, 1))
        listing = api.offers()[0].listing_id
        assert not api.offers()[0].verified
        until(lambda: api.selftest(listing).at_ms is not None)
        first = api.selftest(listing)
        assert (first.passed, first.full) == (True, True), first.checks
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
