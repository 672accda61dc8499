# SPDX-License-Identifier: Apache-2.0
"""What the account's own devices earn and do: sums, a chart, each device as it is now, and their work."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final, NamedTuple

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from qubix.cli import shown
from qubix_protocol.earnings import EarningsListing, EarningsPeriod, EarningsView, Period, WorkKind, WorkView
from qubix_tui import columns, drawn
from qubix_tui.book import Entry
from qubix_tui.columns import Column
from qubix_tui.screens.lists import LIMIT, ListPage
from qubix_tui.screens.offer import OfferPage
from qubix_tui.screens.sheets import SheetWindow
from qubix_tui.widgets.grid import Grid
from qubix_tui.widgets.pairs import pairs, section

PERIODS: Final = tuple(Period)
_CHART_LINES: Final = 4
_BAR_MAX: Final = 6
_HOW: Final = (
    "The node's own machine tells it; the market has no way to do it from here.",
    "Price: `qubix node --set-rate QU` from now on, for rentals and jobs that begin later.",
    "Maintenance: `qubix node --maintenance-in SECONDS --why TEXT` gives consumers notice and takes no more work;",
    "`qubix node --maintenance-off` takes it again. `qubix node --drain` finishes what runs, and stops.",
    "Self-test: Enter on a device (Tab goes there), then t.",
)


class Mine(NamedTuple):
    """One of the account's devices: what it earned, its listing while it is in the market, and the work on it."""

    earned: EarningsListing
    entry: Entry | None
    work: WorkView | None


DEVICES: Final[tuple[Column[Mine], ...]] = (
    Column(name="own device", width=16, text=lambda one, _: shown.short_model(one.earned.model), grow=True),
    Column(name="state", width=14, text=lambda one, _: _state(one)),
    Column(name="running", width=15, text=lambda one, _: _running(one)),
    Column(name="QU/h", width=9, text=lambda one, _: _rate(one), right=True, spare=2),
    Column(name="use", width=columns.SPARK + 5, text=lambda one, now: columns.use(one.entry, now) if one.entry else ""),
    Column(name="°C", width=4, text=lambda one, _: _heat(one), right=True, spare=3),
    Column(name="net QU", width=10, text=lambda one, _: shown.qu(one.earned.net_qu), right=True),
)


def _state(one: Mine) -> str:
    """A rented device is not in the market."""
    if one.entry is not None:
        return columns.AVAILABILITY[one.entry.listing.availability]
    return "◆ rented" if one.work is not None and one.work.kind is WorkKind.RENTAL else "○ not listed"


def _running(one: Mine) -> str:
    return "" if one.work is None else f"{one.work.kernel or one.work.kind} {one.work.state}"


def _rate(one: Mine) -> str:
    return "" if one.entry is None else shown.qu(one.entry.listing.rate_qu_per_h)


def _heat(one: Mine) -> str:
    found = None if one.entry is None or one.entry.listing.metrics is None else one.entry.listing.metrics.temperature_c
    return columns.UNKNOWN if found is None else f"{found:.0f}"


