# SPDX-License-Identifier: Apache-2.0
"""One task to one forked worker in the box, and its first word back; and data fetched for it."""

import asyncio
import hashlib
from pathlib import Path
from uuid import UUID

from qubix_coordinator.artifacts.store import ArtifactStore
from qubix_coordinator.threads import made
from qubix_kernels import tasks
from qubix_kernels.box.rules import Limits
from qubix_kernels.zygote import Worker, Zygote

END_S = 5.0
"""How long a worker whose socket has closed is waited for."""


class NotCarriedOut(Exception):
    """The task could not be done; nobody is to blame."""


class WorkerEnded(NotCarriedOut):
    """Without a word. `cause` is the limit that it was ended for, `status` its exit status (None: not known)."""

    def __init__(self, cause: str, status: int | None) -> None:
        super().__init__("the worker ended without a word")
        self.cause, self.status = cause, status


async def in_worker(zygote: Zygote, task: tasks.Task, folder: Path, limits: Limits) -> tasks.Event:
    """Raises WorkerEnded, Malformed (what it says is no event) and ZygoteDied. Ended by us when this is cancelled."""
    worker = await made(lambda: zygote.fork(scratch=folder, limits=limits), _close)
    try:
        return await _talk(zygote, worker, task)
    finally:
        worker.sock.close()
        # It has ended by itself unless it was cut short.
        await asyncio.shield(asyncio.to_thread(zygote.kill, worker))


def _close(worker: Worker) -> None:
    """It hears that, and ends."""
    worker.sock.close()


async def fetch(store: ArtifactStore, account_id: UUID, digest: bytes, path: Path) -> Path:
    """The bytes delivered are the bytes that were committed. Raises NotCarriedOut and what the store raises."""
    await store.copy_to(account_id, digest, path)
    if await asyncio.to_thread(_digest_of, path) != digest:
        raise NotCarriedOut("the artifact store gave other bytes than were committed")
    return path


async def _talk(zygote: Zygote, worker: Worker, task: tasks.Task) -> tasks.Event:
    worker.sock.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(worker.sock, tasks.encode_frame(task))
        head = await _exactly(worker, 4)
        return tasks.decode_event(await _exactly(worker, tasks.frame_length(head)))
    except (EOFError, ConnectionError):
        raise await _end_of(zygote, worker) from None


async def _end_of(zygote: Zygote, worker: Worker) -> WorkerEnded:
    """Its socket closes a moment before it can be reaped."""
    try:
        async with asyncio.timeout(END_S):
            while (end := await asyncio.to_thread(zygote.end_of, worker)).status is None:  # noqa: ASYNC110 - it is asked
                await asyncio.sleep(0.01)
    except TimeoutError:
        return WorkerEnded("", None)
    return WorkerEnded(end.cause, end.status)


async def _exactly(worker: Worker, size: int) -> bytes:
    loop, data = asyncio.get_running_loop(), bytearray()
    while len(data) < size:
        more = await loop.sock_recv(worker.sock, min(size - len(data), 1 << 20))
        if not more:
            raise EOFError
        data += more
    return bytes(data)


def _digest_of(path: Path) -> bytes:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").digest()
