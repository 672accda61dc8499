# SPDX-License-Identifier: Apache-2.0
"""Runs one attempt: inputs, worker, outputs, links. It decides nothing; cancelling it kills the worker."""

import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio

from qubix_kernels.tasks import ChunkDone, RunDone, RunTask, TaskFailed
from qubix_node import catalogue, rates
from qubix_node.clock import steady_ms
from qubix_node.errors import StoreError, WorkerLost
from qubix_node.jobs.cache import InputCache
from qubix_node.jobs.journal import Journal, Made
from qubix_node.jobs.outbox import Outbox
from qubix_node.jobs.rules import Completed, Event, Failed, Fetched
from qubix_node.jobs.store import Artifact, ArtifactStore
from qubix_node.jobs.work import Work
from qubix_node.jobs.worker import Run, Workers
from qubix_protocol import barriers
from qubix_protocol.barriers import Barrier
from qubix_protocol.messages import Range
from qubix_protocol.units import CHUNKS_MAX

log = logging.getLogger("qubix_node")
CHUNK_S: Final = 1.0
_CPU_MARGIN_S: Final = 10
_WALL_MARGIN_S: Final = 10.0
_DISK_MARGIN_BYTES: Final = 64 * 1024**2

Step = Callable[[Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one worker. CPU time is bounded by the time limit of the assignment, for each thread."""

    memory_bytes: int
    threads: int

    def cpu_s(self, time_limit_ms: int) -> int:
        return -(-time_limit_ms * self.threads // 1000) + _CPU_MARGIN_S


class Runner:
    """Holds a folder for each attempt while it runs, in the workers'; what is left there from before is removed."""

    def __init__(
        self,
        *,
        workers: Workers,
        store: ArtifactStore,
        cache: InputCache,
        journal: Journal,
        outbox: Outbox,
        limits: Limits,
    ) -> None:
        self.folder: Final = workers.folder
        for left in self.folder.iterdir():
            if not left.name.startswith(rates.SCRATCH):  # a card may be measured still
                shutil.rmtree(left, ignore_errors=True)
        self._workers, self._store, self._cache = workers, store, cache
        self._journal, self._outbox, self._limits = journal, outbox, limits

    async def run(self, work: Work, moved: Step) -> Event:
        """How it ended: `Completed` or `Failed`. `moved` is told when the inputs are here."""
        scratch = self.folder / work.attempt_id
        try:
            await trio.to_thread.run_sync(_make_folders, scratch)
            inputs = await self._inputs(work, scratch)
            await barriers.reach(Barrier.FETCHED)
            await moved(Fetched())
            return await self._compute(work, scratch, inputs)
        except StoreError as error:
            return Failed(error.code, str(error))
        except WorkerLost as error:
            return Failed(error.code, str(error))
        except OSError as error:
            return Failed("disk", f"{error.strerror or error}")
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(partial(shutil.rmtree, scratch, ignore_errors=True))

    async def _inputs(self, work: Work, scratch: Path) -> dict[str, str]:
        found = {}
        for ref in work.assign.inputs:
            at = scratch / "in" / f"{ref.name}.npy"
            await self._cache.provide(_artifact(work, ref.digest, ref.size_bytes), at)
            found[ref.name] = str(at)
        return found

    async def _compute(self, work: Work, scratch: Path, inputs: dict[str, str]) -> Event:
        assign = work.assign
        task = RunTask(
            kernel=assign.kernel,
            backend=assign.backend,
            params=assign.params,
            inputs=inputs,
            ranges=tuple((part.start, part.stop) for part in assign.ranges),
            chunk_units=assign.chunk_units,
            target_s=CHUNK_S,
            out_dir=str(scratch / "out"),
        )
        cpu_s = self._limits.cpu_s(assign.time_limit_ms)
        async with self._workers.run(
            task,
            device_id=assign.device_id,
            scratch=scratch,
            memory_bytes=self._limits.memory_bytes,
            cpu_s=cpu_s,
            wall_s=assign.time_limit_ms / 1000 + _WALL_MARGIN_S,
            disk_bytes=catalogue.disk_bytes(assign) + _DISK_MARGIN_BYTES,
        ) as run:
            log.debug("job.worker", extra={"attempt": work.attempt_id, "pid": run.pid})
            return await self._collect(run, work, scratch / "out")

    async def _collect(self, run: Run, work: Work, out: Path) -> Event:
        """Chunks are uploaded in order while the worker goes on. What was done before a failure still counts."""
        send, receive = trio.open_memory_channel[ChunkDone](CHUNKS_MAX)
        faults: list[Event] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._upload_all, receive, work, out, faults, nursery.cancel_scope)
            async with send:
                end = await _listen(run, send, work)
        return faults[0] if faults else end

    async def _upload_all(
        self,
        chunks: "trio.MemoryReceiveChannel[ChunkDone]",
        work: Work,
        out: Path,
        faults: list[Event],
        scope: trio.CancelScope,
    ) -> None:
        run_ms = 0.0
        try:
            async for chunk in chunks:
                run_ms += chunk.run_ms
                await self._deliver(chunk, work, out, run_ms)
        except StoreError as error:
            faults.append(Failed(error.code, str(error)))
            scope.cancel()
        except OSError as error:
            faults.append(Failed("disk", f"{error.strerror or error}"))
            scope.cancel()

    async def _deliver(self, chunk: ChunkDone, work: Work, out: Path, run_ms: float) -> None:
        """Upload, journal, say: in this order, so that a link is only ever about an output that is there."""
        await barriers.reach(Barrier.COMPUTED)
        path = out / Path(chunk.path).name
        await self._store.put(_artifact(work, chunk.digest, chunk.size_bytes), path)
        await trio.to_thread.run_sync(path.unlink)
        link = work.chain.next(Range(chunk.start, chunk.stop), chunk.digest, chunk.size_bytes, run_ms)
        # Not cancelled between journal and chain: a link that is on disk is part of what is reported.
        with trio.CancelScope(shield=True):
            progress = work.progress(steady_ms(), link)
            await self._journal.append(
                Made(attempt_id=work.attempt_id, link=link, fraction=progress.fraction, elapsed_ms=progress.elapsed_ms)
            )
            work.chain.add(link)
        await barriers.reach(Barrier.LINK_JOURNALLED)
        work.spoken_ms = steady_ms()
        self._outbox.keep((work.attempt_id, link.index), progress)


def _make_folders(scratch: Path) -> None:
    for name in ("in", "out"):
        (scratch / name).mkdir(parents=True, mode=0o700)


def _artifact(work: Work, digest: bytes, size_bytes: int) -> Artifact:
    return Artifact(digest=digest, size_bytes=size_bytes, attempt_id=work.attempt_id, fence=work.assign.fence)


async def _listen(run: Run, send: "trio.MemorySendChannel[ChunkDone]", work: Work) -> Event:
    """Passes chunks on until the worker ends. A worker that leaves the path of its task is lost."""
    expected = _Path(work.assign.ranges)
    try:
        while (event := await run.next()) is not None:
            if isinstance(event, ChunkDone) and expected.take(event):
                log.debug("job.computed", extra={"attempt": work.attempt_id, "start": event.start, "stop": event.stop})
                send.send_nowait(event)
            elif isinstance(event, RunDone) and expected.finished:
                return Completed()
            elif isinstance(event, TaskFailed):
                return Failed(event.code, event.detail)
            else:
                return Failed("worker_lost", "the worker did something else than its task")
    except WorkerLost as error:
        return Failed(error.code, str(error))
    return Failed("worker_lost", f"the worker {await run.fate()} before it was done")


class _Path:
    """The units that must come next."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        self._left = [(part.start, part.stop) for part in reversed(ranges)]
        self._index = 0

    @property
    def finished(self) -> bool:
        return not self._left

    def take(self, chunk: ChunkDone) -> bool:
        if not self._left or self._index >= CHUNKS_MAX:
            return False
        start, stop = self._left.pop()
        if (chunk.index, chunk.start) != (self._index, start) or not start < chunk.stop <= stop:
            return False
        if chunk.stop < stop:
            self._left.append((chunk.stop, stop))
        self._index += 1
        return True
