# SPDX-License-Identifier: Apache-2.0
"""A WebSocket that takes finished frames, for what many clients are sent alike.

Through ASGI each client's message is framed anew. Here Uvicorn's own protocol hands itself over in the scope, and a
frame that was made once is written to its transport. Everything else about the connection stays with Uvicorn.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from qubix_coordinator.errors import QubixError

_EXTENSION: Final = "qubix.frames"
_GOODBYE_S: Final = 5.0
"""For who reads again at last; then the socket is dropped with what is left in it."""


class FramesProtocol(WebSocketsSansIOProtocol):
    """`Config(ws=FramesProtocol)`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_room: Callable[[], None] = lambda: None
        self._parted = False
        self._paused = False

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            # The application's task has been made and has not begun.
            cast(dict[str, Any], self.scope)["extensions"][_EXTENSION] = self

    async def send(self, message: Any) -> None:
        if self._parted:
            raise ClientDisconnected
        await super().send(message)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._paused = True

    def resume_writing(self) -> None:
        super().resume_writing()
        self._paused = False
        self.on_room()

    @property
    def open(self) -> bool:
        return self.handshake_complete and not (self.close_sent or self.disconnected or self.transport.is_closing())

    @property
    def full(self) -> bool:
        return self._paused or not self.open

    def offer(self, frame: bytes) -> bool:
        """Writes it unless it is full. Called for every watcher of a query, so it asks for nothing twice."""
        if self._paused or self.close_sent or self.disconnected or self.transport.is_closing():
            return False
        self.transport.write(frame)
        return True

    def part(self, frame: bytes, code: int, reason: str) -> None:
        """Says goodbye behind what waits to be sent, which may never be read."""
        if self.open:
            self.transport.write(frame)
            self.conn.send_close(code, reason)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.transport.close()
        self._parted = True
        asyncio.get_running_loop().call_later(_GOODBYE_S, self.transport.abort)


class LiveSocket:
    """The connection of one client, as the feed writes to it (`feed.watchers.Wire`)."""

    def __init__(self, protocol: FramesProtocol) -> None:
        self._protocol = protocol
        self._problem: asyncio.Future[QubixError] = asyncio.get_running_loop().create_future()
        self.offer: Callable[[bytes], bool] = protocol.offer

    @staticmethod
    def of(scope: Any) -> "LiveSocket":
        return LiveSocket(scope["extensions"][_EXTENSION])

    @property
    def full(self) -> bool:
        return self._protocol.full

    def cut(self, problem: QubixError) -> None:
        if not self._problem.done():
            self._problem.set_result(problem)

    def on_room(self, call: Callable[[], None]) -> None:
        self._protocol.on_room = call

    async def until_cut(self) -> QubixError:
        return await asyncio.shield(self._problem)

    def part(self, frame: bytes, code: int, reason: str) -> None:
        self._protocol.part(frame, code, reason)
