# SPDX-License-Identifier: Apache-2.0
"""A real node that cuts its work into many small chunks: `python -m tests.support.chunked_node`.

However fast the machine is, a job of some thousand units has four chunks or more. With POISON set, the chunk of that
index is spoilt before it is announced: everything else about it is honest, its signature too.
"""

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import trio

from qubix_kernels.tasks import ChunkDone, Event, RunTask
from qubix_node import logs
from qubix_node.daemon import serve
from qubix_node.jobs.worker import Run, Workers
from qubix_node.settings import from_environment
from qubix_protocol.arrays import pack_arrays, unpack_arrays

FIRST_UNITS = 50
CHUNK_S = 0.1


class PoisoningRun:
    """Spoils one chunk of a nearest-neighbour search: its distances are half as long again."""

    def __init__(self, run: Run, index: int) -> None:
        self._run, self._index, self.pid = run, index, run.pid

    async def next(self) -> Event | None:
        event = await self._run.next()
        return _spoilt(event) if isinstance(event, ChunkDone) and event.index == self._index else event

    async def fate(self) -> str:
        return await self._run.fate()


def _spoilt(chunk: ChunkDone) -> ChunkDone:
    honest = unpack_arrays(Path(chunk.path).read_bytes())
    data = pack_arrays(
        {"indices": honest["indices"], "distances": honest["distances"] * honest["distances"].dtype.type(1.5)}
    )
    Path(chunk.path).write_bytes(data)
    return msgspec.structs.replace(chunk, digest=hashlib.sha256(data).digest(), size_bytes=len(data))


class ChunkingWorkers(Workers):
    @contextlib.asynccontextmanager
    async def run(self, task: RunTask, *, scratch: Path, **limits: Any) -> AsyncIterator[Run]:
        poison = os.environ.get("POISON")
        measuring = scratch.name.startswith("measure.")
        small = task if measuring else msgspec.structs.replace(task, chunk_units=FIRST_UNITS, target_s=CHUNK_S)
        async with super().run(small, scratch=scratch, **limits) as run:
            yield run if measuring or poison is None else PoisoningRun(run, int(poison))  # type: ignore[misc]


if __name__ == "__main__":
    settings = from_environment({})
    logs.configure(settings.log_level)
    trio.run(serve, settings, ChunkingWorkers)
