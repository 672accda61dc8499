# SPDX-License-Identifier: Apache-2.0
"""A bounded queue that keeps the newest: for telemetry, where an old value is worth less than a new one."""

from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class NewestQueue(Generic[T]):
    """Any number of writers, one reader. `dropped` counts the items pushed out."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a queue holds at least 1 item, not {capacity}")
        self._items: deque[T] = deque(maxlen=capacity)
        self._waiting = trio.Event()
        self._closed = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> bool:
        """Never waits; False when it pushed an older item out."""
        full = len(self._items) == self._items.maxlen
        self.dropped += full
        self._items.append(item)
        self._waiting.set()
        return not full

    def close(self) -> None:
        """The reader still gets what is queued, then the end."""
        self._closed = True
        self._waiting.set()

    async def get(self) -> T:
        """The oldest item kept. Raises `trio.EndOfChannel` after `close`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._items:
            if self._closed:
                raise trio.EndOfChannel
            self._waiting = trio.Event()
            await self._waiting.wait()
        return self._items.popleft()

    def take_all(self) -> list[T]:
        taken = list(self._items)
        self._items.clear()
        return taken

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.get()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
