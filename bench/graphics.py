# SPDX-License-Identifier: Apache-2.0
"""The WebGPU back ends on what Vulkan, Metal or Direct3D find here, beside the CPU back ends of the same machine. With
Mesa's software driver both compute on the same processor: the shader beside NumPy, which says nothing of cards.
"""

import time
from functools import partial
from statistics import median
from typing import Final

import numpy as np

from bench.figures import Figure, beside
from qubix_kernels import get
from qubix_kernels import webgpu as door
from qubix_kernels.kernel import metas_of

_REPEATS: Final = 7
_SCALES: Final = {"matmul": 1024, "mandelbrot": 1024, "montecarlo_option": 1024}


def missing() -> str:
    """Why there is nothing to measure; "" where there is an adapter."""
    try:
        door.device()
    except door.NoDevice as error:
        return str(error)
    return ""


def figures() -> list[Figure]:
    return [_beside_cpu(name, scale) for name, scale in _SCALES.items()]


def _beside_cpu(name: str, scale: int) -> Figure:
    """Medians of turns, each with what it takes to send and to fetch."""
    kernel = get(name)
    inputs, params = kernel.example(np.random.default_rng(0), scale)
    kernel.warm_up("webgpu", metas_of(inputs), params)
    runs = {backend: partial(kernel.run, backend, inputs, params) for backend in ("webgpu", "cpu")}
    times: dict[str, list[float]] = {backend: [] for backend in runs}
    for turn in range(_REPEATS + 1):
        for backend, run in runs.items():
            began = time.perf_counter()
            run()
            if turn:
                times[backend].append((time.perf_counter() - began) * 1000)
    model = str(door.device().info["device"])
    return beside(
        f"{name} at {scale}, WebGPU on {model}",
        median(times["webgpu"]),
        "ms",
        limit=median(times["cpu"]),
        limit_name="the CPU back end",
    )
