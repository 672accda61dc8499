# SPDX-License-Identifier: Apache-2.0
"""One task per process that follows the market while somebody watches it, and tells all who do, ten times a second.

Between two ticks the last state of each listing wins. A frame is made once for each distinct query, and the same bytes
are written to every socket that watches it. What another replica commits comes through the outbox like everything else.
"""

import asyncio
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import LimitExceeded, Unavailable
from qubix_coordinator.feed import frames
from qubix_coordinator.feed.bounds import Bounds, check_size, outgrown, too_slow
from qubix_coordinator.feed.frames import Encodings
from qubix_coordinator.feed.load import change_of, load
from qubix_coordinator.feed.rules import Market
from qubix_coordinator.feed.watchers import Feed, Snapshot, Sort, Topic, Watcher, Wire
from qubix_coordinator.market.views import TOPIC
from qubix_coordinator.outbox import Cursor, Event
from qubix_coordinator.outbox.notifier import Notifier, Overflow, Subscription

log = logging.getLogger(__name__)
TICK_S: Final = 0.1
LOOK_S: Final = 0.25
STILL_S: Final = 5.0
"""So often who watches a quiet market hears that it is quiet."""
POLLED_S: Final = 2.0
"""Without a look at the outbox for this long nobody is told that it is quiet."""
PARKED_S: Final = 5.0
READY_S: Final = 30.0
BACKLOG_MAX: Final = 20_000
_WRITES: Final = 100
_BUILT: Final = 1_000


