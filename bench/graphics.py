# SPDX-License-Identifier: Apache-2.0
"""The WebGPU back ends on what Vulkan, Metal or Direct3D find here, beside the CPU back ends of the same machine. With
Mesa's software driver both compute on the same processor: the shader beside NumPy, which says nothing of cards.
"""

from functools import partial
from typing import Final

import numpy as np

from bench.figures import Figure, side_by_side
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
    """With what it takes to send and to fetch."""
    kernel = get(name)
    inputs, params = kernel.example(np.random.default_rng(0), scale)
    kernel.warm_up("webgpu", metas_of(inputs), params)
    on_card, on_cpu = (partial(kernel.run, backend, inputs, params) for backend in ("webgpu", "cpu"))
    title = f"{name} at {scale}, WebGPU on {door.device().info['device']}"
    return side_by_side(title, on_card, on_cpu, "the CPU back end", repeats=_REPEATS)
