# SPDX-License-Identifier: Apache-2.0
"""Frames over a pipe of bytes: one piece of code for both meshes, so that limits and deadlines are the same."""

from typing import Protocol

import trio

from qubix_mesh import rules
from qubix_mesh.errors import FrameTooLarge, MeshTimeout, StreamClosed


class BytePipe(Protocol):
    """What carries the bytes of one stream."""

    async def read(self, most: int) -> bytes:
        """1 to `most` bytes, or none at the end. Cancelling it loses nothing. Raises `StreamClosed` when broken."""
        ...

    async def write(self, data: bytes) -> None:
        """All of it, or `StreamClosed`."""
        ...

    async def close(self) -> None: ...

    async def reset(self) -> None: ...


class FramedStream:
    """A `port.Stream`."""

    _READ_BYTES = 64 * 1024

    def __init__(self, pipe: BytePipe, peer_id: str) -> None:
        self.peer_id = peer_id
        self._pipe = pipe
        self._sending = trio.Lock()
        self._receiving = trio.Lock()
        self._held = bytearray()
        self._done = False

    async def send(self, frame: bytes, *, timeout_s: float) -> None:
        header = rules.frame_header(len(frame))
        with trio.move_on_after(timeout_s):
            async with self._sending:
                await self._write(header + frame)
                return
        raise MeshTimeout(f"{len(frame)} bytes were not taken by {self.peer_id} within {timeout_s} s")

    async def _write(self, data: bytes) -> None:
        if self._done:
            raise StreamClosed(f"the stream to {self.peer_id} is closed")
        try:
            await self._pipe.write(data)
        except BaseException:
            # Half a frame may have left: whatever followed would be read as nonsense.
            await self.abort()
            raise

    async def receive(self, *, limit_bytes: int, timeout_s: float | None) -> bytes:
        with trio.move_on_after(float("inf") if timeout_s is None else timeout_s):
            async with self._receiving:
                return await self._next_frame(limit_bytes)
        raise MeshTimeout(f"nothing came from {self.peer_id} within {timeout_s} s")

    async def _next_frame(self, limit_bytes: int) -> bytes:
        await self._hold(rules.HEADER_BYTES)
        try:
            length = rules.frame_length(bytes(self._held[: rules.HEADER_BYTES]), limit_bytes)
        except FrameTooLarge:
            await self.abort()
            raise
        end = rules.HEADER_BYTES + length
        await self._hold(end)
        frame = bytes(self._held[rules.HEADER_BYTES : end])
        del self._held[:end]
        return frame

    async def _hold(self, count: int) -> None:
        while len(self._held) < count:
            data = await self._pipe.read(max(self._READ_BYTES, count - len(self._held)))
            if not data:
                raise StreamClosed(f"{self.peer_id} closed the stream")
            self._held += data

    async def close(self) -> None:
        self._done = True
        with trio.CancelScope(shield=True):
            await self._pipe.close()

    async def abort(self) -> None:
        self._done = True
        with trio.CancelScope(shield=True):
            await self._pipe.reset()
