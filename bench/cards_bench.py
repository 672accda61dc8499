# SPDX-License-Identifier: Apache-2.0
"""An NVIDIA card by itself: its kernels beside its own limits (`device.py`), a whole trial of its memory by the
market's rules, beside what a posing processor would take, and a wipe of all of it. Nothing where there is no card."""

import gc
import os
import sys
import time
from typing import Final
from uuid import UUID

import numpy as np

from bench import device
from bench.figures import Figure, under
from qubix_coordinator.trials import rules
from qubix_kernels import cuda as door
from qubix_kernels import get
from qubix_kernels.box.cuda import memory_of_this_device
from qubix_kernels.box.wipe import overwrite
from qubix_kernels.trial import rules as pages
from qubix_kernels.trial.cuda import CudaMemory
from qubix_protocol.states import DeviceKind

_AIMS: Final = rules.Aims(fill_s=8.0, slack_ms=1000, cpu_bytes_max=256 * 1024**2)
"""As the settings of a market have them."""
_RATE_SCALE: Final = 4096


def run() -> list[Figure]:
    missing = device.missing()
    if missing:
        print(f"bench cards: {missing}", file=sys.stderr)
        return []
    return [*device.figures(), *_trial(), _wipe()]


def _claim() -> rules.Claim:
    """What a node would say of this card: its matmul rate is measured like a node measures it, transfers included."""
    kernel = get("matmul")
    inputs, params = kernel.example(np.random.default_rng(0), _RATE_SCALE)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        kernel.run("cuda", inputs, params)
        times.append(time.perf_counter() - began)
    with door.device():
        total = int(door.cuda.current_context().get_memory_info().total)
    return rules.Claim(
        listing_id=UUID(int=0),
        device_id="card",
        kind=DeviceKind.CUDA,
        model=device.title(),
        driver="",
        memory_bytes=total,
        backend="cuda",
        flops=2.0 * _RATE_SCALE**3 / min(times),
    )


def _trial() -> list[Figure]:
    claim = _claim()
    shape = rules.shape(claim, _AIMS)
    assert shape is not None
    door.cuda.current_context().deallocations.clear()
    part, seed, key = rules.Part(claim, shape), os.urandom(32), os.urandom(32)
    began = time.perf_counter()
    memory = CudaMemory(shape, claim.device_id)
    room_s = time.perf_counter() - began
    began = time.perf_counter()
    memory.fill(seed)
    fill_s = time.perf_counter() - began
    began = time.perf_counter()
    digests = pages.read_digests(memory.digests(key)).tolist()
    proof_s = time.perf_counter() - began
    began = time.perf_counter()
    sample = [0, shape.pages // 2, shape.pages - 1]
    right = pages.expected(shape, seed, key, claim.device_id, sample) == [digests[page] for page in sample]
    page_s = (time.perf_counter() - began) / len(sample)
    del memory
    gc.collect()
    held = f"{pages.fill_bytes(shape) / 2**30:.1f} GiB, depth {shape.depth}, digests {'right' if right else 'WRONG'}"
    fill_max_s = rules.fill_ms_max(part, _AIMS.slack_ms) / 1000
    proof_max_s = rules.proof_ms_max(part, _AIMS.slack_ms) / 1000
    claimed = f"claims {claim.flops / 1e12:.1f} Tflop/s, expected {rules.expected_ms(part) / 1000:.1f} s"
    made = pages.flops(shape) / fill_s / 1e12
    least = rules.MODEL_SHARE * rules.peak_gflops(claim.model) / 1000
    return [
        Figure(name="a trial: making room", value=room_s, unit="s", note=held),
        under("a trial: filling", fill_s, "s", aim=fill_max_s, note=f"{claimed}; measured {made:.1f} Tflop/s"),
        under("a trial: telling what it holds", proof_s, "s", aim=proof_max_s),
        Figure(
            name="a trial: this processor in the card's place",
            value=page_s * shape.pages,
            unit="s",
            note=f"its limit is {fill_max_s:.1f} s, and {least:.1f} Tflop/s the least for this model",
        ),
    ]


def _wipe() -> Figure:
    door.cuda.current_context().deallocations.clear()
    began = time.perf_counter()
    done = overwrite(memory_of_this_device())
    took_s = time.perf_counter() - began
    note = f"{done.cleared_bytes:,} of {done.free_bytes:,} free bytes, {'whole' if done.whole else 'NOT whole'}"
    return Figure(name="overwriting all of the memory", value=took_s, unit="s", note=note)
