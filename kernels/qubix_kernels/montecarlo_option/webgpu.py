# SPDX-License-Identifier: Apache-2.0
"""The WebGPU back end: an invocation for up to 64 counters of a lane, and one for each lane that adds them up."""

import struct
from typing import Final

import numpy as np

from qubix_kernels.montecarlo_option.draws import PATHS_PER_COUNTER
from qubix_kernels.montecarlo_option.model import Option
from qubix_kernels.webgpu import GROUPS_MAX, Device, Shader, blocks_for, working
from qubix_protocol.arrays import Array

SHADER: Final = Shader(kernel="montecarlo_option", entries=("simulate", "gather"), storage=("write", "write", "write"))
COUNTERS: Final = 64
_PARAMS: Final = struct.Struct("<3f7I8x")
_WORD: Final = 0xFFFFFFFF
_GROUP: Final = 64
_FIRST_PATHS: Final = 2.0**20


def warm_up_all() -> None:
    """Some drivers compile at the first dispatch only."""
    simulate(Option(start=1.0, spread=0.1, strike=1.0, sign=1.0), 0, 64, 1024, 0)


def simulate(
    option: Option, first: int, lanes: int, paths: int, seed: int, on: Device | None = None
) -> tuple[Array, Array]:
    """For each lane the sum of its discounted payoffs and of their squares, float32 of shape (lanes,)."""
    parts = blocks_for(blocks_for(paths, PATHS_PER_COUNTER), COUNTERS)
    with working(on) as gpu:
        pace = gpu.pace(SHADER, _FIRST_PATHS)
        most = min(gpu.binding_bytes // 8, GROUPS_MAX * _GROUP) // parts
        sums, squares = gpu.empty(4 * lanes), gpu.empty(4 * lanes)
        partial = gpu.empty(8 * parts * min(lanes, most))
        bound = gpu.bind(SHADER, _PARAMS.size, (sums, squares, partial))
        market = option.sign * option.start, option.spread, option.sign * option.strike
        start = 0
        while start < lanes:
            batch = min(lanes - start, most, max(1, int(pace.work / paths)))
            words = first, seed & _WORD, seed >> 32, paths, parts, start, batch
            steps = ("simulate", (blocks_for(batch * parts, _GROUP), 1)), ("gather", (blocks_for(batch, _GROUP), 1))
            pace.learn(batch * paths, bound.run(_PARAMS.pack(*market, *words), *steps))
            start += batch
        made = gpu.fetch(sums, np.float32), gpu.fetch(squares, np.float32)
        for storage in (sums, squares, partial):
            storage.give_back()
        return made
