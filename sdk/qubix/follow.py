# SPDX-License-Identifier: Apache-2.0
"""The views of a job or a rental as they change: the live feed while it lasts, a look by HTTP whenever it does not."""

import random
import time
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from qubix import retry
from qubix.errors import CannotReach, NotFinished, Unavailable
from qubix.session import Session
from qubix.transport import Disconnected, Socket
from qubix_protocol.api import LiveEvent, Subscribe

LIVE_PATH: Final = "/live"
QUIET_S: Final = 15.0
"""Without news for this long, one look by HTTP."""
PATIENCE_S: Final = 60.0
"""How long a coordinator may be away before following gives up."""


class Revised(Protocol):
    """A view that counts its changes."""

    @property
    def revision(self) -> int: ...


V = TypeVar("V", bound=Revised)


class Follower(Generic[V]):
    """Each `look` gives a view that is news, or None after some waiting. Close it. `path` is where the view of `kind`
    is asked for, `topic` where it is told."""

    def __init__(self, session: Session, topic: str, path: str, kind: type[V]) -> None:
        self._session, self._topic, self._path, self._kind = session, topic, path, kind
        self._socket: Socket | None = None
        self._cursor: str | None = None
        self._failures = 0
        self._last: V | None = None
        self._heard_s = time.monotonic()

    async def look(self, wait_s: float = QUIET_S) -> V | None:
        view = await self._step(min(wait_s, QUIET_S))
        if view is None:
            return None
        self._heard_s = time.monotonic()
        if self._last is not None and (view.revision < self._last.revision or view == self._last):
            return None
        self._last = view
        return view

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
            self._socket = None

    async def _step(self, wait_s: float) -> V | None:
        if self._socket is None and not await self._connected():
            await self._session.port.sleep(min(wait_s, retry.delay_s(self._failures, random.random())))  # noqa: S311
            return await self._poll()
        return await self._receive(wait_s)

    async def _connected(self) -> bool:
        """Whether the feed is there, subscribed from the last cursor on."""
        try:
            self._socket = await self._session.port.connect(LIVE_PATH)
            asked = Subscribe(subscribe=(self._topic,), cursor=self._cursor)
            await self._socket.send(msgspec.json.encode(asked).decode())
        except Disconnected:
            await self._lost()
            return False
        return True

    async def _receive(self, wait_s: float) -> V | None:
        assert self._socket is not None
        try:
            text = await self._socket.receive(wait_s)
        except Disconnected:
            await self._lost()
            return await self._poll()
        if text is None:
            return await self._poll()
        return self._read(text)

    def _read(self, text: str | bytes) -> V | None:
        """The view in an event; what this version does not know is passed over."""
        self._failures = 0
        try:
            event = msgspec.json.decode(text, type=LiveEvent)
            if event.topic != self._topic:
                return None
            self._cursor = event.cursor or self._cursor
            return None if event.kind == "reset" else msgspec.convert(event.data, self._kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None

    async def _poll(self) -> V | None:
        try:
            return await self._session.get(self._path, self._kind)
        except (CannotReach, Unavailable):
            if time.monotonic() - self._heard_s > PATIENCE_S:
                raise
            return None

    async def _lost(self) -> None:
        self._failures += 1
        await self.close()


class Deadline:
    """The caller's patience; None for no end."""

    def __init__(self, timeout_s: float | None, what: str) -> None:
        self._end_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._what = what

    def left_s(self) -> float:
        """At most `QUIET_S`. Raises `NotFinished`."""
        if self._end_s is None:
            return QUIET_S
        left = self._end_s - time.monotonic()
        if left <= 0:
            raise NotFinished(
                f"{self._what} is not finished yet", remedy="Wait longer, or cancel it; nothing is lost by waiting."
            )
        return min(left, QUIET_S)
