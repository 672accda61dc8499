# SPDX-License-Identifier: Apache-2.0
"""The same job on one node and on two, one thread each; beside it what two bare processes gain over one.

A whole market of real processes on this machine. Rounds of one and two alternate, so that whatever else it does
hits both; where two cores are not free, the whole cannot be gained.
"""

import multiprocessing
import statistics
import time
from typing import Any

import qubix
from bench.figures import Figure, beside
from qubix_kernels import get
from tests.support.funds import fund_market
from tests.support.market import Market
from tests.support_pg import reachable_folder

_OPTION: dict[str, Any] = {"spot": 100.0, "strike": 105.0, "volatility": 0.2, "maturity": 1.0}
_PATHS = 4096
_LANES_TRIED = 2_000
_JOB_MS = 24_000
_BARE_S = 6.0
_ROUNDS = 3
_WAIT_S = 600.0


def run() -> list[Figure]:
    with reachable_folder(on_disk=True) as folder, Market(folder) as market:
        for name in ("one", "two"):
            market.start_node(name, QUBIX_NODE_THREADS="1")
        with qubix.Client(market.url, token=market.token, data_dir=folder / "client") as client:
            fund_market(market, client, 10_000_000)
            while len(client.offers()) < 2:
                time.sleep(0.1)
            return _figures(client)


def _figures(client: qubix.Client) -> list[Figure]:
    lanes = _lanes(client)
    one, two, bare = [], [], []
    for seed in range(_ROUNDS):
        bare.append(_bare(2) / _bare(1))
        one.append(_paths_per_s(client, lanes, seed, 1))
        two.append(_paths_per_s(client, lanes, seed, 2))
    note = f"two bare processes beside one, in the same run: {statistics.median(bare):.2f}×"
    return [
        beside(
            "a job over two nodes",
            statistics.median(two) / 1e6,
            "M paths/s",
            limit=statistics.median(one) / 1e6,
            limit_name="the same job on one node",
            at_least=1.7,
            note=note,
        )
    ]


def _lanes(client: qubix.Client) -> int:
    """A job of about _JOB_MS on one node."""
    began = time.perf_counter()
    _submit(client, _LANES_TRIED, 99, 1).wait(_WAIT_S)
    found = client.estimate("montecarlo_option", **_OPTION, lanes=_LANES_TRIED, paths_per_lane=_PATHS)
    run_ms = min(one.run_ms for one in found.candidates)
    return round(_LANES_TRIED * _JOB_MS / min(run_ms, (time.perf_counter() - began) * 1000))


def _submit(client: qubix.Client, lanes: int, seed: int, spread: int) -> qubix.Job:
    params = {**_OPTION, "lanes": lanes, "paths_per_lane": _PATHS, "seed": seed}
    return client.submit("montecarlo_option", params=params, cap_qu=1_000_000, spread=spread)


def _paths_per_s(client: qubix.Client, lanes: int, seed: int, spread: int) -> float:
    """From submission to settlement."""
    began = time.perf_counter()
    view = _submit(client, lanes, seed, spread).wait(_WAIT_S)
    took_s = time.perf_counter() - began
    providers = {attempt.provider for attempt in view.attempts if attempt.units_accepted}
    assert len(providers) == spread, f"the job was done by {len(providers)} nodes, not by {spread}"
    return lanes * _PATHS / took_s


def _bare(processes: int) -> float:
    """Paths a second of so many processes that run the kernel's own code at once."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        pool.map(_compute, [0.1] * processes, chunksize=1)
        began = time.perf_counter()
        lanes = pool.map(_compute, [_BARE_S] * processes, chunksize=1)
        return sum(lanes) * _PATHS / (time.perf_counter() - began)


def _compute(seconds: float) -> int:
    """Lanes done in about so long."""
    kernel, done, end = get("montecarlo_option"), 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        params = kernel.normalise({**_OPTION, "lanes": 50, "paths_per_lane": _PATHS, "first_lane": done})
        kernel.run("cpu", {}, params)
        done += 50
    return done
