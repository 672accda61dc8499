# SPDX-License-Identifier: Apache-2.0
"""How far forecasts are off: mixed jobs of every catalogue kernel on one real CPU node, each forecast before it runs.

Sizes lie over two orders of magnitude. First come jobs from which the market learns, then those that count, none of
which was run before. Two times are compared: the run's, which is paid for, and the one until the checked result. How
much of an error is the machine's own is measured in the same run: some jobs are run again at once, and how far the
second run is off the first stands beside.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

import qubix
from bench.figures import Figure, percentile
from qubix_protocol.api import CandidateView, JobView
from qubix_protocol.arrays import ArrayMeta
from tests.kernels.models_world import dense
from tests.support.funds import fund_market
from tests.support.market import Market
from tests.support_pg import reachable_folder

JOBS: Final = 100
LEARNING: Final = 60
AGAIN_EACH: Final = 4
"""Every so many jobs one is run twice."""
_CAP_QU: Final = 100_000
_WAIT_S: Final = 300.0
_MODEL: Final = dense(np.random.default_rng(1), (256, 512, 512, 16))


@dataclass(frozen=True, slots=True)
class Ran:
    """Milliseconds."""

    kernel: str
    told: CandidateView
    run_ms: int
    time_ms: int
    again_ms: int | None

    @property
    def run_off(self) -> float:
        return abs(self.run_ms - self.told.run_ms) / self.told.run_ms

    @property
    def time_off(self) -> float:
        return abs(self.time_ms - self.told.time_ms) / self.told.time_ms

    @property
    def run_inside(self) -> bool:
        return self.told.run_low_ms <= self.run_ms <= self.told.run_high_ms

    @property
    def time_inside(self) -> bool:
        return self.told.time_low_ms <= self.time_ms <= self.told.time_high_ms


def run(jobs: int = JOBS, learning: int = LEARNING) -> list[Figure]:
    with reachable_folder(on_disk=True) as folder, Market(folder) as market:
        market.start_node()
        with qubix.Client(market.url, token=market.token, data_dir=folder / "client") as client:
            fund_market(market, client, 50_000_000)
            while not client.offers():
                time.sleep(0.1)
            mixed = _mixed(jobs + learning)
            learnt = [_ran(client, *next(mixed), again=False) for _ in range(learning)]
            counted = [_ran(client, *next(mixed), again=number % AGAIN_EACH == 0) for number in range(jobs)]
    return _figures(learnt, counted)


def _mixed(count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each kernel equally often, of sizes spread evenly over their logarithm; always the same, in a mixed order."""
    draw = random.Random(5)
    kinds = list(KINDS.items())
    planned = [
        (kinds[number % len(kinds)], (number // len(kinds) + 0.5) / -(-count // len(kinds))) for number in range(count)
    ]
    draw.shuffle(planned)
    for number, ((kernel, make), share) in enumerate(planned):
        yield kernel, make(np.random.default_rng(number), 100.0**share)


def _matmul(rng: np.random.Generator, work: float) -> dict[str, Any]:
    n = round(1_000 * work ** (1 / 3))
    return {name: rng.standard_normal((n, n), dtype=np.float32) for name in ("a", "b")}


def _knn(rng: np.random.Generator, work: float) -> dict[str, Any]:
    side = work**0.5
    queries, data = (rng.standard_normal((round(n * side), 32), dtype=np.float32) for n in (1_000, 4_000))
    return {"queries": queries, "data": data, "k": 10}


def _mandelbrot(rng: np.random.Generator, work: float) -> dict[str, Any]:
    side, wide = round(400 * work**0.5), rng.uniform(1.0, 3.0)
    left, top = rng.uniform(-2.2, -2.0 + 1.5 / wide), rng.uniform(0.5, 1.5)
    return {"width": side, "height": side, "left": left, "top": top, "pixel": wide / side, "max_iterations": 1_000}


def _montecarlo(rng: np.random.Generator, work: float) -> dict[str, Any]:
    market = {"spot": 100.0, "strike": rng.uniform(80, 120), "volatility": rng.uniform(0.1, 0.5), "maturity": 1.0}
    return {**market, "seed": int(rng.integers(2**53)), "lanes": round(400 * work), "paths_per_lane": 2_048}


def _onnx(rng: np.random.Generator, work: float) -> dict[str, Any]:
    return {"model": _MODEL, "x": rng.standard_normal((round(1_200 * work), 256), dtype=np.float32)}


KINDS: Final[dict[str, Callable[[np.random.Generator, float], dict[str, Any]]]] = {
    "matmul": _matmul,
    "knn": _knn,
    "mandelbrot": _mandelbrot,
    "montecarlo_option": _montecarlo,
    "onnx": _onnx,
}


def _ran(client: qubix.Client, kernel: str, given: dict[str, Any], *, again: bool) -> Ran:
    """Forecast from the forms alone where there are arrays, then run."""
    forms = {name: ArrayMeta.of(value) if isinstance(value, np.ndarray) else value for name, value in given.items()}
    (told,) = client.estimate(kernel, inputs=forms).candidates
    view = _run_one(client, kernel, given)
    second = _run_one(client, kernel, given).attempts[0].run_ms if again else None
    assert view.paid_qu + view.fee_qu <= told.cost_high_qu, "a bill above the bound that was told"
    return Ran(kernel, told, max(1, view.attempts[0].run_ms), (view.ended_ms or 0) - view.created_ms, second)


def _run_one(client: qubix.Client, kernel: str, given: dict[str, Any]) -> JobView:
    job = client.submit(kernel, inputs=given, cap_qu=_CAP_QU, spread=1)
    view = job.wait(_WAIT_S)
    assert len(view.attempts) == 1, view
    assert view.units_accepted == view.units, view
    return view


def _figures(learnt: Sequence[Ran], counted: Sequence[Ran]) -> list[Figure]:
    runs, times = [100 * one.run_off for one in counted], [100 * one.time_off for one in counted]
    noise = [100 * abs(one.again_ms - one.run_ms) / one.run_ms for one in counted if one.again_ms is not None]
    before = [100 * one.run_off for one in learnt]
    first = f"of {len(counted)} jobs of {min(r.run_ms for r in counted)} to {max(r.run_ms for r in counted)} ms"
    learned = (
        f"while it learned, {len(learnt)} jobs: {statistics.median(before):.0f} %, p90 {percentile(before, 0.9):.0f} %"
    )
    worst = ", ".join(f"{kernel} {_median(counted, kernel):.0f} %" for kernel in KINDS)
    again = "the second run off the first"
    return [
        _off("forecast error of the run, median", statistics.median(runs), statistics.median(noise), again, 10, first),
        _off("forecast error of the run, p90", percentile(runs, 0.9), percentile(noise, 0.9), again, 25, learned),
        _inside("runs inside their band", [one.run_inside for one in counted], f"medians: {worst}"),
        _off("forecast error until the result, median", statistics.median(times), None, "", 10, ""),
        _off("forecast error until the result, p90", percentile(times, 0.9), None, "", 25, ""),
        _inside("results inside their band", [one.time_inside for one in counted], ""),
    ]


def _median(several: Sequence[Ran], kernel: str) -> float:
    return statistics.median([100 * one.run_off for one in several if one.kernel == kernel] or [0.0])


def _off(name: str, value: float, limit: float | None, limit_name: str, aim: float, note: str) -> Figure:
    return Figure(
        name=name,
        value=value,
        unit="%",
        beside=limit_name,
        limit=limit,
        aim=f"≤ {aim:g} %",
        met=value <= aim,
        note=note,
    )


def _inside(name: str, hits: Sequence[bool], note: str) -> Figure:
    value = 100 * sum(hits) / len(hits)
    return Figure(name=name, value=value, unit="%", aim="≥ 80 %", met=value >= 80, note=note)
