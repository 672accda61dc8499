# SPDX-License-Identifier: Apache-2.0
"""Jobs that send no array, through a real market: by the SDK and by the command line, run, checked, paid."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qubix_kernels import get
from tests.e2e.test_main_job import DEADLINE_S, audit, client, offers, settled, until
from tests.support.market import Market

PICTURE = {"width": 300, "height": 200, "pixel": 0.01, "left": -2.0, "top": 1.0, "max_iterations": 2000}
OPTION = {"spot": 100.0, "strike": 95.0, "rate": 0.02, "volatility": 0.3, "maturity": 0.5, "lanes": 600, "seed": 2**52}
CALL = 11.507
"""What the closed form gives, to three digits."""


def qubix(market: Market, *words: str) -> dict[str, Any]:
    known = {"QUBIX_COORDINATOR_URL": market.url, "QUBIX_TOKEN": market.token}
    done = subprocess.run(
        [sys.executable, "-m", "qubix", *words, "--json"],
        env={**os.environ, **known, "QUBIX_DATA_DIR": str(market.folder / "client")},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow  # test_spread and test_graphics_in_the_market run both kernels daily
def test_a_picture_and_a_price_are_computed_checked_and_paid(market: Market, tmp_path: Path) -> None:
    market.start_node()
    with client(market) as api:
        until(offers(api, 1))
        assert api.estimate("mandelbrot", **PICTURE).candidates
        picture = api.submit("mandelbrot", **PICTURE, cap_qu=500)
        option = api.submit("montecarlo_option", **OPTION, cap_qu=500)
        kernel = get("mandelbrot")
        exact = kernel.run("cpu", {}, kernel.normalise(PICTURE))["iterations"]
        np.testing.assert_array_equal(picture.result(timeout_s=DEADLINE_S)["iterations"], exact)
        found, paths = option.result(timeout_s=DEADLINE_S), 600 * 4096
        price = float(found["sums"].sum(dtype=np.float64)) / paths
        error = math.sqrt((float(found["squares"].sum(dtype=np.float64)) / paths - price**2) / paths)
        assert abs(price - CALL) < 0.001 + 5 * error
        for job in (picture, option):
            view = job.refresh()
            settled(view)
            (receipt,) = job.receipts()
            assert receipt.settlement.paid_qu == view.paid_qu >= 1
        words = [part for name, value in PICTURE.items() for part in ("-p", f"{name}={value}")]
        made = qubix(market, "job", "submit", "mandelbrot", *words, "--cap", "500", "--watch")
        assert made["state"] == "settled"
        qubix(market, "job", "result", made["job_id"], "-o", str(tmp_path / "out"))
        np.testing.assert_array_equal(np.load(tmp_path / "out" / "iterations.npy"), exact)
    audit(market)
