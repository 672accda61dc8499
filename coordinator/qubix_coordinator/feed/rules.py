# SPDX-License-Identifier: Apache-2.0
"""The market's table as its events tell it, which listings changed when, and what one query makes of both. Pure.

Events come in the order of the stream, which is not that of a listing's states: a transaction that began earlier may
have changed the listing later. A listing's own order is that of its events' ids, which are drawn under its row's lock.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from qubix_coordinator.market import rules as market
from qubix_coordinator.outbox.rules import Cursor
from qubix_protocol.api import ListingView

STEPS_MAX: Final = 20_000
"""Changes that are remembered: who comes back after more of them gets the whole table."""


class Shown(NamedTuple):
    """A listing in the market. The view's age is left out: it is told from when the reading came."""

    view: ListingView
    heard_ms: int | None


Matches = Callable[[ListingView], bool]


class Change(NamedTuple):
    """One event: the listing's new state; None: it left."""

    cursor: Cursor
    listing_id: str
    shown: Shown | None


class _Step(NamedTuple):
    cursor: Cursor
    listing_id: str


class Difference(NamedTuple):
    """What a watcher has to do to its table."""

    listings: tuple[Shown, ...]
    gone: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.listings or self.gone)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A database snapshot: which transactions it sees."""

    first_after: int
    running: frozenset[int]

    @staticmethod
    def parse(text: str) -> "Snapshot":
        """PostgreSQL writes `xmin:xmax:xid,xid,…`."""
        _, xmax, running = text.split(":")
        return Snapshot(int(xmax), frozenset(int(xid) for xid in running.split(",") if xid))

    def sees(self, xid: int) -> bool:
        """Of a transaction that has committed by now."""
        return xid < self.first_after and xid not in self.running


@dataclass(frozen=True, slots=True)
class Loaded:
    """The table at one moment, and what surrounds it.

    `cursor` is the last settled event; `ahead` are events behind it that the table holds already, since they committed
    while an older transaction still ran. `recent` are the events after `since`, up to the cursor.
    """

    table: dict[str, Shown]
    snapshot: Snapshot
    cursor: Cursor
    ahead: Mapping[Cursor, str]
    since: Cursor
    recent: tuple[tuple[Cursor, str], ...]


class Market:
    """The table at `cursor`, and the changes that led there since `since`."""

    def __init__(self, loaded: Loaded, steps_max: int = STEPS_MAX) -> None:
        self.table, self.cursor, self.since = loaded.table, loaded.cursor, loaded.since
        self._snapshot, self._ahead, self._steps_max = loaded.snapshot, dict(loaded.ahead), steps_max
        self._steps = [_Step(cursor, key) for cursor, key in loaded.recent]
        self._newest: dict[str, int] = {}

    def apply(self, change: Change) -> bool:
        """Whether the table is another one now."""
        cursor, key, shown = change
        self.reach(cursor)
        if self._snapshot.sees(cursor.xid):
            # The table was loaded with it; but somebody who was elsewhere has yet to hear of it.
            self._ahead.pop(cursor, None)
            self._note(_Step(cursor, key))
            return False
        if cursor.id < self._newest.get(key, 0):
            return False
        self._newest[key] = cursor.id
        self._note(_Step(cursor, key))
        if shown == self.table.get(key):
            return False
        if shown is None:
            del self.table[key]
        else:
            self.table[key] = shown
        return True

    def reach(self, cursor: Cursor) -> None:
        """Nothing happened up to there that was not applied."""
        self.cursor = max(self.cursor, cursor)

    def replace(self, loaded: Loaded) -> set[str]:
        """After events were missed: the listings that may differ. What was between is known to nobody."""
        old, self.table = self.table, loaded.table
        self.cursor = self.since = loaded.cursor
        self._snapshot, self._ahead = loaded.snapshot, dict(loaded.ahead)
        self._steps, self._newest = [], {}
        return {key for key in old.keys() | self.table.keys() if old.get(key) != self.table.get(key)}

    def changes(self, after: Cursor) -> list[str] | None:
        """Every listing that changed after the cursor, the last one last; None: too long ago to tell."""
        if after < self.since:
            return None
        found: dict[str, None] = {}
        for step in self._steps[bisect_right(self._steps, after, key=lambda one: one.cursor) :]:
            found.pop(step.listing_id, None)
            found[step.listing_id] = None
        return [*found, *(key for key in self._ahead.values() if key not in found)]

    def _note(self, step: _Step) -> None:
        self._steps.append(step)
        if len(self._steps) >= 2 * self._steps_max:
            self._forget(len(self._steps) - self._steps_max)

    def _forget(self, count: int) -> None:
        for step in self._steps[:count]:
            if self._newest.get(step.listing_id) == step.cursor.id:
                del self._newest[step.listing_id]
        self.since = self._steps[count - 1].cursor
        del self._steps[:count]


class Table:
    """The listings of the market that one query wants."""

    def __init__(self, matches: Matches) -> None:
        self.matches = matches
        self.members: dict[str, Shown] = {}

    def take(self, keys: Iterable[str], table: Mapping[str, Shown]) -> Difference:
        """Takes over what became of these listings."""
        listings, gone = list[Shown](), list[str]()
        for key in keys:
            now, was = self._wanted(table.get(key)), self.members.get(key)
            if now is not None and now != was:
                self.members[key] = now
                listings.append(now)
            elif now is None and was is not None:
                del self.members[key]
                gone.append(key)
        return Difference(tuple(listings), tuple(gone))

    def since(self, changed: Iterable[str]) -> Difference:
        """What became of these listings, for somebody of whom nothing but a cursor is known: where a replica loaded its
        table, it may have told states that are newer than its cursor. So everything that changed is told, be it as gone
        that they never had."""
        found = [(key, self.members.get(key)) for key in changed]
        return Difference(
            tuple(now for _, now in found if now is not None), tuple(k for k, now in found if now is None)
        )

    def _wanted(self, shown: Shown | None) -> Shown | None:
        return shown if shown is not None and self.matches(shown.view) else None


def of_view(view: ListingView, heard_ms: int | None) -> Shown:
    return Shown(msgspec.structs.replace(view, metrics_age_ms=None), heard_ms)


def aged(shown: Shown, now_ms: int) -> ListingView:
    """As it is told at that moment (P9)."""
    if shown.heard_ms is None:
        return shown.view
    age_ms = max(0, now_ms - shown.heard_ms)
    return msgspec.structs.replace(shown.view, metrics_age_ms=age_ms, stale=shown.view.stale or market.stale(age_ms))