class Feeds:
    """`run` belongs to the task group of the composition root; everything else is called in the same event loop."""

    def __init__(
        self, db: Database, notifier: Notifier, now_ms: Callable[[], int], bounds: Bounds | None = None
    ) -> None:
        self._db, self._notifier, self._now_ms, self.bounds = db, notifier, now_ms, bounds or Bounds()
        self._feeds: dict[str, Feed] = {}
        self._by_listing: dict[str, Feed] = {}
        self._market: Market | None = None
        self._live: Subscription | None = None
        self._ready = asyncio.Event()
        self._wanted = asyncio.Event()
        self._wanted_s = 0.0
        self._waiting: set[Watcher] = set()
        self._held: weakref.WeakSet[Snapshot] = weakref.WeakSet()
        self._writing = False

    async def watch(
        self,
        wire: Wire,
        topic: Topic,
        cursor: Cursor | None = None,
        *,
        order: str = "",
        sort: Sort = tuple,
        visits: bool = False,
    ) -> Watcher:
        """Begins with the whole table, or goes on behind the cursor. `visits`: for somebody without an account. Raises
        LimitExceeded, Unavailable."""
        self._wanted_s = self._clock()
        self._wanted.set()
        feed = await self._feed(topic, visits)
        watcher = Watcher(feed, wire, order, sort, visits=visits)
        feed.watchers.add(watcher)
        feed.idle_since_s = None
        self._moved(watcher, feed.begin, cursor)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        self._waiting.discard(watcher)
        watcher.pending.clear()
        watcher.held = None
        watcher.feed.watchers.discard(watcher)
        if not watcher.feed.watchers:
            watcher.feed.idle_since_s = self._clock()

    def drained(self, watcher: Watcher) -> None:
        """Its socket has room again."""
        if watcher in self._waiting and watcher.parked is None:
            watcher.waits_since_s = self._clock()
            self._moved(watcher, watcher.feed.pump)

    async def run(self) -> None:
        """Until cancelled. A database that is away is waited for; nothing is skipped meanwhile."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_on(), name="feed")
            tasks.create_task(self._look_on(), name="feed-looks")

    # Following the market

    async def _follow_on(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                if not await self._follow():
                    return
            except Overflow:
                log.warning("feed.overflow")
            except Unavailable:
                await self._db.until_back()

    async def _follow(self) -> bool:
        """Until nobody has watched for a while; False once the notifier has ended. Raises Overflow, Unavailable."""
        with self._notifier.subscribe([TOPIC], BACKLOG_MAX) as live:
            await self._notifier.wait_listening()
            await self._load()
            self._live = live
            try:
                while self._wanted.is_set():
                    taken = await _taken(live)
                    if taken is None:
                        return False
                    if taken:
                        await self._take(taken)
                        await asyncio.sleep(TICK_S)
            finally:
                self._live = None
        self._market = None
        self._feeds.clear()
        self._by_listing.clear()
        self._ready.clear()
        return True

    async def _load(self) -> None:
        loaded = await load(self._db, self._now_ms())
        if self._market is None:
            self._market = Market(loaded)
        else:
            before = self._market.cursor
            await self._tick(list(self._market.replace(loaded)), before)
        self._ready.set()

    async def _take(self, events: Sequence[Event]) -> None:
        assert self._market is not None
        before, changed = self._market.cursor, dict[str, None]()
        for event in events:
            try:
                change = change_of(event)
            except (msgspec.ValidationError, KeyError):
                # From a newer or an older release. The rows themselves are read by this one.
                log.exception("feed.unreadable", extra={"cursor": str(event.cursor)})
                raise Overflow from None
            if self._market.apply(change):
                changed.pop(change.listing_id, None)
                changed[change.listing_id] = None
        if changed:
            await self._tick(list(changed), before)

    async def _tick(self, keys: list[str], before: Cursor) -> None:
        """Makes every frame first, so that whoever comes while they are written finds tables that agree."""
        assert self._market is not None
        encodings = Encodings(self._now_ms())
        made = [(feed, feed.tick(keys, self._market, encodings)) for feed in self._concerned(keys)]
        self._writing = True
        try:
            for feed, told in made:
                if len(feed.table.members) > 2 * self.bounds.listings:
                    self._end(feed)
                elif told:
                    await self._write(feed, told, before)
        finally:
            self._writing = False

    def _concerned(self, keys: list[str]) -> Iterator[Feed]:
        yield from (feed for feed in self._feeds.values() if feed.topic.listing_id is None)
        yield from (self._by_listing[key] for key in keys if key in self._by_listing)

    async def _write(self, feed: Feed, told: list[bytes], before: Cursor) -> None:
        alone, version = told[0] if len(told) == 1 else None, feed.version
        for count, watcher in enumerate(tuple(feed.watchers), start=1):
            if watcher in feed.watchers:
                # What nearly all of them are: written to without a detour.
                plain = alone is not None and watcher.reads_along and watcher.at != version
                if not (plain and alone is not None and watcher.wire.offer(alone)):
                    self._moved(watcher, feed.tell, told, before)
            if count % _WRITES == 0:
                await asyncio.sleep(0)

    def _end(self, feed: Feed) -> None:
        """Of a query that by now matches too much."""
        for watcher in tuple(feed.watchers):
            watcher.wire.cut(outgrown(feed, self.bounds))

    # Watchers

    async def _feed(self, topic: Topic, visits: bool) -> Feed:
        feed = self._feeds.get(topic.name)
        if feed is None:
            self._make_room(topic, visits)
            feed = self._feeds[topic.name] = Feed(topic, self._held)
            feed.idle_since_s = self._clock()
            if topic.listing_id is not None:
                self._by_listing[topic.listing_id] = feed
        await self._until_ready()
        async with feed.building:
            if not feed.built:
                await self._build(feed)
        check_size(feed, self.bounds)
        return feed

    async def _build(self, feed: Feed) -> None:
        """In pieces: ticks in between keep up what is there already."""
        assert self._market is not None
        wanted = feed.topic.listing_id
        keys = list(self._market.table) if wanted is None else [wanted]
        for first in range(0, len(keys), _BUILT):
            feed.table.take(keys[first : first + _BUILT], self._market.table)
            await asyncio.sleep(0)
        feed.built = True

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(READY_S):
                await self._ready.wait()
        except TimeoutError:
            raise Unavailable("the live feed does not run", remedy="Try again in a few seconds") from None

    def _make_room(self, topic: Topic, visits: bool) -> None:
        """Raises LimitExceeded."""
        if topic.name == TOPIC:
            return
        alike = [one for one in self._feeds.values() if (one.topic.listing_id is None) == (topic.listing_id is None)]
        most = self.bounds.queries if topic.listing_id is None else self.bounds.listings_watched
        most //= 1 + visits
        if len(alike) < most:
            return
        idle = [one for one in alike if not one.watchers and one.built]
        if not idle:
            raise LimitExceeded(
                f"{most} different topics of this kind are watched already, and there is room for no more",
                field="subscribe",
                remedy="Watch the whole market or a query that others watch, or try again in a minute",
                retry_after_s=60.0,
            )
        self._drop(min(idle, key=lambda one: one.idle_since_s or 0.0))

    def _drop(self, feed: Feed) -> None:
        del self._feeds[feed.topic.name]
        if feed.topic.listing_id is not None:
            del self._by_listing[feed.topic.listing_id]

    def _moved(self, watcher: Watcher, move: Callable[..., bool], *how: object) -> None:
        """Does it, and keeps in mind who has to wait."""
        try:
            done = move(watcher, *how, self._market, self._now_ms())
        except Unavailable as problem:
            watcher.wire.cut(problem)
            return
        if done:
            watcher.waits_since_s = None
            self._waiting.discard(watcher)
        else:
            self._wait(watcher)

    def _wait(self, watcher: Watcher) -> None:
        if watcher.waits_since_s is None or watcher not in self._waiting:
            watcher.waits_since_s = self._clock()
        self._waiting.add(watcher)

    # Looking after what no event tells

    async def _look_on(self) -> None:
        told_s = self._clock()
        while True:
            await asyncio.sleep(LOOK_S)
            now_s = self._clock()
            if self._market is None:
                continue
            position = self._live.position if self._live is not None else None
            if position is not None:
                self._market.reach(position)
            self._look_at_waiting(now_s)
            self._drop_idle(now_s)
            if now_s - told_s >= STILL_S and self._listens(now_s) and not self._writing:
                told_s = now_s
                await self._tell_still(self._market.cursor)

    def _listens(self, now_s: float) -> bool:
        """Whether what the table holds is known to be the newest."""
        live = self._live
        return live is not None and live.position is not None and now_s - live.looked_s <= POLLED_S

    def _look_at_waiting(self, now_s: float) -> None:
        assert self._market is not None
        for watcher in tuple(self._waiting):
            since_s = watcher.waits_since_s if watcher.waits_since_s is not None else now_s
            if watcher.parked is not None:
                if watcher.parked <= self._market.cursor:
                    self._unpark(watcher, watcher.parked)
                elif now_s - since_s > PARKED_S:
                    # No replica of this market can have told it that.
                    self._unpark(watcher, Cursor(-1, 0))
            elif now_s - since_s > self.bounds.slow_s:
                self._waiting.discard(watcher)
                watcher.wire.cut(too_slow(self.bounds))

    def _unpark(self, watcher: Watcher, cursor: Cursor) -> None:
        watcher.parked = watcher.waits_since_s = None
        self._waiting.discard(watcher)
        watcher.behind = cursor
        self._moved(watcher, watcher.feed.pump)

    def _drop_idle(self, now_s: float) -> None:
        for feed in tuple(self._feeds.values()):
            if feed.watchers:
                self._wanted_s = now_s
            elif feed.built and now_s - (feed.idle_since_s or 0.0) > self.bounds.linger_s:
                self._drop(feed)
        if now_s - self._wanted_s > self.bounds.idle_s:
            self._wanted.clear()

    async def _tell_still(self, cursor: Cursor) -> None:
        for feed in tuple(self._feeds.values()):
            frame = frames.event(feed.topic.name, "still", cursor)
            for count, watcher in enumerate(tuple(feed.watchers), start=1):
                if self._writing or self._market is None or self._market.cursor != cursor:
                    # The cursor must never run ahead of what a watcher was told.
                    return
                if watcher.reads_along:
                    watcher.wire.offer(frame)
                if count % _WRITES == 0:
                    await asyncio.sleep(0)

    @staticmethod
    def _clock() -> float:
        return asyncio.get_running_loop().time()


async def _taken(live: Subscription) -> list[Event] | None:
    """None once the notifier has ended; nothing now and then, so that the end of all interest is seen."""
    try:
        async with asyncio.timeout(STILL_S):
            return await live.take() or None
    except TimeoutError:
        return []
