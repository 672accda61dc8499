# SPDX-License-Identifier: Apache-2.0
"""The market: every device for rent, live, with the query line above it."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, Static

from qubix.errors import BadUsage
from qubix_protocol.query import QueryError, SortKey, order_text, parse_order
from qubix_tui import columns, search
from qubix_tui.book import Entry
from qubix_tui.screens.base import Page
from qubix_tui.screens.offer import OfferPage
from qubix_tui.screens.renting import rent
from qubix_tui.screens.run import run_here
from qubix_tui.sorting import Shown
from qubix_tui.told import told
from qubix_tui.widgets.ask import Field, Form, Values
from qubix_tui.widgets.grid import Grid

_NONE_YET = "Nothing is offered now.\n`qubix node` on a machine with a GPU shares it."


class MarketPage(Page):
    """`/` types a query, Enter shows a device in full."""

    place = "market"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "query", "Query", key_display="/"),
        Binding("s", "sort", "Sort"),
        Binding("o", "order", "Order", show=False),
        Binding("S", "reverse", "Reverse", key_display="S"),
        Binding("n", "rent", "Rent"),
        Binding("r", "run", "Run here"),
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
        yield Input(
            placeholder="/ query, such as: gpu_ram>=24 price<90000 region in [EU, US]",
            id="query",
            compact=True,
            select_on_focus=False,
        )
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
        return f"{len(self.shown.keys):,} of {len(self.qubix.book.entries):,} · by {order_text(self.shown.order)}"

    # Query and order

    def on_input_changed(self, event: Input.Changed) -> None:
        self._ask(event.value)

    def _ask(self, text: str) -> None:
        """While the line is wrong, what it found last stays, and the place is pointed at."""
        wrong = self.query_one("#query-problem", Static)
        try:
            self.shown.choose(search.query(text).matches)
        except QueryError as error:
            wrong.update(search.pointed(text, error))
            wrong.add_class("-wrong")
        else:
            wrong.remove_class("-wrong")
        self.qubix.tick()

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
        """By the next of the usual orders."""
        self._sort(search.following(self.shown.order))

    def action_reverse(self) -> None:
        self._sort(search.reversed_first(self.shown.order))

    def action_order(self) -> None:
        """By whatever fields are typed."""

        def check(values: Values) -> None:
            try:
                if not parse_order(values["order"]):
                    raise BadUsage("order", "an order needs a field", "Write one, such as price.")
            except QueryError as error:
                raise BadUsage("order", str(error), error.remedy) from None

        def typed(values: Values | None) -> None:
            if values is not None:
                self._sort(parse_order(values["order"]))

        text = "Fields with commas between; - behind one for the largest first: score_per_qu-, price"
        fields = (Field(name="order", label="Order", value=order_text(self.shown.order)),)
        self.app.push_screen(Form("Sort by", fields, text=text, check=check), typed)

    def _sort(self, order: tuple[SortKey, ...]) -> None:
        self.shown.sort(order)
        self.qubix.tick()

    # What can be done with a device

    def on_grid_chosen(self, event: "Grid.Chosen") -> None:
        self.qubix.push_screen(OfferPage(event.key))

    def action_rent(self) -> None:
        entry = self.grid.row
        if entry is not None:
            rent(self.qubix, entry.listing)

    async def action_run(self) -> None:
        entry = self.grid.row
        if entry is not None:
            await run_here(self.qubix, entry.listing)
