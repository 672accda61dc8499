# SPDX-License-Identifier: Apache-2.0
"""The market: every device for rent, live, with the query line above it."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, Static

from qubix_tui import columns, search
from qubix_tui.book import Entry
from qubix_tui.screens.base import Page
from qubix_tui.screens.offer import OfferPage
from qubix_tui.screens.renting import rent
from qubix_tui.sorting import ORDERS, Shown
from qubix_tui.told import told
from qubix_tui.widgets.grid import Grid

_NONE_YET = "Nothing is offered yet.\n`qubix node` on a machine with a GPU shares it."


class MarketPage(Page):
    """`/` types a query, Enter shows a device in full."""

    place = "market"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "query", "Query", key_display="/"),
        Binding("s", "sort", "Sort"),
        Binding("S", "reverse", "Reverse", key_display="S"),
        Binding("n", "rent", "Rent"),
        Binding("escape", "clear", "Clear query"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._shown: Shown | None = None

    @property
    def shown(self) -> Shown:
        if self._shown is None:
            self._shown = Shown(self.qubix.book)
        return self._shown

    def body(self) -> ComposeResult:
        yield Input(placeholder="/ query", id="query", compact=True, select_on_focus=False)
        yield Static("", id="query-problem", markup=False)
        yield Grid[Entry](
            columns.MARKET,
            self.qubix.book.get,
            self.qubix.clock,
            id="market",
            dim=lambda entry, now: not self.qubix.feed.link.current or entry.stale(now),
        )

    def on_mount(self) -> None:
        self.grid.focus()

    @property
    def grid(self) -> "Grid[Entry]":
        return self.query_one("#market", Grid)

    def tick(self) -> None:
        changed = self.shown.refresh()
        if changed is None:
            self.grid.show(self.shown.keys)
        else:
            self.grid.touch(changed)
        self.grid.empty = "" if self.shown.keys else self._empty()

    def _empty(self) -> str:
        """None at all is told from none that matches."""
        there, feed = len(self.qubix.book.entries), self.qubix.feed
        if there:
            devices = "the only device" if there == 1 else f"all {there:,} devices"
            return f"No match: the query excludes {devices}.\nEsc clears it, / changes it."
        if feed.error is not None:
            return told(feed.error).line()
        return _NONE_YET if feed.link.current else "Waiting for the market …"

    def words(self) -> str:
        order = self.shown.order
        arrow = "▼" if self.shown.down else "▲"
        return f"{len(self.shown.keys):,} of {len(self.qubix.book.entries):,} · {arrow} {order.title}"

    # Query and order

    def on_input_changed(self, event: Input.Changed) -> None:
        self._ask(event.value)

    def _ask(self, text: str) -> None:
        self.shown.choose(search.keeps(text))
        self.tick()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.grid.focus()

    def action_query(self) -> None:
        self.query_one("#query", Input).focus()

    def action_clear(self) -> None:
        """From the query line back to the list; from the list to everything."""
        line = self.query_one("#query", Input)
        if line.has_focus:
            self.grid.focus()
        else:
            line.value = ""

    def action_sort(self) -> None:
        order = ORDERS[(ORDERS.index(self.shown.order) + 1) % len(ORDERS)]
        self.shown.sort(order, down=order.down)
        self.qubix.tick()

    def action_reverse(self) -> None:
        self.shown.sort(self.shown.order, down=not self.shown.down)
        self.qubix.tick()

    # What can be done with a device

    def on_grid_chosen(self, event: "Grid.Chosen") -> None:
        self.qubix.push_screen(OfferPage(event.key))

    def action_rent(self) -> None:
        entry = self.grid.row
        if entry is not None:
            rent(self.qubix, entry.listing)
