# SPDX-License-Identifier: Apache-2.0
"""Which listings a person looks at, in which order, kept as the book changes. Pure."""

from collections.abc import Callable, Iterable
from typing import Any

from qubix_protocol.api import ListingView
from qubix_protocol.query import FIELDS, SortKey, ordered
from qubix_protocol.query.evaluate import reading
from qubix_tui.book import Book
from qubix_tui.search import ORDERS

Keeps = Callable[[ListingView], bool]


def everything(one: ListingView) -> bool:
    return True


class Shown:
    """`keys` are what matches, in order. `refresh` says what has to be drawn anew."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self.keys: list[str] = []
        self.order: tuple[SortKey, ...] = ORDERS[0]
        self._keeps: Keeps = everything
        self._places: dict[str, tuple[Any, ...]] = {}
        """By what each one that matches is sorted."""
        self._read = [reading(FIELDS[key.name]) for key in self.order]
        self._seen = -1

    def choose(self, keeps: Keeps) -> None:
        self._keeps, self._seen = keeps, -1

    def sort(self, order: tuple[SortKey, ...]) -> None:
        self.order, self._seen = order, -1
        self._read = [reading(FIELDS[key.name]) for key in order]

    def refresh(self) -> set[str] | None:
        """What changed among `keys`; None: the list itself did."""
        changed = None if self._seen < 0 else self._book.since(self._seen)
        self._seen = self._book.version
        if changed is None:
            self._places = {}
            self._judge(self._book.entries)
            self._arrange()
            return None
        if changed and self._judge(changed):
            self._arrange()
            return None
        return {name for name in changed if name in self._places}

    def _judge(self, names: Iterable[str]) -> bool:
        """Whether some of them came, went or have another place now."""
        moved = False
        for name in names:
            entry = self._book.entries.get(name)
            if entry is None or not self._keeps(entry.listing):
                moved |= self._places.pop(name, None) is not None
                continue
            place = tuple(read(entry.listing) for read in self._read)
            if self._places.get(name) != place:
                self._places[name] = place
                moved = True
        return moved

    def _arrange(self) -> None:
        found = ordered((self._book.entries[name].listing for name in self._places), self.order)
        self.keys = [one.listing_id for one in found]
