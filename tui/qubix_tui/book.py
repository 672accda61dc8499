# SPDX-License-Identifier: Apache-2.0
"""The market as it was told last: what is in it, since when, and what changed since somebody looked. Pure."""

from collections import deque
from collections.abc import Iterable
from typing import Final

from qubix_protocol.api import ListingView

USE_KEPT: Final = 60
CHANGES_KEPT: Final = 8192
STALE_S: Final = 60.0
"""Readings that are older are marked (P9)."""


class Entry:
    """One listing, when it was told (`heard_s`, a monotonic clock's), and how busy it was lately, newest last."""

    __slots__ = ("heard_s", "listing", "use")

    def __init__(self, listing: ListingView, heard_s: float) -> None:
        self.listing, self.heard_s = listing, heard_s
        self.use: deque[float | None] = deque(maxlen=USE_KEPT)
        self._remember(listing)

    def put(self, listing: ListingView, heard_s: float) -> None:
        news = listing.metrics is not None and (
            self.listing.metrics is None or listing.metrics.at_ms != self.listing.metrics.at_ms
        )
        self.listing, self.heard_s = listing, heard_s
        if news:
            self._remember(listing)

    def _remember(self, listing: ListingView) -> None:
        if listing.metrics is not None:
            self.use.append(listing.metrics.utilisation_pct)

    def age_s(self, now_s: float) -> float | None:
        """Of its readings, with the time since they were told."""
        if self.listing.metrics is None or self.listing.metrics_age_ms is None:
            return None
        return self.listing.metrics_age_ms / 1000 + max(0.0, now_s - self.heard_s)

    def stale(self, now_s: float) -> bool:
        age_s = self.age_s(now_s)
        return self.listing.stale or (age_s is not None and age_s > STALE_S)


class Book:
    """By listing, in the order in which they came. `version` grows with each change."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.version = 0
        self._changes: deque[tuple[int, str]] = deque(maxlen=CHANGES_KEPT)
        self._whole_since = 0
        """The last version that replaced everything."""

    def snapshot(self, listings: Iterable[ListingView], heard_s: float) -> None:
        """Replaces everything; what a listing was told of before is kept where it is still there."""
        before, self.entries = self.entries, {}
        for one in listings:
            self.entries[one.listing_id] = _put(before.get(one.listing_id), one, heard_s)
        self.version += 1
        self._whole_since = self.version
        self._changes.clear()

    def put(self, listing: ListingView, heard_s: float) -> None:
        name = listing.listing_id
        self.entries[name] = _put(self.entries.get(name), listing, heard_s)
        self._changed(name)

    def gone(self, listing_id: str) -> None:
        if self.entries.pop(listing_id, None) is not None:
            self._changed(listing_id)

    def get(self, listing_id: str) -> Entry | None:
        return self.entries.get(listing_id)

    def since(self, version: int) -> set[str] | None:
        """Which changed after that version; None: more than is remembered, look at all."""
        if version < self._whole_since or (self._changes and self._changes[0][0] > version + 1):
            return None
        found: set[str] = set()
        for changed_in, name in reversed(self._changes):
            if changed_in <= version:
                break
            found.add(name)
        return found

    def _changed(self, name: str) -> None:
        self.version += 1
        self._changes.append((self.version, name))


def _put(entry: Entry | None, listing: ListingView, heard_s: float) -> Entry:
    if entry is None:
        return Entry(listing, heard_s)
    entry.put(listing, heard_s)
    return entry
