# SPDX-License-Identifier: Apache-2.0
"""Which listings a person looks at, in which order, kept as the book changes. Pure."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from qubix_protocol.api import ListingView
from qubix_protocol.states import Availability
from qubix_tui import columns
from qubix_tui.book import Book

Keeps = Callable[[ListingView], bool]
_READY: Final = {state: at for at, state in enumerate(Availability)}


class Order(NamedTuple):
    """`key` of a listing; `down`: the largest first."""

    name: str
    title: str
    key: Callable[[ListingView], Any]
    down: bool = False


ORDERS: Final = (
    Order("price", "price", lambda one: one.rate_qu_per_h),
    Order("score", "score", lambda one: one.score, down=True),
    Order("score_per_qu", "score per QU", columns.score_per_qu, down=True),
    Order("reliability", "reliability", lambda one: one.reliability, down=True),
    Order("memory", "memory", lambda one: one.memory_bytes, down=True),
    Order("availability", "availability", lambda one: _READY[one.availability]),
    Order("model", "model", lambda one: one.model.lower()),
    Order("use", "use", lambda one: (one.metrics.utilisation_pct if one.metrics else None) or 0.0),
)


def everything(one: ListingView) -> bool:
    return True


class Shown:
    """`keys` are what matches, in order. `refresh` says what has to be drawn anew."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self.keys: list[str] = []
        self.order, self.down = ORDERS[0], ORDERS[0].down
        self._keeps: Keeps = everything
        self._sorted_by: dict[str, Any] = {}
        self._seen = -1

    def choose(self, keeps: Keeps) -> None:
        self._keeps, self._seen = keeps, -1

    def sort(self, order: Order, *, down: bool) -> None:
        self.order, self.down, self._seen = order, down, -1

    def refresh(self) -> set[str] | None:
        """What changed among `keys`; None: the list itself did."""
        changed = None if self._seen < 0 else self._book.since(self._seen)
        self._seen = self._book.version
        if changed is None:
            self._sorted_by = {}
            self._judge(self._book.entries)
            self._arrange()
            return None
        if changed and self._judge(changed):
            self._arrange()
            return None
        return {name for name in changed if name in self._sorted_by}

    def _judge(self, names: "set[str] | dict[str, Any]") -> bool:
        """Whether some of them came, went or have another place now."""
        moved = False
        for name in names:
            entry = self._book.entries.get(name)
            if entry is None or not self._keeps(entry.listing):
                moved |= self._sorted_by.pop(name, None) is not None
                continue
            key = self.order.key(entry.listing)
            if self._sorted_by.get(name) != key:
                self._sorted_by[name] = key
                moved = True
        return moved

    def _arrange(self) -> None:
        """Equal ones by their id, so that none jumps."""
        names = sorted(self._sorted_by)
        self.keys = sorted(names, key=self._sorted_by.__getitem__, reverse=self.down)
