# SPDX-License-Identifier: Apache-2.0
"""Worker processes, forked from one warm zygote: each runs one task and is gone afterwards, whatever happened."""

import contextlib
import logging
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

import trio

from qubix_kernels.tasks import Event, RunTask, decode_event, encode_frame, frame_length
from qubix_kernels.zygote import Worker, Zygote, ZygoteDied
from qubix_node.errors import WorkerLost
from qubix_protocol.errors import Malformed

log = logging.getLogger("qubix_node")
_END_S: Final = 10.0
_POLL_S: Final = 0.005


class Run:
    """One task under way. Ask for the `next` event until there is none."""

    def __init__(self, pid: int, stream: trio.SocketStream, zygote: Zygote) -> None:
        self.pid: Final = pid
        self._stream, self._zygote = stream, zygote

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
            return _in_words(await _ended(self._zygote, self.pid))
        return "did not end"


class Workers:
    """The zygote, started when it is first needed and again when it has died."""

    def __init__(self, threads: int) -> None:
        self.threads: Final = threads
        self._zygote: Zygote | None = None
        self._starting = trio.Lock()

    async def warm(self) -> Zygote:
        """Raises `WorkerLost`."""
        async with self._starting:
            if self._zygote is None:
                try:
                    self._zygote = await trio.to_thread.run_sync(partial(Zygote.start, threads=self.threads))
                except (ZygoteDied, OSError) as error:
                    raise WorkerLost(f"the worker zygote does not start: {error}") from error
                log.info("workers.warm", extra={"threads": self.threads})
            return self._zygote

    @contextlib.asynccontextmanager
    async def run(
        self, task: RunTask, *, device_id: str, scratch: Path, memory_bytes: int = 0, cpu_s: int = 0
    ) -> AsyncIterator[Run]:
        """A worker that has been given the task; killed and reaped when the block is left. Raises `WorkerLost`.

        `device_id` is the one device that it may use beside the processor; "" for none.
        """
        zygote, worker = await self._fork(scratch, memory_bytes, cpu_s)
        worker.sock.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(worker.sock))
        try:
            await _send(stream, task)
            yield Run(worker.pid, stream, zygote)
        finally:
            with trio.CancelScope(shield=True):
                await _end(zygote, worker, stream)

    async def _fork(self, scratch: Path, memory_bytes: int, cpu_s: int) -> tuple[Zygote, Worker]:
        for _ in range(2):
            zygote = await self.warm()
            fork = partial(zygote.fork, scratch=scratch, memory_bytes=memory_bytes, cpu_s=cpu_s)
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
        await trio.to_thread.run_sync(zygote.kill, worker.pid)
        await _ended(zygote, worker.pid)
    await stream.aclose()


async def _ended(zygote: Zygote, pid: int) -> int:
    """The exit status, once there is one: the zygote has no way to tell by itself."""
    try:
        while (status := await trio.to_thread.run_sync(zygote.status, pid)) is None:  # noqa: ASYNC110
            await trio.sleep(_POLL_S)
    except ZygoteDied:
        return -signal.SIGKILL  # workers die with their zygote
    return status


def _in_words(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
