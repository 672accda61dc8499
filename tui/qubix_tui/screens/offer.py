# SPDX-License-Identifier: Apache-2.0
"""One device in full: what it is, what it says of itself now and lately, and its record."""

from collections.abc import Sequence
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll

from qubix.cli import readings as reading
from qubix.cli import shown
from qubix_protocol.api import ListingView
from qubix_protocol.messages import Sample
from qubix_tui import columns, drawn
from qubix_tui.book import Entry
from qubix_tui.link import ago
from qubix_tui.screens.base import Page
from qubix_tui.screens.renting import rent
from qubix_tui.screens.run import run_here
from qubix_tui.widgets.pairs import Sheet, pairs, section

SPANS: Final = (60, 360, 1_440)
"""Minutes of history."""
_CHART_LINES: Final = 4


class OfferPage(Page):
    place = "market"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "Back"),
        Binding("n", "rent", "Rent"),
        Binding("r", "run", "Run here"),
        Binding("h", "span", "Hours"),
    ]

    def __init__(self, listing_id: str) -> None:
        super().__init__()
        self.listing_id = listing_id
        self._last: Entry | None = None
        self._samples: Sequence[Sample] | None = None
        self._span = SPANS[0]
        self._drawn: tuple[object, ...] = ()

    def body(self) -> ComposeResult:
        with VerticalScroll(id="sheet-scroll"):
            yield Sheet(id="sheet", markup=False)

    def on_mount(self) -> None:
        self.query_one("#sheet-scroll").focus()
        self._ask()

    def _ask(self) -> None:
        def came(found: Sequence[Sample]) -> None:
            self._samples = found

        self.act(self.qubix.client.readings(self.listing_id, minutes=self._span), came, doing="asking for its history")

    def action_span(self) -> None:
        self._span = SPANS[(SPANS.index(self._span) + 1) % len(SPANS)]
        self._samples = None
        self._ask()

    def action_rent(self) -> None:
        if self._last is not None:
            rent(self.qubix, self._last.listing)

    async def action_run(self) -> None:
        if self._last is not None:
            await run_here(self.qubix, self._last.listing)

    def tick(self) -> None:
        entry = self.qubix.book.entries.get(self.listing_id)
        self._last = entry or self._last
        now_s = self.qubix.clock()
        state = (entry, entry and entry.heard_s, int(now_s), self._samples, self._span, self.size.width)
        if state == self._drawn or self._last is None:
            return
        self._drawn = state
        self._draw(self._last, entry is None, now_s)

    def _draw(self, entry: Entry, left: bool, now_s: float) -> None:
        one = entry.listing
        width = max(40, self.size.width - 4)
        title = one.kind.titled(one.model) + (" — has left the market" if left else "")
        self.query_one("#sheet", Sheet).put(
            pairs([*_market(entry, now_s)], title=title),
            pairs([*_specification(one)], title="Specification"),
            pairs([*_now(entry, now_s)], title="Now"),
            section(f"Use in % over the last {self._hours()}", self._chart("utilisation_pct", width, 0, 100, "")),
            section(f"Temperature over the last {self._hours()}", self._chart("temperature_c", width, 20, 100, "°")),
            pairs([*_record(one)], title="Record"),
        )

    def _hours(self) -> str:
        return f"{self._span // 60} h" if self._span >= 60 else f"{self._span} min"

    def _chart(self, name: str, width: int, low: float, high: float, unit: str) -> list[str]:
        if self._samples is None:
            return ["asking …"]
        values = [getattr(one, name) for one in self._samples]
        known = [value for value in values if value is not None]
        if not known:
            return ["the device has not told it"]
        told = f"last {known[-1]:.1f}, lowest {min(known):.1f}, highest {max(known):.1f}"
        return [told, *drawn.chart(values, width, _CHART_LINES, low=low, high=high, unit=unit)]

    def words(self) -> str:
        return self.listing_id


def _market(entry: Entry, now_s: float) -> list[tuple[str, str]]:
    one = entry.listing
    return [
        ("price", f"{shown.qu(one.rate_qu_per_h)} QU an hour"),
        ("availability", columns.availability(entry, now_s)),
        ("verified", columns.verified(entry, now_s)),
        ("score", f"{columns.score(entry, now_s)} GFLOP/s of float32 matrix products"),
        ("reliability", columns.reliability(entry, now_s)),
        ("location", columns.location(entry, now_s)),
        ("provider", one.provider),
        ("listing", one.listing_id),
    ]


def _specification(one: ListingView) -> list[tuple[str, str]]:
    notice = f"{one.notice_s:,} s before it ends a rental" if one.notice_s else ""
    return [
        ("device", one.device_id),
        ("memory", shown.memory(one.memory_bytes)),
        ("cores", f"{one.cores:,}" if one.cores else ""),
        ("devices alike", f"{one.devices_alike:,}" if one.devices_alike > 1 else ""),
        ("driver / CUDA", shown.driver(one)),
        ("compute capability", one.compute_capability),
        ("back ends", ", ".join(one.backends)),
        ("jobs run in", shown.isolation(one)),
        ("host processor", f"{one.cpu_cores:,} cores" if one.cpu_cores else ""),
        ("host memory", shown.memory(one.cpu_memory_bytes) if one.cpu_memory_bytes else ""),
        ("free disk", shown.memory(one.disk_free_bytes) if one.disk_free_bytes else ""),
        (
            "network",
            f"{_mb(one.inet_down_bytes_per_s)} down, {_mb(one.inet_up_bytes_per_s)} up" if _has_net(one) else "",
        ),
        ("notice", notice),
    ]


def _has_net(one: ListingView) -> bool:
    return bool(one.inet_down_bytes_per_s or one.inet_up_bytes_per_s)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB/s" if size else "unknown"


def _now(entry: Entry, now_s: float) -> list[tuple[str, str]]:
    """Its readings, with their age as it is now."""
    age_s = entry.age_s(now_s)
    if age_s is None:
        return [("readings", "the device has told none yet")]
    mark = " (stale: do not count on it)" if entry.stale(now_s) else ""
    return [("read", f"{ago(age_s)} ago{mark}"), *(pair for pair in reading.pairs(entry.listing) if pair[0] != "read")]


def _record(one: ListingView) -> list[tuple[str, str]]:
    return [
        ("checked work", f"{shown.record(one)} attempts passed their check"),
        ("listed", shown.moment(one.listed_ms) if one.listed_ms else ""),
    ]
