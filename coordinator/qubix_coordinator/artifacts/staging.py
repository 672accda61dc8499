# SPDX-License-Identifier: Apache-2.0
"""Unfinished uploads: one file per account, digest and writer, so that no writer can spoil another's upload, and none
can keep many of the same digest by announcing it with many sizes.

The offset is the file's size after fsync, so what was acknowledged is there after a crash. A file is locked while it is
written: a second upload of the same content at the same time is told to wait.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import hmac
import os
import time
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import IO, Final
from uuid import UUID

from qubix_coordinator.errors import Conflict, InvalidInput, LimitExceeded, QubixError
from qubix_coordinator.threads import made

_BUFFER_BYTES: Final = 1024 * 1024
OWNER: Final = "owner"
"""The writer's name of the account itself; an attempt's is its node's peer id."""


class WrongOffset(Conflict):
    """The upload goes on at `offset`, not where this part starts."""

    def __init__(self, offset: int) -> None:
        super().__init__(
            f"{offset} bytes are here already; this part starts elsewhere",
            field="Content-Range",
            remedy=f"Go on at byte {offset}: HEAD tells it in Upload-Offset",
        )
        self.offset = offset


class Staging:
    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder = folder
        self._key = key
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, account_id: UUID, digest: bytes, writer: str) -> Path:
        what = b"\0".join([account_id.bytes, digest, writer.encode()])
        return self._folder / hmac.new(self._key, what, hashlib.sha256).hexdigest()

    def offset(self, path: Path) -> int:
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0

    @contextlib.asynccontextmanager
    async def locked(self, path: Path) -> AsyncIterator[IO[bytes]]:
        """The file open for appending, ours alone. Raises Conflict when another upload of it is under way."""
        out = await made(lambda: _open_locked(path), lambda file: file.close())
        try:
            yield out
        finally:
            await asyncio.to_thread(out.close)

    async def append(self, out: IO[bytes], pieces: AsyncIterable[bytes], *, first: int, last: int) -> int:
        """Writes bytes [first, last] and gives the new offset. What arrived before a failure stays, and can be resumed.

        Raises WrongOffset when `first` is not the offset, InvalidInput when more or fewer bytes come than promised.
        """
        offset = await asyncio.to_thread(out.seek, 0, os.SEEK_END)
        if first != offset:
            raise WrongOffset(offset)
        due = last + 1 - first
        try:
            async for block in _blocks(pieces):
                if len(block) > due:
                    raise InvalidInput("body", "more bytes came than Content-Range says", "Send exactly that range")
                due -= len(block)
                await asyncio.to_thread(_write, out, block)
        finally:
            await asyncio.to_thread(_sync, out)
        if due:
            raise InvalidInput("body", f"{due} bytes are missing of what Content-Range says", "Resume at Upload-Offset")
        return last + 1

    async def discard(self, path: Path) -> None:
        await asyncio.to_thread(path.unlink, missing_ok=True)

    async def expire(self, older_than_s: float) -> int:
        """Removes files that nobody wrote to for so long. Gives how many."""
        return await asyncio.to_thread(self._expire, older_than_s)

    def _expire(self, older_than_s: float) -> int:
        limit, removed = time.time() - older_than_s, 0
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < limit:
                    path.unlink()
                    removed += 1
        return removed


async def _blocks(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in blocks of at least a megabyte, save the last: fewer visits to the disk's thread."""
    buffer = bytearray()
    try:
        async for piece in pieces:
            buffer += piece
            if len(buffer) >= _BUFFER_BYTES:
                yield bytes(buffer)
                buffer.clear()
    except (QubixError, OSError, TimeoutError):
        # The connection broke: keep what came, the client resumes behind it.
        if buffer:
            yield bytes(buffer)
        raise
    if buffer:
        yield bytes(buffer)


def _open_locked(path: Path) -> IO[bytes]:
    out = path.open("ab", buffering=0)
    try:
        os.fchmod(out.fileno(), 0o600)
        fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        out.close()
        raise Conflict(
            "this content is being uploaded already", remedy="Wait for that upload to end, then ask again with HEAD"
        ) from None
    except BaseException:
        out.close()
        raise
    return out


def _write(out: IO[bytes], block: bytes) -> None:
    view = memoryview(block)
    try:
        while view:
            view = view[out.write(view) :]
    except OSError as problem:
        raise LimitExceeded("there is no room left to store this", remedy="Try again later") from problem


def _sync(out: IO[bytes]) -> None:
    os.fsync(out.fileno())