class ProviderPage(ListPage[WorkView]):
    place = "provider"
    none_yet = "No work yet.\n`qubix node` on a machine with a GPU shares it; what runs there is listed here."
    columns: ClassVar[Sequence[Column[Any]]] = (
        Column(name="began", width=19, text=lambda one, _: shown.moment(one.started_ms or one.created_ms), spare=3),
        Column(name="kind", width=6, text=lambda one, _: str(one.kind)),
        Column(name="kernel", width=11, text=lambda one, _: one.kernel or columns.UNKNOWN),
        Column(name="device", width=12, text=lambda one, _: shown.short_model(one.model), grow=True, spare=4),
        Column(name="state", width=10, text=lambda one, _: one.state),
        Column(name="why", width=14, text=lambda one, _: one.reason_text, grow=True, spare=1),
        Column(name="billed", width=10, text=lambda one, _: shown.seconds(one.billed_ms), right=True),
        Column(name="paid", width=9, text=lambda one, _: shown.qu(one.paid_qu), right=True),
        Column(name="owed", width=8, text=lambda one, _: shown.qu(one.owed_qu), right=True, spare=2),
        Column(name="fee", width=7, text=lambda one, _: shown.qu(one.fee_qu), right=True, spare=0),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "by", "Day, week, month"),
        Binding("p", "how", "Price, maintenance"),
        Binding("tab", "app.focus_next", "Devices or work"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._by = PERIODS[0]
        self._earned: EarningsView | None = None
        self._owned: dict[str, tuple[EarningsListing, WorkView | None]] = {}
        self._version = -1

    def body(self) -> ComposeResult:
        yield Static("", id="head", markup=False)
        yield Grid[Mine](DEVICES, self._mine_of, self.qubix.clock, id="devices")
        yield Grid[WorkView](self.columns, self.item, self.qubix.clock, id="list")

    def _mine_of(self, key: str) -> Mine | None:
        found = self._owned.get(key)
        return None if found is None else Mine(found[0], self.qubix.book.get(key), found[1])

    async def load(self) -> Sequence[tuple[str, WorkView]]:
        client = self.qubix.client
        self._earned = await client.earnings(by=self._by)
        found = await client.work(limit=LIMIT)
        self._owned = owned(self._earned.listings, found.work)
        self._version = -1
        return [(f"{one.work_id}", one) for one in found.work]

    def tick(self) -> None:
        """Devices as the live feed tells of them."""
        super().tick()
        if self._version != self.qubix.book.version:
            self._version = self.qubix.book.version
            self.devices.show(list(self._owned))
            self.devices.set_class(bool(self._owned), "-there")

    @property
    def devices(self) -> "Grid[Mine]":
        return self.query_one("#devices", Grid)

    def head(self) -> Text:
        found = self._earned
        if found is None:
            return Text("")
        whole = found.whole
        line = (
            f"earned {shown.qu(whole.earned_qu)} QU in {whole.settlements:,} payments,"
            f" awarded {shown.qu(whole.awarded_qu)}, taken back {shown.qu(whole.taken_back_qu)}:"
            f" net {shown.qu(whole.net_qu)} QU"
        )
        return Text(f"{line}\n") + section(f"Net by {found.by}", period_lines(found.periods, self.size.width - 4))

    def on_grid_chosen(self, event: "Grid.Chosen") -> None:
        if event.grid.id == "devices":
            self.app.push_screen(OfferPage(event.key))
        else:
            super().on_grid_chosen(event)

    def chosen(self, key: str) -> None:
        one = self.item(key)
        if one is not None:
            self.app.push_screen(SheetWindow(pairs(_all(one), title=f"{one.kind} on {one.model}")))

    def action_by(self) -> None:
        self._by = PERIODS[(PERIODS.index(self._by) + 1) % len(PERIODS)]
        self.action_again()

    def action_how(self) -> None:
        self.app.push_screen(SheetWindow(section("Price and maintenance", _HOW)))


def owned(
    earned: Sequence[EarningsListing], work: Sequence[WorkView]
) -> dict[str, tuple[EarningsListing, WorkView | None]]:
    """Every device that earned or worked lately, with the work that is on it now. `work` is newest first."""
    running = {one.listing_id: one for one in reversed(work) if one.ended_ms is None}
    found = {one.listing_id: one for one in earned if one.listing_id is not None}
    found = {one.listing_id: _unearned(one) for one in work} | found
    return {key: (one, running.get(key)) for key, one in found.items()}


def _unearned(one: WorkView) -> EarningsListing:
    return EarningsListing(
        listing_id=one.listing_id, provider=one.provider, model=one.model,
        earned_qu=0, fee_qu=0, awarded_qu=0, taken_back_qu=0, net_qu=0, settlements=0,
    )  # fmt: skip


def period_lines(periods: Sequence[EarningsPeriod], width: int) -> list[str]:
    """The newest as a number, all as a chart."""
    if not periods:
        return ["nothing so far"]
    last = periods[-1]
    values = [float(max(0, one.net_qu)) for one in periods]
    span = f"{periods[0].first_day} to {last.first_day}"
    told = f"{span}: last {shown.qu(last.net_qu)}, most {shown.qu(int(max(values)))} QU"
    wide = max(1, min(_BAR_MAX, (width - 16) // len(values)))
    columns_of = [value for value in values for _ in range(wide)]
    return [told, *drawn.chart(columns_of, width, _CHART_LINES, low=0.0, high=max(1.0, *values))]


def _all(one: WorkView) -> list[tuple[str, str]]:
    return [
        ("work", one.work_id),
        ("job", one.job_id or ""),
        ("rental", one.rental_id or ""),
        ("listing", one.listing_id),
        ("kernel", one.kernel),
        ("state", one.state),
        ("why", one.reason_text),
        ("began", shown.moment(one.started_ms) if one.started_ms else "not yet"),
        ("ended", shown.moment(one.ended_ms) if one.ended_ms else ""),
        ("billed", shown.seconds(one.billed_ms)),
        ("rate", f"{shown.qu(one.rate_qu_per_h)} QU an hour"),
        ("paid", f"{shown.qu(one.paid_qu)} QU, the market kept {shown.qu(one.fee_qu)}"),
        ("owed", f"{shown.qu(one.owed_qu)} QU, until it is accepted" if one.owed_qu else ""),
        ("taken back", f"{shown.qu(one.taken_back_qu)} QU by a decision" if one.taken_back_qu else ""),
    ]
