# SPDX-License-Identifier: Apache-2.0
"""`qubix offers history`: what a listing was like, as lines of small bars."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import click

from qubix.cli import shown
from qubix.cli.output import console, json_option, market, print_json, print_table
from qubix.cli.which import listing_named
from qubix_protocol.history import GaugeView, HistoryPoint, HistoryView

_BARS: Final = "▁▂▃▄▅▆▇█"
_GAUGES: Final[tuple[tuple[str, str, Callable[[float], str]], ...]] = (
    ("use", "utilisation_pct", lambda value: f"{value:.0f} %"),
    ("heat", "temperature_c", lambda value: f"{value:.0f} °C"),
    ("memory", "memory_used_bytes", lambda value: f"{value / 1024**3:,.1f} GiB"),
    ("power", "power_mw", lambda value: f"{value / 1000:,.0f} W"),
    ("clock", "clock_mhz", lambda value: f"{value:,.0f} MHz"),
)


@click.command()
@click.argument("which")
@click.option(
    "--hours", type=click.FloatRange(min=0.01, max=24 * 400), default=24.0, show_default=True, help="How far back."
)
@click.option("--points", type=click.IntRange(2, 1000), default=48, show_default=True, help="Most bars of a line.")
@json_option
def history(which: str, hours: float, points: int, as_json: bool) -> None:
    """Use, heat, memory, power, clock, price and availability over time, of WHICH as in `qubix offers show`."""
    with market() as client:
        now_ms = client.network().clock_ms
        found = client.history(
            listing_named(client, which), since_ms=max(0, now_ms - round(hours * 3_600_000)), points=points
        )
    if as_json:
        print_json(found)
        return
    lines = list(_lines(found))
    if lines:
        heads = (
            "",
            f"{shown.moment(found.since_ms)} to {shown.moment(found.until_ms)}",
            "least",
            "mean",
            "most",
            "last",
        )
        print_table(heads, lines, right=frozenset(heads[2:]))
    else:
        console().print("Nothing was read of it in this time.")
    if found.changes:
        changes = [
            [shown.moment(one.at_ms), shown.qu(one.rate_qu_per_h), str(one.availability)] for one in found.changes
        ]
        print_table(("from", "QU an hour", "availability"), changes, right=frozenset({"QU an hour"}))


def _lines(found: HistoryView) -> Iterator[list[str]]:
    for title, name, words in _GAUGES:
        told = [(point, getattr(point, name)) for point in found.points]
        gauges = [gauge for _, gauge in told if gauge is not None]
        if gauges:
            bars = spark(found, [(point, gauge.mean) for point, gauge in told if gauge is not None])
            yield [title, bars, *(words(value) for value in _summary(gauges))]
    slowed = [(point, point.throttled) for point in found.points if point.throttled is not None]
    if slowed:
        shares = [share for _, share in slowed]
        yield ["slowed", spark(found, slowed), *(f"{share:.0%}" for share in _of_shares(shares))]


def _summary(gauges: Sequence[GaugeView]) -> tuple[float, float, float, float]:
    mean = sum(one.mean for one in gauges) / len(gauges)
    return min(one.min for one in gauges), mean, max(one.max for one in gauges), gauges[-1].last


def _of_shares(shares: Sequence[float]) -> tuple[float, float, float, float]:
    return min(shares), sum(shares) / len(shares), max(shares), shares[-1]


def spark(found: HistoryView, told: Sequence[tuple[HistoryPoint, float]]) -> str:
    """A bar for each stretch of time, from the least to the most; a time without readings is left empty."""
    first_ms = found.since_ms // found.bucket_ms * found.bucket_ms
    cells = [" "] * -(-(found.until_ms - first_ms) // found.bucket_ms)
    low, high = min(value for _, value in told), max(value for _, value in told)
    for point, value in told:
        step = round((value - low) / (high - low) * (len(_BARS) - 1)) if high > low else 0
        cells[(point.start_ms - first_ms) // found.bucket_ms] = _BARS[step]
    return "".join(cells)
