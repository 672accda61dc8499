# SPDX-License-Identifier: Apache-2.0
"""A worker's part in a trial: make room, fill it when the seed comes, answer when the key comes."""

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from qubix_kernels.trial.frames import TrialDone, TrialFull, TrialKey, TrialRoom, TrialSeed, TrialTask


class Memory(Protocol):
    """Room for all pages of one device."""

    def fill(self, seed: bytes) -> None: ...

    def digests(self, key: bytes) -> bytes:
        """32 bits each, big-endian, in the order of the pages."""
        ...


def run(task: TrialTask, hear: "Callable[..., TrialSeed | TrialKey]") -> Iterator[TrialRoom | TrialFull | TrialDone]:
    """Raises MemoryError when there is not so much, and LookupError without the device."""
    memory = _memory_of(task)
    yield TrialRoom()
    seed = hear(TrialSeed)
    assert isinstance(seed, TrialSeed)
    began = time.perf_counter()
    memory.fill(seed.seed)
    yield TrialFull(run_ms=(time.perf_counter() - began) * 1000)
    key = hear(TrialKey)
    assert isinstance(key, TrialKey)
    began = time.perf_counter()
    digests = memory.digests(key.key)
    yield TrialDone(digests=digests, run_ms=(time.perf_counter() - began) * 1000)


def _memory_of(task: TrialTask) -> Memory:
    if task.backend == "cpu":
        from qubix_kernels.trial.cpu import CpuMemory

        return CpuMemory(task.shape, task.device_id)
    if task.backend == "cuda":
        from qubix_kernels.trial.cuda import CudaMemory

        return CudaMemory(task.shape, task.device_id)
    raise LookupError(f"a trial has no back end {task.backend!r}")
