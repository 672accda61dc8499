# SPDX-License-Identifier: Apache-2.0
"""One task per process that reads the outbox and hands each event to those who follow its topic."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator

from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.outbox import events
from qubix_coordinator.outbox.events import Event
from qubix_coordinator.outbox.rules import Cursor, wants

BACKLOG_MAX = 2000
LISTENING_S = 10.0


class Overflow(Exception):
    """The follower was too slow and has missed events: it must take a new snapshot."""


class Subscription:
    """A bounded queue of events: iterate it, or `take` what is there. Raises Overflow once what was queued before the
    loss has been read."""

    def __init__(self, topics: Iterable[str] | None, bound: int = BACKLOG_MAX) -> None:
        self.topics = None if topics is None else frozenset(topics)
        self._bound = bound
        self._queue: deque[Event] = deque()
        self._waiting = asyncio.Event()
        self._lost = False
        self._ended = False
        self._position: Cursor | None = None
        self._looked_s = 0.0

    @property
    def position(self) -> Cursor | None:
        """How far the stream was read when the notifier looked last; None while something waits here, or is lost."""
        return None if self._queue or self._lost else self._position

    @property
    def looked_s(self) -> float:
        """When that was, by the loop's clock."""
        return self._looked_s

    def reached(self, position: Cursor, now_s: float) -> None:
        self._position, self._looked_s = position, now_s

    def offer(self, event: Event) -> None:
        if self._lost or not wants(self.topics, event.topic):
            return
        if len(self._queue) >= self._bound:
            self._lost = True
        else:
            self._queue.append(event)
        self._waiting.set()

    def end(self) -> None:
        self._ended = True
        self._waiting.set()

    async def take(self) -> list[Event]:
        """All that waits, at least one event; nothing once the notifier has ended. Raises Overflow."""
        while not self._queue:
            if self._lost:
                raise Overflow
            if self._ended:
                return []
            self._waiting.clear()
            await self._waiting.wait()
        taken = list(self._queue)
        self._queue.clear()
        return taken

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            while self._queue:
                yield self._queue.popleft()
            if self._lost:
                raise Overflow
            if self._ended:
                return
            self._waiting.clear()
            await self._waiting.wait()


class Notifier:
    """`run` belongs to a task group of the composition root. Polls only while somebody follows."""

    def __init__(self, db: Database, *, poll_ms: int = 50) -> None:
        self._db = db
        self._poll_s = poll_ms / 1000
        self._followers: set[Subscription] = set()
        self._nudged = asyncio.Event()
        self._at: Cursor | None = None
        self._listening = asyncio.Event()

    def nudge(self) -> None:
        """Call after a commit of this process: the event goes out at once instead of at the next poll."""
        self._nudged.set()

    async def position(self) -> Cursor:
        """Where to follow from for somebody who takes a snapshot next."""
        return await events.newest(self._db)

    @contextlib.contextmanager
    def subscribe(self, topics: Iterable[str] | None, bound: int = BACKLOG_MAX) -> Iterator[Subscription]:
        """Live events from now on. To resume from a cursor use `follow`."""
        subscription = Subscription(topics, bound)
        self._followers.add(subscription)
        self.nudge()
        try:
            yield subscription
        finally:
            self._followers.discard(subscription)

    async def wait_listening(self) -> None:
        """Until whatever is committed from now on reaches the subscriptions. Raises Unavailable after LISTENING_S."""
        try:
            async with asyncio.timeout(LISTENING_S):
                await self._listening.wait()
        except TimeoutError:
            raise Unavailable("the live feed does not run", remedy="Try again in a few seconds") from None

    async def follow(self, after: Cursor, topics: Iterable[str] | None) -> AsyncIterator[Event]:
        """Every event after the cursor, past and live, each once and in order. Raises Overflow.

        Overflow also means that the cursor is older than what is kept.
        """
        wanted = None if topics is None else frozenset(topics)
        if after < await events.oldest(self._db):
            raise Overflow
        with self.subscribe(wanted) as live:
            # Only then read the past: an event between the two would be in neither.
            await self.wait_listening()
            seen = after
            while batch := await events.read(self._db, seen, wanted):
                for event in batch:
                    seen = event.cursor
                    yield event
            async for event in live:
                if event.cursor > seen:
                    yield event

    async def run(self) -> None:
        """Until cancelled. A database that is away is waited for; nothing is skipped meanwhile."""
        try:
            while True:
                await self._wait()
                try:
                    await self._deliver()
                except Unavailable:
                    await self._db.until_back()
        finally:
            for follower in self._followers:
                follower.end()

    async def _wait(self) -> None:
        if self._followers:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._nudged.wait()
        else:
            # Nobody missed anything: whoever comes next reads the past by cursor.
            self._at = None
            self._listening.clear()
            await self._nudged.wait()
        self._nudged.clear()

    async def _deliver(self) -> None:
        if not self._followers:
            return
        if self._at is None:
            self._at = await events.newest(self._db)
            self._listening.set()
        while batch := await events.read(self._db, self._at):
            for event in batch:
                for follower in tuple(self._followers):
                    follower.offer(event)
            self._at = batch[-1].cursor
        now_s = asyncio.get_running_loop().time()
        for follower in self._followers:
            follower.reached(self._at, now_s)
