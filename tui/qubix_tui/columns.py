# SPDX-License-Identifier: Apache-2.0
"""The market's columns in the order of every face of QUBIX, and how a list fits a terminal. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from qubix.cli import shown
from qubix_protocol.api import ListingView
from qubix_protocol.states import Availability, DeviceKind
from qubix_tui import drawn
from qubix_tui.book import Entry

T = TypeVar("T")
UNKNOWN: Final = "–"
SPARK: Final = 6
AVAILABILITY: Final = {
    Availability.AVAILABLE: "● available",
    Availability.BUSY: "◐ busy",
    Availability.RENTED: "◆ rented",
    Availability.DRAINING: "▽ draining",
    Availability.OFFLINE: "○ offline",
}
"""An icon and a word, never colour alone."""
_KINDS: Final = {DeviceKind.CUDA: "CUDA", DeviceKind.WEBGPU: "WebGPU", DeviceKind.CPU: "CPU"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Generic[T]):
    """`spare`: what a narrow terminal can do without, the lowest first; None: never. `grow`: it gets what is left."""

    name: str
    width: int
    text: Callable[[T, float], str]
    """The row and now, by the clock that `heard_s` is of."""
    right: bool = False
    spare: int | None = None
    grow: bool = False


def fit(columns: Sequence[Column[T]], room: int, gap: int = 1) -> list[tuple[Column[T], int]]:
    """Those that fit with their widths, in their order; those that grow share what is left."""
    kept = list(columns)
    while _width(kept, gap) > room:
        spared = [one for one in kept if one.spare is not None]
        if not spared:
            break
        kept.remove(min(spared, key=lambda one: one.spare or 0))
    left = max(0, room - _width(kept, gap))
    growing = [one for one in kept if one.grow]
    each = left // len(growing) if growing else 0
    return [(one, one.width + (each if one.grow else 0)) for one in kept]


def _width(columns: Sequence[Column[T]], gap: int) -> int:
    return sum(one.width for one in columns) + gap * max(0, len(columns) - 1)


def cell(text: str, width: int, *, right: bool = False) -> str:
    """Exactly `width` cells; what does not fit ends in an ellipsis."""
    cut = text if len(text) <= width else text[: max(0, width - 1)] + "…"
    return cut.rjust(width) if right else cut.ljust(width)


def model(entry: Entry, now_s: float) -> str:
    one = entry.listing
    name = one.title.removeprefix("NVIDIA ").removeprefix("GeForce ")
    many = f" ×{one.devices_alike}" if one.devices_alike > 1 else ""
    return f"{name}{many}"


def score(entry: Entry, now_s: float) -> str:
    return f"{entry.listing.score:,.0f}" if entry.listing.score > 0 else UNKNOWN


def score_per_qu(one: ListingView) -> float:
    """GFLOP/s for each QU an hour; 0 while nothing is measured, or nothing is asked."""
    return one.score / one.rate_qu_per_h if one.rate_qu_per_h and one.score > 0 else 0.0


def per_qu(entry: Entry, now_s: float) -> str:
    found = score_per_qu(entry.listing)
    return f"{found:,.3g}" if found else UNKNOWN


def reliability(entry: Entry, now_s: float) -> str:
    found = entry.listing.reliability
    return f"{found * 100:.1f} %" if found > 0 else UNKNOWN


def verified(entry: Entry, now_s: float) -> str:
    return "✓ yes" if entry.listing.verified else "✗ no"


def location(entry: Entry, now_s: float) -> str:
    """The country where it is known (`?`: by the provider's word alone), and the region."""
    one = entry.listing
    country = f"{one.country}{'' if one.country_seen else '?'}" if one.country else ""
    return " ".join(part for part in (country, one.region) if part) or UNKNOWN


def network(entry: Entry, now_s: float) -> str:
    one = entry.listing
    if not (one.inet_down_bytes_per_s or one.inet_up_bytes_per_s):
        return UNKNOWN
    return f"↓{_mbit(one.inet_down_bytes_per_s)} ↑{_mbit(one.inet_up_bytes_per_s)}"


def _mbit(size: int) -> str:
    return f"{size * 8 / 1e6:,.0f}" if size else UNKNOWN


def backends(entry: Entry, now_s: float) -> str:
    one = entry.listing
    rest = [name for name in one.backends if name != one.kind.value]
    return ", ".join([_KINDS[one.kind], *rest])


def availability(entry: Entry, now_s: float) -> str:
    return AVAILABILITY[entry.listing.availability]


def use(entry: Entry, now_s: float) -> str:
    found = entry.listing.metrics
    if found is None:
        return UNKNOWN
    text = UNKNOWN if found.utilisation_pct is None else f"{found.utilisation_pct:.0f}%"
    mark = "!" if entry.stale(now_s) else " "
    return f"{drawn.spark(list(entry.use), SPARK)}{mark}{text:>4}"


MARKET: Final[tuple[Column[Entry], ...]] = (
    Column(name="GPU", width=16, text=model, grow=True),
    Column(name="memory", width=9, text=lambda one, _: shown.memory(one.listing.memory_bytes), right=True, spare=50),
    Column(name="QU/h", width=9, text=lambda one, _: shown.qu(one.listing.rate_qu_per_h), right=True),
    Column(name="score", width=8, text=score, right=True, spare=30),
    Column(name="per QU", width=7, text=per_qu, right=True, spare=20),
    Column(name="reliable", width=8, text=reliability, right=True, spare=15),
    Column(name="verified", width=8, text=verified, spare=35),
    Column(name="location", width=10, text=location, spare=25),
    Column(name="Mbit/s", width=11, text=network, spare=5),
    Column(name="driver / CUDA", width=17, text=lambda one, _: shown.driver(one.listing) or UNKNOWN, spare=3),
    Column(name="back ends", width=9, text=backends, spare=10),
    Column(name="availability", width=12, text=availability),
    Column(name="use", width=SPARK + 5, text=use),
    Column(name="provider", width=11, text=lambda one, _: shown.peer(one.listing.provider), spare=4),
)
