# SPDX-License-Identifier: Apache-2.0
"""What a check costs beside the run it checks, on the CPU back end of this machine, in one process."""

import statistics
import time
from collections.abc import Mapping

import numpy as np

from bench.figures import Figure, beside, median_s
from qubix_kernels import get
from qubix_protocol.arrays import Array

_REPEATS = 9


def run() -> list[Figure]:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((2048, 2048), dtype=np.float32) for _ in range(2))
    queries, data = (rng.standard_normal((n, 64), dtype=np.float32) for n in (4_000, 20_000))
    return [
        _check("matmul", "check of matmul 2048", {"a": a, "b": b}, {}, aim=0.03),
        _floor(a, b),
        _check("knn", "check of knn 4,000 × 20,000", {"queries": queries, "data": data}, {"k": 10}, aim=None),
    ]


def _floor(a: Array, b: Array) -> Figure:
    """No check can be cheaper than reading a, b and c once."""
    c, rng, kernel = a @ b, np.random.default_rng(1), get("matmul")
    read = median_s(lambda: [np.dot(x.ravel(), x.ravel()) for x in (a, b, c)], repeats=_REPEATS)
    check = median_s(lambda: kernel.verify({"a": a, "b": b}, {}, {"c": c}, rng), repeats=_REPEATS)
    return beside("check of matmul 2048", check * 1000, "ms", limit=read * 1000, limit_name="reading a, b, c once")


def _check(
    name: str, title: str, inputs: Mapping[str, Array], params: Mapping[str, int], *, aim: float | None
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
