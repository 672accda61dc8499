# SPDX-License-Identifier: Apache-2.0
"""What devices say of themselves now, as columns and as a list. Pure. What a device does not tell is left empty."""

from collections.abc import Callable, Iterator
from typing import Final

from qubix.cli import shown
from qubix_protocol.api import ListingView
from qubix_protocol.messages import Sample

COLUMNS: Final = ("model", "use", "°C", "GiB used", "W", "MHz", "slowed by", "others", "age", "provider")
RIGHT: Final = frozenset({"use", "°C", "GiB used", "W", "MHz", "others", "age"})
SPARE: Final = ("provider", "others", "MHz", "W", "slowed by")
"""Those that are empty all the way down go as well; the age never does, since it says what the rest is worth."""
SHORTEN: Final[dict[str, Callable[[str], str]]] = {
    "provider": shown.peer,
    "model": shown.short_model,
    "W": lambda text: text.partition("/")[0],
    "slowed by": shown.first_of,
    "age": lambda text: "stale" if "stale" in text else text,
}
_NOTHING: Final = Sample(at_ms=0)


def row(one: ListingView) -> list[str]:
    found = one.metrics or _NOTHING
    return [
        one.title,
        shown.percent(found.utilisation_pct),
        _number(found.temperature_c),
        _of(_gib(found.memory_used_bytes), _gib(found.memory_total_bytes)),
        _of(_watts(found.power_mw), _watts(found.power_limit_mw)),
        _number(found.clock_mhz),
        shown.slowed_by(found.throttle),
        _number(found.foreign_processes or None),
        shown.age(one),
        one.provider,
    ]


def pairs(one: ListingView) -> Iterator[tuple[str, str]]:
    """Every reading with its unit."""
    found = one.metrics or _NOTHING
    yield "read", _unit(shown.age(one), "ago")
    yield "use", shown.percent(found.utilisation_pct)
    yield "temperature", _unit(_number(found.temperature_c), "°C")
    yield "fan", shown.percent(found.fan_pct)
    yield "memory used", _unit(_of(_gib(found.memory_used_bytes), _gib(found.memory_total_bytes)), "GiB")
    yield "memory busy", shown.percent(found.memory_busy_pct)
    yield "power", _unit(_of(_watts(found.power_mw), _watts(found.power_limit_mw)), "W")
    yield "clock", _unit(_number(found.clock_mhz), "MHz")
    yield "memory clock", _unit(_number(found.memory_clock_mhz), "MHz")
    yield "slowed by", "" if found.throttle is None else shown.slowed_by(found.throttle) or "nothing"
    yield "PCIe in", _unit(_mb(found.pcie_rx_bytes_per_s), "MB/s")
    yield "PCIe out", _unit(_mb(found.pcie_tx_bytes_per_s), "MB/s")
    yield "processes", _processes(found)
    yield "memory errors", _number(found.ecc_errors)
    yield "retired pages", _number(found.retired_pages)
    yield "last Xid", _number(found.xid)


def _processes(found: Sample) -> str:
    if found.processes is None:
        return ""
    others = found.foreign_processes or 0
    return f"{found.processes:,}" + (f", {others:,} of them not the node's" if others else "")


def _number(value: float | int | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _gib(size: int | None) -> str:
    if size is None:
        return ""
    gib = size / 1024**3
    return f"{gib:,.1f}" if gib < 100 else f"{gib:,.0f}"


def _watts(power_mw: int | None) -> str:
    return "" if power_mw is None else f"{power_mw / 1000:,.0f}"


def _mb(rate: int | None) -> str:
    return "" if rate is None else f"{rate / 1e6:,.1f}"


def _of(part: str, whole: str) -> str:
    return f"{part}/{whole}" if part and whole else part


def _unit(text: str, unit: str) -> str:
    return f"{text} {unit}" if text else ""
