# SPDX-License-Identifier: Apache-2.0
"""The one door to the network, as a port that is awaited in both worlds.

Everything above is written once, with `async`. `AsyncPort` really suspends; `BlockingPort` (the synchronous client's)
does each thing on the spot and never suspends, so `blocking.now` can run the same code without an event loop.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeVar

import httpx
import websockets
import websockets.asyncio.client
import websockets.sync.client

from qubix.settings import Settings

T = TypeVar("T")
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
LIVE_BYTES_MAX: Final = 16 * 1024 * 1024


class Disconnected(Exception):
    """Nothing, or only a part of an answer, came. `sent` is False when the request cannot have arrived."""

    def __init__(self, problem: str, *, sent: bool) -> None:
        super().__init__(problem)
        self.sent = sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One HTTP request. `repeatable`: sending it twice does what sending it once does."""

    method: str
    path: str
    query: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    repeatable: bool = True
    limit_bytes: int = ANSWER_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    content: bytes


class Socket(Protocol):
    """A WebSocket. Both raise `Disconnected` once it is closed."""

    async def send(self, text: str) -> None: ...

    async def receive(self, timeout_s: float) -> str | bytes | None:
        """The next message, or None when none came in time."""
        ...

    async def close(self) -> None: ...


class Port(Protocol):
    async def send(self, call: Call) -> Reply:
        """Raises `Disconnected`."""
        ...

    async def connect(self, path: str) -> Socket:
        """Raises `Disconnected`, also when the server refuses the upgrade."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    def use_token(self, token: str) -> None:
        """For all that is sent from now on; "": none."""
        ...

    async def aside(self, work: Callable[[], T]) -> T:
        """Work that would hold up an event loop."""
        ...

    async def close(self) -> None: ...


class _Shared:
    """What both ports tell httpx and websockets."""

    def __init__(self, settings: Settings, token: str) -> None:
        self.headers = _bearer(token)
        self.timeout = httpx.Timeout(settings.timeout_s, connect=settings.connect_timeout_s)
        self.open_timeout_s = settings.connect_timeout_s
        self.url = settings.url
        self.is_local = settings.is_local

    def use_token(self, token: str, http: "httpx.Client | httpx.AsyncClient") -> None:
        self.headers = _bearer(token)
        http.headers.pop("Authorization", None)
        http.headers.update(self.headers)

    def live_url(self, path: str) -> str:
        return "ws" + self.url.removeprefix("http") + path

    @property
    def proxy(self) -> Literal[True] | None:
        return None if self.is_local else True


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


_SOCKET_ERRORS = (OSError, websockets.WebSocketException, TimeoutError)


def _failed(error: httpx.TransportError) -> Disconnected:
    sent = not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
    return Disconnected(str(error) or type(error).__name__, sent=sent)


def _too_long(call: Call) -> Disconnected:
    return Disconnected(f"the answer to {call.method} {call.path} is over {call.limit_bytes} bytes", sent=True)


class BlockingPort:
    def __init__(self, settings: Settings, token: str) -> None:
        self._shared = shared = _Shared(settings, token)
        self._http = httpx.Client(
            base_url=shared.url, headers=shared.headers, timeout=shared.timeout, trust_env=not shared.is_local
        )

    async def send(self, call: Call) -> Reply:
        body = bytearray()
        try:
            with self._http.stream(
                call.method, call.path, params=dict(call.query), headers=dict(call.headers), content=call.content
            ) as answer:
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > call.limit_bytes:
                        raise _too_long(call)
                return Reply(answer.status_code, answer.headers, bytes(body))
        except httpx.TransportError as error:
            raise _failed(error) from error

    async def connect(self, path: str) -> Socket:
        shared, stack = self._shared, contextlib.ExitStack()
        try:
            manager = websockets.sync.client.connect(
                shared.live_url(path),
                additional_headers=shared.headers,
                open_timeout=shared.open_timeout_s,
                close_timeout=1,
                proxy=shared.proxy,
                max_size=LIVE_BYTES_MAX,
            )
            return BlockingSocket(stack.enter_context(manager), stack)
        except _SOCKET_ERRORS as error:
            raise Disconnected(str(error), sent=False) from error

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  this port is the one that blocks

    def use_token(self, token: str) -> None:
        self._shared.use_token(token, self._http)

    async def aside(self, work: Callable[[], T]) -> T:
        return work()

    async def close(self) -> None:
        self._http.close()


class BlockingSocket:
    """`stack` holds the connection, which websockets wants used as a context manager."""

    def __init__(self, connection: websockets.sync.client.ClientConnection, stack: contextlib.ExitStack) -> None:
        self._connection, self._stack = connection, stack

    async def send(self, text: str) -> None:
        try:
            self._connection.send(text)
        except _SOCKET_ERRORS as error:
            raise Disconnected(str(error), sent=True) from error

    async def receive(self, timeout_s: float) -> str | bytes | None:
        try:
            return self._connection.recv(timeout_s)
        except TimeoutError:
            return None
        except _SOCKET_ERRORS as error:
            raise Disconnected(str(error), sent=True) from error

    async def close(self) -> None:
        self._stack.close()


class AsyncPort:
    def __init__(self, settings: Settings, token: str) -> None:
        self._shared = shared = _Shared(settings, token)
        self._http = httpx.AsyncClient(
            base_url=shared.url, headers=shared.headers, timeout=shared.timeout, trust_env=not shared.is_local
        )

    async def send(self, call: Call) -> Reply:
        body = bytearray()
        try:
            async with self._http.stream(
                call.method, call.path, params=dict(call.query), headers=dict(call.headers), content=call.content
            ) as answer:
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > call.limit_bytes:
                        raise _too_long(call)
                return Reply(answer.status_code, answer.headers, bytes(body))
        except httpx.TransportError as error:
            raise _failed(error) from error

    async def connect(self, path: str) -> Socket:
        shared, stack = self._shared, contextlib.AsyncExitStack()
        try:
            manager = websockets.asyncio.client.connect(
                shared.live_url(path),
                additional_headers=shared.headers,
                open_timeout=shared.open_timeout_s,
                close_timeout=1,
                proxy=shared.proxy,
                max_size=LIVE_BYTES_MAX,
            )
            return AsyncSocket(await stack.enter_async_context(manager), stack)
        except _SOCKET_ERRORS as error:
            raise Disconnected(str(error), sent=False) from error

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def use_token(self, token: str) -> None:
        self._shared.use_token(token, self._http)

    async def aside(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)

    async def close(self) -> None:
        await self._http.aclose()


class AsyncSocket:
    """`stack` holds the connection, which websockets wants used as a context manager."""

    def __init__(
        self, connection: websockets.asyncio.client.ClientConnection, stack: contextlib.AsyncExitStack
    ) -> None:
        self._connection, self._stack = connection, stack

    async def send(self, text: str) -> None:
        try:
            await self._connection.send(text)
        except _SOCKET_ERRORS as error:
            raise Disconnected(str(error), sent=True) from error

    async def receive(self, timeout_s: float) -> str | bytes | None:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._connection.recv()
        except TimeoutError:
            return None
        except _SOCKET_ERRORS as error:
            raise Disconnected(str(error), sent=True) from error

    async def close(self) -> None:
        await self._stack.aclose()
