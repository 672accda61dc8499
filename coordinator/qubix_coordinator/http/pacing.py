# SPDX-License-Identifier: Apache-2.0
"""Back-pressure for Quart: as it comes, it reads a request's body and a WebSocket's messages as fast as they arrive and
keeps them in memory, however slowly the handler takes them.
"""

import asyncio
import contextlib
from typing import Any, Final

from quart.asgi import ASGIHTTPConnection, ASGIWebsocketConnection
from quart.wrappers import Request
from quart.wrappers.request import Body
from werkzeug.exceptions import HTTPException

BODY_BYTES_MAX: Final = 1024 * 1024
"""Of every body that is not an artifact's."""
_WAITING_BYTES_MAX: Final = 1024 * 1024
_WAITING_MESSAGES_MAX: Final = 16
_DRAINED_BYTES_MAX: Final = 16 * 1024 * 1024
_DRAIN_S: Final = 5.0
STREAMED: Final = ("PUT", "/api/v1/artifacts/")
"""Method and path prefix of the one kind of request whose body is streamed to disk."""


class PacedBody(Body):
    """A streamed body stops being read while a megabyte of it waits for the handler."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, max_content_length)
        self._room = asyncio.Event()
        self._room.set()

    async def room(self) -> None:
        await self._room.wait()

    def append(self, data: bytes) -> None:
        super().append(data)
        if self._max_content_length is None and len(self._data) >= _WAITING_BYTES_MAX:
            self._room.clear()

    async def __anext__(self) -> bytes:
        self._room.set()
        return await super().__anext__()


async def drained(body: Body) -> bool:
    """Reads what is left of a refused body, within bounds: a client that still sends would never see the answer.

    False when there is more than that.
    """
    left = _DRAINED_BYTES_MAX
    with contextlib.suppress(TimeoutError, HTTPException):
        async with asyncio.timeout(_DRAIN_S):
            async for piece in body:
                left -= len(piece)
                if left < 0:
                    return False
            return True
    return False


class PacedRequest(Request):
    body_class = PacedBody
    body: PacedBody

    def __init__(self, method: str, scheme: str, path: str, *args: Any, **kwargs: Any) -> None:
        if method == STREAMED[0] and path.startswith(STREAMED[1]):
            kwargs["max_content_length"] = None
        super().__init__(method, scheme, path, *args, **kwargs)


class PacedHttp(ASGIHTTPConnection):
    async def handle_messages(self, request: Any, receive: Any) -> None:
        while True:
            await request.body.room()
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            request.body.append(message.get("body", b""))
            if not message.get("more_body", False):
                request.body.set_complete()


class PacedWebsocket(ASGIWebsocketConnection):
    def __init__(self, app: Any, scope: Any) -> None:
        super().__init__(app, scope)
        self.queue = asyncio.Queue(_WAITING_MESSAGES_MAX)

    async def handle_messages(self, receive: Any) -> None:
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            if event["type"] == "websocket.receive":
                # An empty binary message is falsy: Quart's own handler stumbles over it.
                data = event.get("bytes")
                await self.queue.put(event.get("text", "") if data is None else data)
