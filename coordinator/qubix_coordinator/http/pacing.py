# SPDX-License-Identifier: Apache-2.0
"""Back-pressure between the server and Quart, which by itself reads a request's body and a WebSocket's messages as fast
as they arrive and keeps them in memory, however slowly the handler takes them.

It sits around the ASGI application and holds `receive` back; handlers say what they have taken. Nothing here depends on
how Quart keeps a body, which differs between its versions.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from quart import websocket
from quart.wrappers import Request
from quart.wrappers.request import Body
from werkzeug.exceptions import HTTPException

log = logging.getLogger(__name__)
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

BODY_BYTES_MAX: Final = 1024 * 1024
"""Of every body that is not an artifact's."""
STREAMED: Final = ("PUT", "/api/v1/artifacts/")
"""Method and path prefix of the one kind of request whose body is streamed to disk."""
_WAITING_BYTES_MAX: Final = 1024 * 1024
_WAITING_MESSAGES_MAX: Final = 16
_LAST_WORDS_S: Final = 2.0
_DRAINED_BYTES_MAX: Final = 16 * 1024 * 1024
_DRAIN_S: Final = 5.0
_KEY: Final = "qubix.pace"


class Pace:
    """Counts what has come and what was taken; there is room while less than `most` waits."""

    def __init__(self, most: int) -> None:
        self._most, self._waiting = most, 0
        self._room, self._empty = asyncio.Event(), asyncio.Event()
        self._room.set()
        self._empty.set()

    async def room(self) -> None:
        await self._room.wait()

    async def empty(self) -> None:
        """Until all that came was taken."""
        await self._empty.wait()

    def came(self, amount: int) -> None:
        self._waiting += amount
        if self._waiting > 0:
            self._empty.clear()
        if self._waiting >= self._most:
            self._room.clear()

    def taken(self, amount: int) -> None:
        self._waiting -= amount
        if self._waiting < self._most:
            self._room.set()
        if self._waiting == 0:
            self._empty.set()


class Paced:
    """The application behind it, paced. What escapes from the application is logged here: nobody else would."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Any) -> None:
        try:
            await self._app(scope, _paced(scope, receive), send)
        except OSError as problem:
            log.debug("http.client_gone", extra={"problem": type(problem).__name__})
            raise
        except Exception:
            log.exception("http.failed")
            raise


def _paced(scope: Scope, receive: Receive) -> Receive:
    if scope["type"] == "websocket":
        return _messages(receive, _new(scope, _WAITING_MESSAGES_MAX))
    if scope["type"] == "http" and is_streamed(scope["method"], scope["path"]):
        return _streamed(receive, _new(scope, _WAITING_BYTES_MAX))
    return _bounded(receive)


def is_streamed(method: str, path: str) -> bool:
    return method == STREAMED[0] and path.startswith(STREAMED[1])


def _new(scope: Scope, most: int) -> Pace:
    scope[_KEY] = pace = Pace(most)
    return pace


def _messages(receive: Receive, pace: Pace) -> Receive:
    async def paced() -> Any:
        await pace.room()
        event = await receive()
        if event["type"] == "websocket.receive":
            pace.came(1)
            if event.get("bytes") == b"":
                # Quart stumbles over an empty binary message: it is falsy, and there is no text beside it.
                return {"type": "websocket.receive", "text": ""}
        elif event["type"] == "websocket.disconnect":
            # Quart ends the handler at once, with what was said last still unread.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await pace.empty()
        return event

    return paced


def _streamed(receive: Receive, pace: Pace) -> Receive:
    async def paced() -> Any:
        await pace.room()
        message = await receive()
        pace.came(len(message.get("body", b"")))
        return message

    return paced


def _bounded(receive: Receive) -> Receive:
    """A body that is too long ends where that shows: Quart refuses it, and the rest is never held in memory."""
    came = 0

    async def bounded() -> Any:
        nonlocal came
        message = await receive()
        came += len(message.get("body", b""))
        return {**message, "more_body": False} if came > BODY_BYTES_MAX else message

    return bounded


def taken(scope: Any, amount: int) -> None:
    """A handler has taken so many bytes of its body, or messages of its WebSocket."""
    pace = (scope or {}).get(_KEY)
    if pace is not None:
        pace.taken(amount)


async def next_message() -> str | bytes:
    """The WebSocket's next message, in place of Quart's own `websocket.receive`."""
    message: str | bytes = await websocket.receive()
    taken(websocket.scope, 1)
    return message


async def drained(body: Body, scope: Any) -> bool:
    """Reads what is left of a refused body, within bounds: a client that still sends would never see the answer.

    False when there is more than that.
    """
    left = _DRAINED_BYTES_MAX
    with contextlib.suppress(TimeoutError, HTTPException):
        async with asyncio.timeout(_DRAIN_S):
            async for piece in body:
                taken(scope, len(piece))
                left -= len(piece)
                if left < 0:
                    return False
            return True
    return False


class SizedRequest(Request):
    """Streamed bodies have no limit here: the store that they go to has one."""

    def __init__(self, method: str, scheme: str, path: str, *args: Any, **kwargs: Any) -> None:
        if is_streamed(method, path):
            kwargs["max_content_length"] = None
        super().__init__(method, scheme, path, *args, **kwargs)
