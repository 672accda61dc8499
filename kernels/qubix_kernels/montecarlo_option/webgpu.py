# SPDX-License-Identifier: Apache-2.0
"""The WebGPU back end: an invocation for up to 64 counters of a lane, and one for each lane that adds them up."""

import struct
from typing import Final

import numpy as np

from qubix_kernels.montecarlo_option.draws import PATHS_PER_COUNTER
from qubix_kernels.montecarlo_option.model import Option
from qubix_kernels.webgpu import GROUPS_MAX, Pace, Shader, blocks_for, warm_up, working
from qubix_protocol.arrays import Array

SHADER: Final = Shader(kernel="montecarlo_option", entries=("simulate", "gather"), storage=("write", "write", "write"))
COUNTERS: Final = 64
_PARAMS: Final = struct.Struct("<3f7I8x")
_WORD: Final = 0xFFFFFFFF
_GROUP: Final = 64
_pace: Final = Pace(first=2.0**20)
"""In paths."""


def warm_up_all() -> None:
    warm_up(SHADER)


def simulate(option: Option, first: int, lanes: int, paths: int, seed: int) -> tuple[Array, Array]:
    """For each lane the sum of its discounted payoffs and of their squares, float32 of shape (lanes,)."""
    parts = blocks_for(blocks_for(paths, PATHS_PER_COUNTER), COUNTERS)
    with working() as gpu:
        most = min(gpu.binding_bytes // 8, GROUPS_MAX * _GROUP) // parts
        sums, squares = gpu.empty(4 * lanes), gpu.empty(4 * lanes)
        partial = gpu.empty(8 * parts * min(lanes, most))
        bound = gpu.bind(SHADER, _PARAMS.size, (sums, squares, partial))
        market = option.sign * option.start, option.spread, option.sign * option.strike
        start = 0
        while start < lanes:
            batch = min(lanes - start, most, max(1, int(_pace.work / paths)))
            words = first, seed & _WORD, seed >> 32, paths, parts, start, batch
            steps = ("simulate", (blocks_for(batch * parts, _GROUP), 1)), ("gather", (blocks_for(batch, _GROUP), 1))
            _pace.learn(batch * paths, bound.run(_PARAMS.pack(*market, *words), *steps))
            start += batch
        made = gpu.fetch(sums, np.float32), gpu.fetch(squares, np.float32)
        for storage in (sums, squares, partial):
            storage.give_back()
        return made
