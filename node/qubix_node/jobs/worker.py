# SPDX-License-Identifier: Apache-2.0
"""Worker processes, forked from a warm zygote in a box: each runs one task and is gone afterwards, come what may."""

import contextlib
import logging
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

import trio

from qubix_kernels.box import machine
from qubix_kernels.box.machine import Isolation
from qubix_kernels.box.rules import Limits
from qubix_kernels.tasks import Event, RunTask, decode_event, encode_frame, frame_length
from qubix_kernels.wire import Reply
from qubix_kernels.zygote import Worker, Zygote, ZygoteDied
from qubix_node.errors import WorkerLost
from qubix_protocol.errors import Malformed

log = logging.getLogger("qubix_node")
_END_S: Final = 10.0
_POLL_S: Final = 0.005


class Run:
    """One task under way. Ask for the `next` event until there is none."""

    def __init__(self, worker: Worker, stream: trio.SocketStream, zygote: Zygote) -> None:
        self.pid: Final = worker.pid
        self._worker, self._stream, self._zygote = worker, stream, zygote

    async def next(self) -> Event | None:
        """None when the worker has closed its socket. Raises `WorkerLost` when it says what is not an event."""
        try:
            head = await self._exactly(4)
            return decode_event(await self._exactly(frame_length(head))) if head else None
        except trio.BrokenResourceError:
            return None  # it was killed; `fate` tells by what
        except Malformed as error:
            raise WorkerLost(f"the worker cannot be understood: {error}") from error

    async def _exactly(self, size: int) -> bytes:
        """None of it when the stream ends first."""
        data = bytearray()
        while len(data) < size:
            more = await self._stream.receive_some(size - len(data))
            if not more:
                return b""
            data += more
        return bytes(data)

    async def fate(self) -> str:
        """How the process ended, in words."""
        with contextlib.suppress(trio.TooSlowError), trio.fail_after(_END_S):
            return _in_words(await _ended(self._zygote, self._worker))
        return "did not end"


class Workers:
    """The zygote, started when it is first needed and again when it has died. Scratch folders lie in `folder`, which is
    made, and must stay the same folder for as long as this is open."""

    def __init__(self, threads: int, folder: Path, isolation: Isolation | None = None) -> None:
        self.threads: Final = threads
        self.folder: Final = folder
        self.isolation: Final = isolation or machine.found_here()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._zygote: Zygote | None = None
        self._starting = trio.Lock()

    async def warm(self) -> Zygote:
        """Raises `WorkerLost`."""
        async with self._starting:
            if self._zygote is None:
                try:
                    self._zygote = await trio.to_thread.run_sync(self._start)
                except (ZygoteDied, OSError) as error:
                    raise WorkerLost(f"the worker zygote does not start: {error}") from error
                log.info("workers.warm", extra={"threads": self.threads, "isolation": self.isolation.kind})
            return self._zygote

    def _start(self) -> Zygote:
        return Zygote.start(folders=[self.folder], threads=self.threads, isolation=self.isolation)

    @contextlib.asynccontextmanager
    async def run(
        self,
        task: RunTask,
        *,
        device_id: str,
        scratch: Path,
        memory_bytes: int = 0,
        cpu_s: int = 0,
        wall_s: float = 0.0,
        disk_bytes: int = 0,
    ) -> AsyncIterator[Run]:
        """A worker that has been given the task; killed and reaped when the block is left. Raises `WorkerLost`.

        `device_id` is the one device that it may use beside the processor; "" for none. It reads `scratch` and writes
        the task's `out_dir`, inside it.
        """
        limits = Limits(memory_bytes=memory_bytes, cpu_s=cpu_s, wall_s=wall_s, disk_bytes=disk_bytes)
        zygote, worker = await self._fork(scratch, Path(task.out_dir), limits)
        worker.sock.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(worker.sock))
        try:
            await _send(stream, task)
            yield Run(worker, stream, zygote)
        finally:
            with trio.CancelScope(shield=True):
                await _end(zygote, worker, stream)

    async def _fork(self, scratch: Path, out: Path, limits: Limits) -> tuple[Zygote, Worker]:
        for _ in range(2):
            zygote = await self.warm()
            fork = partial(zygote.fork, scratch=scratch, out=out, limits=limits)
            try:
                return zygote, await trio.to_thread.run_sync(fork)
            except ZygoteDied as error:
                log.warning("workers.zygote_died", extra={"reason": str(error)})
                await self._bury(zygote)
        raise WorkerLost("no worker could be started")

    async def _bury(self, zygote: Zygote) -> None:
        async with self._starting:
            if self._zygote is zygote:
                self._zygote = None
                await trio.to_thread.run_sync(zygote.close)

    async def close(self) -> None:
        """Ends the zygote and every worker."""
        with trio.CancelScope(shield=True):
            if self._zygote is not None:
                await trio.to_thread.run_sync(self._zygote.close)


async def _send(stream: trio.SocketStream, task: RunTask) -> None:
    try:
        await stream.send_all(encode_frame(task))
    except trio.BrokenResourceError as error:
        raise WorkerLost("the worker ended before it was given its task") from error


async def _end(zygote: Zygote, worker: Worker, stream: trio.SocketStream) -> None:
    with contextlib.suppress(ZygoteDied), trio.move_on_after(_END_S):
        await trio.to_thread.run_sync(zygote.kill, worker)
        await _ended(zygote, worker)
    await stream.aclose()


async def _ended(zygote: Zygote, worker: Worker) -> Reply:
    """Its end, once there is one: the zygote has no way to tell by itself."""
    try:
        while (end := await trio.to_thread.run_sync(zygote.end_of, worker)).status is None:  # noqa: ASYNC110
            await trio.sleep(_POLL_S)
    except ZygoteDied:
        return Reply(status=-signal.SIGKILL)  # workers die with their zygote
    return end


def _in_words(end: Reply) -> str:
    status = end.status or 0
    if end.cause:
        return f"used more {end.cause} than it may and was ended"
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
