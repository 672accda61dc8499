# SPDX-License-Identifier: Apache-2.0
"""One device in full: what it is, what it says of itself now and lately, and its record."""

from typing import ClassVar, Final

from textual.binding import Binding, BindingType

from qubix.cli import readings as reading
from qubix.cli import shown
from qubix_protocol.api import ListingView
from qubix_protocol.history import HistoryView
from qubix_protocol.reputation import ReputationView
from qubix_protocol.selftest import Check, CheckStatus, SelfTestView
from qubix_tui import columns, drawn
from qubix_tui.book import Entry
from qubix_tui.link import ago
from qubix_tui.screens.renting import rent
from qubix_tui.screens.run import run_here
from qubix_tui.screens.sheets import SheetPage
from qubix_tui.widgets.pairs import pairs, section

SPANS: Final = (("1 h", 60), ("6 h", 360), ("1 day", 1_440), ("7 days", 10_080))
"""History by name, in minutes."""
_POINTS: Final = 150
_CHART_LINES: Final = 4
_CHANGES: Final = 6


class OfferPage(SheetPage):
    place = "market"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "Back"),
        Binding("n", "rent", "Rent"),
        Binding("r", "run", "Run here"),
        Binding("h", "span", "Longer"),
        Binding("t", "selftest", "Self-test"),
    ]

    def __init__(self, listing_id: str) -> None:
        super().__init__()
        self.listing_id = listing_id
        self._last: Entry | None = None
        self._span = 0
        self._history: HistoryView | None = None
        self._reputation: ReputationView | None = None
        self._selftest: SelfTestView | None = None
        self._drawn: tuple[object, ...] = ()

    def on_mount(self) -> None:
        client, listing_id = self.qubix.client, self.listing_id
        self._ask()
        self.act(client.reputation(listing_id), self._came_reputation, doing="asking for its record")
        self.act(client.selftest(listing_id), self._came_selftest, doing="asking for its self-test")

    def _ask(self) -> None:
        async def asked() -> HistoryView:
            now_ms = (await self.qubix.client.network()).clock_ms
            now_ms = max(now_ms, self.qubix.client.session.clock_ms())
            since_ms = now_ms - SPANS[self._span][1] * 60_000
            return await self.qubix.client.history(self.listing_id, since_ms=since_ms, points=_POINTS)

        self.act(asked(), self._came_history, doing="asking for its history")

    def _came_history(self, found: HistoryView) -> None:
        self._history = found

    def _came_reputation(self, found: ReputationView) -> None:
        self._reputation = found

    def _came_selftest(self, found: SelfTestView) -> None:
        self._selftest = found

    def action_selftest(self) -> None:
        """Has it tested now: its owner may."""

        def asked(found: SelfTestView) -> None:
            self._selftest = found
            self.qubix.say("Its node was asked to test it now; t here again later shows the outcome.")

        self.act(self.qubix.client.ask_selftest(self.listing_id), asked, doing="asking for a self-test")

    def action_span(self) -> None:
        self._span = (self._span + 1) % len(SPANS)
        self._history = None
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
        state = (
            entry,
            entry and entry.heard_s,
            int(now_s),
            self._history,
            self._reputation,
            self._selftest,
            self._span,
            self.size.width,
        )
        if state == self._drawn or self._last is None:
            return
        self._drawn = state
        self._draw(self._last, entry is None, now_s)

    def _draw(self, entry: Entry, left: bool, now_s: float) -> None:
        one = entry.listing
        width = max(40, self.size.width - 4)
        span = SPANS[self._span][0]
        title = one.title + (" — has left the market" if left else "")
        self.sheet.put(
            pairs([*_market(entry, now_s)], title=title),
            pairs([*_specification(one)], title="Specification"),
            pairs([*_now(entry, now_s)], title="Now"),
            section(f"Use in % over the last {span}", self._chart("utilisation_pct", width, 0, 100, "")),
            section(f"Temperature over the last {span}", self._chart("temperature_c", width, 20, 100, "°")),
            section(f"Price over the last {span}", self._prices()),
            pairs([*_record(one)], title="Record"),
            section("Why it is thought reliable, or not", self._reliable()),
            section("Self-test", self._tested()),
        )

    def _chart(self, name: str, width: int, low: float, high: float, unit: str) -> list[str]:
        if self._history is None:
            return ["asking …"]
        values = series(self._history, name)
        known = [value for value in values if value is not None]
        if not known:
            return ["the device has not told it"]
        told = f"last {known[-1]:.1f}, lowest {min(known):.1f}, highest {max(known):.1f}"
        return [told, *drawn.chart(values, width, _CHART_LINES, low=low, high=high, unit=unit)]

    def _prices(self) -> list[str]:
        if self._history is None:
            return ["asking …"]
        changes = self._history.changes[-_CHANGES:]
        lines = [
            f"{shown.moment(one.at_ms)}  {shown.qu(one.rate_qu_per_h)} QU an hour, {one.availability}"
            for one in changes
        ]
        return lines or ["nothing is known"]

    def _reliable(self) -> list[str]:
        found = self._reputation
        if found is None:
            return ["asking …"]
        return [f"{found.reliability:.0%}. {found.text}", *(f"{one.name}: {one.text}" for one in found.parts)]

    def _tested(self) -> list[str]:
        found = self._selftest
        if found is None:
            return ["asking …"]
        if found.at_ms is None:
            return ["there is none yet; its owner starts one with t"]
        kind = "quick" if found.quick else "full" if found.full else "in part"
        verdict = "✓ passed" if found.passed else "✗ not passed"
        head = f"{shown.moment(found.at_ms)}, {kind}: {verdict} (its node's own word)"
        return [head, *(line for check in found.checks for line in _check(check))]

    def words(self) -> str:
        return self.listing_id


def series(found: HistoryView, name: str) -> list[float | None]:
    """A gauge's mean in each stretch of time, None where nothing was read."""
    first_ms = found.since_ms // found.bucket_ms * found.bucket_ms
    values: list[float | None] = [None] * max(1, -(-(found.until_ms - first_ms) // found.bucket_ms))
    for point in found.points:
        gauge = getattr(point, name)
        at = (point.start_ms - first_ms) // found.bucket_ms
        if gauge is not None and 0 <= at < len(values):
            values[at] = gauge.mean
    return values


def _check(one: Check) -> list[str]:
    """What was found beside what is needed; and what to do, where it did not pass."""
    need = f", needed {one.needed}" if one.required else ""
    line = f"{_STATUS[one.status]:<6} {one.title}: {one.found}{need}"
    return [line, *([f"       {one.remedy}"] if one.status in (CheckStatus.FAIL, CheckStatus.WARN) else [])]


_STATUS: Final = {
    CheckStatus.PASS: "✓ pass",
    CheckStatus.WARN: "! warn",
    CheckStatus.FAIL: "✗ fail",
    CheckStatus.SKIP: "– skip",
}


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
