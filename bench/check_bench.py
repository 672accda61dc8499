# SPDX-License-Identifier: Apache-2.0
"""What a check costs beside the run it checks, for every kernel, on the CPU back end, in one process."""

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bench.figures import Figure, beside, median_s
from qubix_kernels import get, names
from qubix_protocol.arrays import Array

_REPEATS = 7
_SCALE = 1024
_MATMUL, _MATMUL_AIM = 2048, 0.03
Given = tuple[Mapping[str, Array], Mapping[str, Any]]


def run() -> list[Figure]:
    """A kernel that has no job of its own here is measured by its example."""
    figures = []
    for name in names():
        title, given = JOBS.get(name, (f"check of {name}, example of {_SCALE}", functools.partial(_example, name)))
        figures.append(_check(name, title, *given(), aim=_MATMUL_AIM if name == "matmul" else None))
    return [*figures, _floor(*_matmul()[0].values())]


def _matmul() -> Given:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((_MATMUL, _MATMUL), dtype=np.float32) for _ in range(2))
    return {"a": a, "b": b}, {}


def _knn() -> Given:
    rng = np.random.default_rng(0)
    queries, data = (rng.standard_normal((n, 64), dtype=np.float32) for n in (4_000, 20_000))
    return {"queries": queries, "data": data}, {"k": 10}


def _mandelbrot() -> Given:
    size = {"width": 1024, "height": 1024, "pixel": 3 / 1024, "max_iterations": 500}
    return {}, get("mandelbrot").normalise(size)


def _example(name: str) -> Given:
    return get(name).example(np.random.default_rng(0), _SCALE)


JOBS: dict[str, tuple[str, Callable[[], Given]]] = {
    "matmul": (f"check of matmul {_MATMUL}", _matmul),
    "knn": ("check of knn 4,000 × 20,000", _knn),
    "mandelbrot": ("check of mandelbrot 1024², 500 iterations", _mandelbrot),
    "montecarlo_option": ("check of 1,024 lanes of 4,096 paths", functools.partial(_example, "montecarlo_option")),
    "onnx": ("check of a small network on 1,024 pictures", functools.partial(_example, "onnx")),
}


def _floor(a: Array, b: Array) -> Figure:
    """No check can be cheaper than reading a, b and c once."""
    c, rng, kernel = a @ b, np.random.default_rng(1), get("matmul")
    read = median_s(lambda: [np.dot(x.ravel(), x.ravel()) for x in (a, b, c)], repeats=_REPEATS)
    check = median_s(lambda: kernel.verify({"a": a, "b": b}, {}, {"c": c}, rng), repeats=_REPEATS)
    title = f"check of matmul {_MATMUL}"
    return beside(title, check * 1000, "ms", limit=read * 1000, limit_name="reading a, b, c once")


def _check(
    name: str, title: str, inputs: Mapping[str, Array], params: Mapping[str, Any], *, aim: float | None
) -> Figure:
    kernel, rng = get(name), np.random.default_rng(1)
    runs, checks = [], []
    for _ in range(_REPEATS + 1):
        began = time.perf_counter()
        outputs = kernel.run("cpu", inputs, params)
        ran = time.perf_counter()
        assert kernel.verify(inputs, params, outputs, rng).accepted
        runs.append(ran - began)
        checks.append(time.perf_counter() - ran)
    run_s, check_s = statistics.median(runs[1:]), statistics.median(checks[1:])
    return beside(title, check_s * 1000, "ms", limit=run_s * 1000, limit_name="its run", at_most=aim)
