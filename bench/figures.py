# SPDX-License-Identifier: Apache-2.0
"""A figure is a median beside its limit, both measured in the same run: machines are noisy, ratios travel."""

import statistics
import time
from collections.abc import Callable, Sequence

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """`limit` is what the same machine can do at best (or the aim itself, for sizes and latencies)."""

    name: str
    value: float
    unit: str
    beside: str = ""
    limit: float | None = None
    aim: str = ""
    met: bool | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.value / self.limit if self.limit else None


def beside(
    name: str,
    value: float,
    unit: str,
    *,
    limit: float,
    limit_name: str,
    at_most: float | None = None,
    at_least: float | None = None,
    note: str = "",
) -> Figure:
    """A figure judged by its ratio to a limit measured in the same run."""
    ratio = value / limit
    aim = f"≤ {at_most:g}×" if at_most is not None else f"≥ {at_least:g}×" if at_least is not None else ""
    met = ratio <= at_most if at_most is not None else ratio >= at_least if at_least is not None else None
    return Figure(name=name, value=value, unit=unit, beside=limit_name, limit=limit, aim=aim, met=met, note=note)


def under(name: str, value: float, unit: str, *, aim: float, note: str = "") -> Figure:
    """A figure judged by an absolute aim."""
    return Figure(name=name, value=value, unit=unit, aim=f"≤ {aim:g} {unit}", met=value <= aim, note=note)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median_s(work: Callable[[], object], *, repeats: int) -> float:
    """Median wall time of a call, after one call to warm up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def side_by_side(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], limit_name: str, *, repeats: int = 5
) -> Figure:
    """Medians of turns, after one of each to warm up: other work on the machine slows both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for work, taken in zip((ours, theirs), times, strict=True):
            began = time.perf_counter()
            work()
            if turn:
                taken.append((time.perf_counter() - began) * 1000)
    return beside(name, statistics.median(times[0]), "ms", limit=statistics.median(times[1]), limit_name=limit_name)
