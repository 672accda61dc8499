# SPDX-License-Identifier: Apache-2.0
"""A real node whose owner cheats: `python -m tests.support.cheating_node`. CHEAT names how a matrix product is spoilt;
of a model's outputs each row is another row's.

Everything else is honest: the links are signed over what was uploaded, only what was uploaded is not the product.
"""

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import trio

from qubix_kernels.tasks import ChunkDone, Event, RunTask
from qubix_node import logs
from qubix_node.daemon import serve
from qubix_node.jobs.worker import Run, Workers
from qubix_node.settings import from_environment
from qubix_protocol.arrays import Array, from_npy, pack_arrays, unpack_arrays


def _element(c: Array, a: Array, b: Array) -> Array:
    c[0, 0] += 0.01 * np.sqrt(np.mean(np.square(c)))
    return c


def _nan(c: Array, a: Array, b: Array) -> Array:
    c[-1, -1] = np.nan
    return c


def _float16(c: Array, a: Array, b: Array) -> Array:
    half = a.astype(np.float16).astype(np.float32) @ b.astype(np.float16).astype(np.float32)
    return half.astype(np.float32)


CHEATS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "element": _element,
    "nan": _nan,
    "zeros": lambda c, a, b: np.zeros_like(c),
    "float16": _float16,
}


class CheatingRun:
    """A run whose first chunk is spoilt before it is announced."""

    def __init__(self, run: Run, task: RunTask) -> None:
        self._run, self._task, self.pid = run, task, run.pid

    async def next(self) -> Event | None:
        event = await self._run.next()
        return self._spoil(event) if isinstance(event, ChunkDone) and event.index == 0 else event

    async def fate(self) -> str:
        return await self._run.fate()

    def _spoil(self, chunk: ChunkDone) -> ChunkDone:
        honest = unpack_arrays(Path(chunk.path).read_bytes())
        if self._task.kernel == "onnx":
            return _with(chunk, {name: np.roll(array, 1, axis=0) for name, array in honest.items()})
        a, b = (from_npy(Path(self._task.inputs[name]).read_bytes()) for name in "ab")
        cheat = CHEATS[os.environ["CHEAT"]]
        return _with(chunk, {"c": cheat(honest["c"].copy(), a[chunk.start : chunk.stop], b)})


def _with(chunk: ChunkDone, outputs: dict[str, Array]) -> ChunkDone:
    data = pack_arrays(outputs)
    Path(chunk.path).write_bytes(data)
    return msgspec.structs.replace(chunk, digest=hashlib.sha256(data).digest(), size_bytes=len(data))


class CheatingWorkers(Workers):
    @contextlib.asynccontextmanager
    async def run(self, task: RunTask, **options: Any) -> AsyncIterator[Run]:
        async with super().run(task, **options) as run:
            yield CheatingRun(run, task) if task.kernel in ("matmul", "onnx") else run  # type: ignore[misc]


if __name__ == "__main__":
    settings = from_environment({})
    logs.configure(settings.log_level)
    trio.run(serve, settings, CheatingWorkers)
