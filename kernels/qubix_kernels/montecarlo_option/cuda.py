# SPDX-License-Identifier: Apache-2.0
"""The CUDA back end: 32 threads for each lane, each with every 32nd counter; what they sum is summed in pairs."""

import math
from typing import Any, Final

import numpy as np

from qubix_kernels.cuda import DeviceKernel, blocks_for, cuda, device, empty, fetch, float32, uint32, uint64, warm_up
from qubix_kernels.montecarlo_option.draws import PATHS_PER_COUNTER
from qubix_kernels.montecarlo_option.model import UNIFORM_STEP, Option
from qubix_kernels.montecarlo_option.philox import KEY_STEPS, MULTIPLIERS, ROUNDS
from qubix_kernels.montecarlo_option.polynomials import COSINE, SINE
from qubix_protocol.arrays import Array

_THREADS, _LANES = 32, 4
_M0, _M1 = MULTIPLIERS
_STEP0, _STEP1 = KEY_STEPS
_WORD: Final = 0xFFFFFFFF
_WITHIN: Final = 2**21 - 1
_HALF, _STEP, _QUARTER_STEP = np.float32(0.5), np.float32(UNIFORM_STEP), np.float32(2.0**-21)
_C0, _C1, _C2, _C3, _C4, _C5 = COSINE
_S0, _S1, _S2, _S3, _S4 = SINE


def _simulate(
    start: Any, spread: Any, strike: Any, first: Any, key0: Any, key1: Any, paths: Any, sums: Any, squares: Any
) -> None:
    """sums[lane] and squares[lane]. `start` and `strike` are negative for a put. Words are computed as 64-bit numbers
    and masked, which the compiler makes 32-bit operations of."""
    part_sums = cuda.shared.array((_LANES, _THREADS), float32)
    part_squares = cuda.shared.array((_LANES, _THREADS), float32)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    lane = cuda.blockIdx.x * _LANES + y
    total = float32(0)
    total_squares = float32(0)
    if lane < sums.shape[0]:
        own = uint32((uint64(first) + uint64(lane)) & uint64(_WORD))
        for counter in range(x, (paths + 3) // 4, _THREADS):
            w0, w1, w2, w3, k0, k1 = uint32(counter), own, uint32(0), uint32(0), key0, key1
            for _ in range(ROUNDS):
                wide0, wide1 = uint64(w0) * uint64(_M0), uint64(w2) * uint64(_M1)
                w0 = uint32((wide1 >> uint64(32)) ^ uint64(w1) ^ uint64(k0))
                w1 = uint32(wide1 & uint64(_WORD))
                w2 = uint32((wide0 >> uint64(32)) ^ uint64(w3) ^ uint64(k1))
                w3 = uint32(wide0 & uint64(_WORD))
                k0 = uint32((uint64(k0) + uint64(_STEP0)) & uint64(_WORD))
                k1 = uint32((uint64(k1) + uint64(_STEP1)) & uint64(_WORD))
            for pair in range(2):
                one, other = (w0, w1) if pair == 0 else (w2, w3)
                uniform = (float32(one >> 9) + _HALF) * _STEP
                kept = other >> 9
                quarter = kept >> 21
                rest = (float32(kept & _WITHIN) + _HALF) * _QUARTER_STEP - _HALF
                s = rest * rest
                radius = float32(math.sqrt(float32(-2) * float32(math.log(uniform))))
                cosine = radius * (_C0 + s * (_C1 + s * (_C2 + s * (_C3 + s * (_C4 + s * _C5)))))
                sine = radius * rest * (_S0 + s * (_S1 + s * (_S2 + s * (_S3 + s * _S4))))
                if quarter & 1:
                    cosine, sine = -sine, cosine
                if quarter & 2:
                    cosine, sine = -cosine, -sine
                path = 4 * counter + 2 * pair
                a = start * float32(math.exp(spread * cosine)) - strike
                b = start * float32(math.exp(spread * sine)) - strike
                a = a if a > float32(0) and path < paths else float32(0)
                b = b if b > float32(0) and path + 1 < paths else float32(0)
                total += a + b
                total_squares += a * a + b * b
    part_sums[y, x] = total
    part_squares[y, x] = total_squares
    cuda.syncthreads()
    step = _THREADS // 2
    while step > 0:
        if x < step:
            part_sums[y, x] += part_sums[y, x + step]
            part_squares[y, x] += part_squares[y, x + step]
        cuda.syncthreads()
        step //= 2
    if x == 0 and lane < sums.shape[0]:
        sums[lane] = part_sums[y, 0]
        squares[lane] = part_squares[y, 0]


SIMULATE: Final = DeviceKernel(
    name="simulate",
    function=_simulate,
    signature="void(float32, float32, float32, uint32, uint32, uint32, int32, float32[::1], float32[::1])",
    block=(_THREADS, _LANES),
    blocks_per_sm=8,
    registers_max=64,
)
DEVICE_KERNELS: Final = (SIMULATE,)
assert PATHS_PER_COUNTER == 4


def warm_up_all() -> None:
    warm_up(DEVICE_KERNELS)


def simulate(option: Option, first: int, lanes: int, paths: int, seed: int) -> tuple[Array, Array]:
    """For each lane the sum of its discounted payoffs and of their squares, float32 of shape (lanes,)."""
    with device():
        sums, squares = empty((lanes,), np.float32), empty((lanes,), np.float32)
        start(option, first, paths, seed, sums, squares)
        return fetch(sums), fetch(squares)


def start(option: Option, first: int, paths: int, seed: int, sums: Any, squares: Any) -> None:
    """Into arrays on the device, of which each element is a lane; does not wait."""
    sign, words = np.float32(option.sign), (np.uint32(first), np.uint32(seed & _WORD), np.uint32(seed >> 32))
    market = sign * np.float32(option.start), np.float32(option.spread), sign * np.float32(option.strike)
    SIMULATE.launch((blocks_for(sums.shape[0], _LANES),), *market, *words, np.int32(paths), sums, squares)
