# SPDX-License-Identifier: Apache-2.0
"""One query's watchers, and how each of them gets its frames at its own pace.

Who reads along is written the same bytes as everybody else. Who does not is left alone, remembered by a cursor; once
there is room again it is told the difference from there, so that it costs no memory but what its socket holds.
"""

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from qubix_coordinator.errors import QubixError, Unavailable
from qubix_coordinator.feed import frames
from qubix_coordinator.feed.frames import Encodings
from qubix_coordinator.feed.rules import Market, Matches, Shown, Table
from qubix_coordinator.outbox import Cursor

SNAPSHOT_MS: Final = 1_000
"""A snapshot serves whoever comes within this time; its readings are told older by as much, never younger."""
HELD_BYTES_MAX: Final = 256 * 1024 * 1024
"""Of all snapshots that somebody has not read to the end."""
Sort = Callable[[Sequence[Shown]], Sequence[Shown]]


class Wire(Protocol):
    """A socket as the feed sees it. What it takes is sent or kept by it, whatever becomes of the other end."""

    @property
    def full(self) -> bool:
        """Whether the other end reads too slowly just now, or is gone."""
        ...

    @property
    def offer(self) -> Callable[[bytes], bool]:
        """Takes a frame, unless it is full."""
        ...

    def cut(self, problem: QubixError) -> None:
        """It is to be told the problem and closed."""
        ...


@dataclass(frozen=True, slots=True)
class Topic:
    """What is watched. `matches` decides by a listing alone; `listing_id` when it is about that one."""

    name: str
    matches: Matches
    listing_id: str | None = None


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Snapshot:
    frames: tuple[bytes, ...]
    size_bytes: int
    made_ms: int


@dataclass(slots=True, eq=False)
class Watcher:
    """`behind` is the cursor up to which it was told everything, once it does not get what the others get; `parked`
    one from another replica that this one has not reached yet. `at` is the feed's version when it was last told
    something by itself: the frames of that one are not for it."""

    feed: "Feed"
    wire: Wire
    order: str = ""
    sort: Sort = tuple
    pending: deque[bytes] = field(default_factory=deque)
    behind: Cursor | None = None
    parked: Cursor | None = None
    at: int = 0
    waits_since_s: float | None = None
    """Since when it has been parked, or its socket full."""
    held: Snapshot | None = None
    visits: bool = False
    """For somebody without an account, for whom half of what there is room for is enough."""

    @property
    def reads_along(self) -> bool:
        """What comes next may be written to it, if its socket takes it."""
        return self.behind is None and self.parked is None and not self.pending


class Feed:
    """A query's table, as it is at the market's cursor, and its watchers."""

    def __init__(self, topic: Topic, held: "weakref.WeakSet[Snapshot]") -> None:
        self.topic = topic
        self.table = Table(topic.matches)
        self.watchers: set[Watcher] = set()
        self.version = 0
        """Counts the ticks that had news."""
        self.building = asyncio.Lock()
        self.built = False
        self.idle_since_s: float | None = None
        self._held = held
        self._snapshots: dict[str, Snapshot] = {}
        self._caught_up: dict[Cursor, list[bytes]] = {}

    def tick(self, keys: Sequence[str], market: Market, encodings: Encodings) -> list[bytes]:
        """Takes over what became of these listings; gives the frames for who reads along, none without news."""
        self._caught_up.clear()
        told = self.table.take(keys, market.table)
        if not told:
            return []
        self._snapshots.clear()
        self.version += 1
        return frames.delta(self.topic.name, market.cursor, told, encodings)

    def begin(self, watcher: Watcher, after: Cursor | None, market: Market, now_ms: int) -> bool:
        """With the whole table, or behind the cursor; whether everything was written. Raises Unavailable."""
        if after is not None and after > market.cursor:
            watcher.parked = after
            return False
        if after is None:
            self.start(watcher, market, now_ms)
        else:
            self.resume(watcher, after, market, now_ms)
        return self.pump(watcher, market, now_ms)

    def tell(self, watcher: Watcher, told: list[bytes], before: Cursor, market: Market, now_ms: int) -> bool:
        """What a tick made, when `before` was the market's cursor; whether it has been told. Raises Unavailable."""
        if watcher.at == self.version:
            return watcher.reads_along
        if watcher.reads_along and watcher.wire.offer(told[0]):
            watcher.pending.extend(told[1:])
            return not watcher.pending or self.pump(watcher, market, now_ms)
        if watcher.behind is None and watcher.parked is None:
            watcher.behind = before
        return False

    def start(self, watcher: Watcher, market: Market, now_ms: int) -> None:
        """The whole table. Raises Unavailable while too much waits for others."""
        made = self._snapshots.get(watcher.order)
        if made is None or now_ms - made.made_ms >= SNAPSHOT_MS:
            self._snapshots = {
                order: one for order, one in self._snapshots.items() if now_ms - one.made_ms < SNAPSHOT_MS
            }
            made = self._snapshots[watcher.order] = self._snapshot(watcher, market, now_ms)
        watcher.held = made
        watcher.pending.extend(made.frames)
        watcher.behind, watcher.at = None, self.version

    def _snapshot(self, watcher: Watcher, market: Market, now_ms: int) -> Snapshot:
        if sum(one.size_bytes for one in self._held) > HELD_BYTES_MAX // (1 + watcher.visits):
            raise Unavailable("too much waits for slow readers", remedy="Try again in a few seconds")
        members = watcher.sort(list(self.table.members.values()))
        told = tuple(frames.snapshot(self.topic.name, market.cursor, members, Encodings(now_ms + SNAPSHOT_MS)))
        made = Snapshot(told, sum(map(len, told)), now_ms)
        self._held.add(made)
        return made

    def resume(self, watcher: Watcher, after: Cursor, market: Market, now_ms: int) -> None:
        """What happened after the cursor; the whole table when that is too long ago. Raises Unavailable."""
        told = self._since(after, market, now_ms)
        if told is None:
            watcher.pending.append(frames.event(self.topic.name, "reset", None))
            self.start(watcher, market, now_ms)
        else:
            watcher.pending.extend(told)
            watcher.behind, watcher.at = None, self.version

    def _since(self, after: Cursor, market: Market, now_ms: int) -> list[bytes] | None:
        """Of many who lost their sockets at once, most come back with the same cursor."""
        if after not in self._caught_up:
            changes = market.changes(after)
            if changes is None:
                return None
            told = self.table.since(changes)
            self._caught_up[after] = frames.delta(self.topic.name, market.cursor, told, Encodings(now_ms))
        return self._caught_up[after]

    def pump(self, watcher: Watcher, market: Market, now_ms: int) -> bool:
        """Writes what there is room for; whether that was everything. Raises Unavailable."""
        while not watcher.wire.full:
            if watcher.pending:
                if watcher.wire.offer(watcher.pending[0]):
                    watcher.pending.popleft()
            elif watcher.behind is not None:
                watcher.held = None
                self.resume(watcher, watcher.behind, market, now_ms)
            else:
                watcher.held = None
                return True
        return False
