# SPDX-License-Identifier: Apache-2.0
"""Worker processes, forked from a warm zygote in a box: each runs one task and is gone afterwards, come what may."""

import contextlib
import logging
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import trio

from qubix_kernels.box import machine
from qubix_kernels.box.machine import Isolation
from qubix_kernels.box.rules import Gpu, Limits
from qubix_kernels.frames import Frame
from qubix_kernels.tasks import (
    Event,
    RunTask,
    Task,
    VerifyTask,
    WipeDone,
    WipeTask,
    decode_event,
    encode_frame,
    frame_length,
)
from qubix_kernels.trial.frames import TrialTask
from qubix_kernels.wire import Reply
from qubix_kernels.zygote import Worker, Zygote, ZygoteDied
from qubix_node.errors import WorkerLost
from qubix_node.jobs.cards import WIPE_S, Card, Faulty
from qubix_protocol.errors import Malformed

log = logging.getLogger("qubix_node")
_END_S: Final = 10.0
_POLL_S: Final = 0.005
_TIDY_S: Final = 0.2


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

    async def say(self, frame: Frame) -> None:
        """To a task that waits for it. Raises `WorkerLost`."""
        try:
            await self._stream.send_all(encode_frame(frame))
        except trio.BrokenResourceError as error:
            raise WorkerLost("the worker ended while it was spoken to") from error

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


class _Warm:
    """One zygote, started when it is first needed and again when it has died."""

    def __init__(self, start: Callable[[], Zygote]) -> None:
        self._start = start
        self._zygote: Zygote | None = None
        self._lock = trio.Lock()

    async def get(self) -> Zygote:
        """Raises `WorkerLost`."""
        async with self._lock:
            if self._zygote is None:
                try:
                    self._zygote = await trio.to_thread.run_sync(self._start)
                except (ZygoteDied, OSError) as error:
                    raise WorkerLost(f"the worker zygote does not start: {error}") from error
                log.info("workers.warm")
            return self._zygote

    async def fork(self, scratch: Path, out: Path | None, limits: Limits) -> tuple[Zygote, Worker]:
        for _ in range(2):
            zygote = await self.get()
            fork = partial(zygote.fork, scratch=scratch, out=out, limits=limits)
            try:
                return zygote, await trio.to_thread.run_sync(fork)
            except ZygoteDied as error:
                log.warning("workers.zygote_died", extra={"reason": str(error)})
                await self._bury(zygote)
        raise WorkerLost("no worker could be started")

    async def _bury(self, zygote: Zygote) -> None:
        async with self._lock:
            if self._zygote is zygote:
                self._zygote = None
                await trio.to_thread.run_sync(zygote.close)

    async def close(self) -> None:
        if self._zygote is not None:
            await trio.to_thread.run_sync(self._zygote.close)


class Workers:
    """A zygote for the processor, and one for each card that is used. Scratch folders lie in `folder`, which is made,
    and must stay the same folder for as long as this is open.

    `cards` are set once they are known; `faulty` hears of one that cannot be used any more.
    """

    def __init__(self, threads: int, folder: Path, isolation: Isolation | None = None) -> None:
        self.threads: Final = threads
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder: Final = folder.resolve()  # a box shows folders by their true names
        self.isolation: Final = isolation or machine.found_here()
        self.cards: Mapping[str, Card] = {}
        self.faulty: Faulty = _nobody_hears
        self._warm: dict[str, _Warm] = {}

    async def warm(self, device_id: str = "") -> Zygote:
        """The one for this device. Raises `WorkerLost`."""
        return await self._of(device_id).get()

    def _of(self, device_id: str) -> _Warm:
        card = self.cards.get(device_id)
        key = device_id if card else ""
        if key not in self._warm:
            self._warm[key] = _Warm(partial(self._start, card.gpu if card else None))
        return self._warm[key]

    def _start(self, gpu: Gpu | None) -> Zygote:
        return Zygote.start(folders=[self.folder], threads=self.threads, isolation=self.isolation, gpu=gpu)

    def using(self, device_id: str) -> bool:
        """Whether a card is in use, be it only to be wiped."""
        card = self.cards.get(device_id)
        return card is not None and card.lock.locked()

    @contextlib.asynccontextmanager
    async def run(
        self,
        task: RunTask | VerifyTask | TrialTask,
        *,
        device_id: str,
        scratch: Path,
        memory_bytes: int = 0,
        cpu_s: int = 0,
        wall_s: float = 0.0,
        disk_bytes: int = 0,
    ) -> AsyncIterator[Run]:
        """A worker that has been given the task; killed and reaped when the block is left. Raises `WorkerLost`.

        `device_id` is the one device that it may use beside the processor; "" for none. A card is waited for until
        nobody uses it and nothing is left on it. The worker reads `scratch` and writes the task's `out_dir`, inside it.
        """
        out = Path(task.out_dir) if isinstance(task, RunTask) else None
        card = self.cards.get(device_id)
        limits = Limits(
            memory_bytes=memory_bytes, cpu_s=cpu_s, wall_s=wall_s, disk_bytes=disk_bytes, address_space=card is None
        )
        if card is None:
            async with self._run(task, device_id, scratch, out, limits) as run:
                yield run
            return
        async with card.lock:
            await self._clean(card)
            card.dirty = True
            async with self._run(task, device_id, scratch, out, limits) as run:
                card.worker = run.pid
                yield run

    async def tidy(self) -> None:
        """Wipes each card soon after its job, until cancelled: a card that waits for its next job holds nothing."""
        while True:
            for card in self.cards.values():
                if card.dirty and not card.fault and not card.lock.locked():
                    with contextlib.suppress(WorkerLost):
                        async with card.lock:
                            await self._clean(card)
            await trio.sleep(_TIDY_S)

    async def _clean(self, card: Card) -> None:
        known = card.fault
        try:
            await card.clean(partial(self._wipe, card))
        except WorkerLost:
            if not known:
                await self.faulty(card.gpu.uuid, card.fault)
            raise

    async def _wipe(self, card: Card) -> None:
        scratch = Path(await trio.to_thread.run_sync(partial(tempfile.mkdtemp, prefix="wipe.", dir=self.folder)))
        try:
            limits = Limits(wall_s=WIPE_S, address_space=False)
            async with self._run(WipeTask(), card.gpu.uuid, scratch, None, limits) as run:
                card.worker = run.pid
                event = await run.next()
                if not isinstance(event, WipeDone):
                    raise WorkerLost(getattr(event, "detail", "") or await run.fate())
            log.debug("card.wiped", extra={"device": card.gpu.uuid, "bytes": event.cleared_bytes})
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(partial(shutil.rmtree, scratch, ignore_errors=True))

    @contextlib.asynccontextmanager
    async def _run(
        self, task: Task, device_id: str, scratch: Path, out: Path | None, limits: Limits
    ) -> AsyncIterator[Run]:
        zygote, worker = await self._of(device_id).fork(scratch, out, limits)
        worker.sock.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(worker.sock))
        try:
            await _send(stream, task)
            yield Run(worker, stream, zygote)
        finally:
            with trio.CancelScope(shield=True):
                await _end(zygote, worker, stream)

    async def close(self) -> None:
        """Ends every zygote and every worker."""
        with trio.CancelScope(shield=True):
            for warm in self._warm.values():
                await warm.close()


async def _nobody_hears(device_id: str, reason: str) -> None:
    log.error("card.faulty", extra={"device": device_id, "reason": reason})


async def _send(stream: trio.SocketStream, task: Task) -> None:
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
