# SPDX-License-Identifier: Apache-2.0
"""Quantities as people write them: `24g`, `8GiB`, `1.5TFLOPS`, `500QU/h`, `95%`.

Each dimension has one base unit, in which listings hold it, and one unit that a number without any is in. Numbers are
exact (`Fraction`) until they are compared.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from qubix_protocol.query.errors import QueryError, closest, listed

DIGITS_MAX: Final = 32
_PLACES: Final = 12
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2}(?![0-9]))?")
_VALUE_MAX: Final = Fraction(10**18)
"""In base units: fits every column, and is more than there is of anything."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """`units` maps the spellings to their size in base units; `plain` is the one that may be left out."""

    name: str
    units: Mapping[str, Fraction]
    plain: str
    low: Fraction = field(default=Fraction(0))
    high: Fraction = field(default=_VALUE_MAX)
    shown: tuple[str, ...] = ()
    """The units that an error names, when not all."""

    def size(self, unit: str) -> Fraction | None:
        """By its exact spelling, else by its letters when only one unit is meant; None for an unknown one."""
        if unit in self.units:
            return self.units[unit]
        near = {size for name, size in self.units.items() if name.casefold() == unit.casefold()}
        return near.pop() if len(near) == 1 else None


def _scaled(suffix: str, letters: str, step: int, first: int = 1) -> dict[str, Fraction]:
    return {letter + suffix: Fraction(step**power) for power, letter in enumerate(letters, first)}


def _of(base: Fraction, units: Mapping[str, Fraction]) -> dict[str, Fraction]:
    return {name: size / base for name, size in units.items()}


_BYTES: Final = {
    "B": Fraction(1),
    **_scaled("B", "kMGTP", 1000),
    **{f"{letter}iB": Fraction(1024**power) for power, letter in enumerate("KMGTP", 1)},
    **_scaled("", "kMGT", 1000),
}
_RATE: Final = {
    **{f"{name}/s": size for name, size in _BYTES.items() if name.endswith("B")},
    **{f"{name}bit/s": size / 8 for name, size in _scaled("", "kMGT", 1000).items()},
    **{f"{name}bps": size / 8 for name, size in _scaled("", "kMGT", 1000).items()},
    **{f"{name}b/s": size / 8 for name, size in _scaled("", "kMGT", 1000).items()},
}
_PRICES: Final = {
    f"{letter}QU{per}": Fraction(1000**power) * times
    for power, letter in enumerate(("", "k", "M", "G"))
    for per, times in (("/h", 1), ("", 1), ("/s", 3600), ("/min", 60), ("/d", Fraction(1, 24)))
}
_FLOPS: Final = {
    name + suffix: size for name, size in _scaled("", "MGTP", 1000, 2).items() for suffix in ("FLOPS", "FLOP/s")
}
_SECONDS: Final = {
    **{name: Fraction(1) for name in ("s", "sec", "second", "seconds")},
    **{name: Fraction(60) for name in ("min", "minute", "minutes")},
    **{name: Fraction(3600) for name in ("h", "hour", "hours")},
    **{name: Fraction(86400) for name in ("d", "day", "days")},
}

COUNT: Final = Dimension("a number", {"": Fraction(1), **_scaled("", "kM", 1000)}, "", shown=("k", "M"))
RATIO: Final = Dimension("a number", {"": Fraction(1)}, "")
BYTES: Final = Dimension("a size", _BYTES, "GB", shown=("B", "kB", "MB", "GB", "TB", "MiB", "GiB", "TiB"))
BANDWIDTH: Final = Dimension("a bandwidth", _RATE, "Mbit/s", shown=("kbit/s", "Mbit/s", "Gbit/s", "MB/s", "GB/s"))
PRICE: Final = Dimension(
    "a price",
    {**_PRICES, **_scaled("", "kMG", 1000)},
    "QU/h",
    shown=("QU/h", "kQU/h", "MQU/h", "QU/min", "QU/s"),
)
FLOPS: Final = Dimension(
    "a rate of computing",
    _of(Fraction(10**9), {**_FLOPS, **_scaled("", "MGTP", 1000, 2)}),
    "GFLOPS",
    shown=("MFLOPS", "GFLOPS", "TFLOPS", "PFLOPS"),
)
PERCENT: Final = Dimension("a percentage", {"%": Fraction(1)}, "%", high=Fraction(100))
SHARE: Final = Dimension(
    "a share from 0 to 1", {"": Fraction(1), "%": Fraction(1, 100)}, "", high=Fraction(1), shown=("%",)
)
CELSIUS: Final = Dimension(
    "a temperature",
    {"°C": Fraction(1), "C": Fraction(1), "℃": Fraction(1)},
    "°C",
    low=Fraction(-300),
    shown=("°C",),
)
WATTS: Final = Dimension("a power", {"mW": Fraction(1), "W": Fraction(1000), "kW": Fraction(10**6)}, "W")
SECONDS: Final = Dimension("a time", _SECONDS, "s", shown=("s", "min", "h", "d"))
MEGAHERTZ: Final = Dimension("a clock rate", {"MHz": Fraction(1), "GHz": Fraction(1000)}, "MHz")

DIMENSIONS: Final = (
    COUNT, RATIO, BYTES, BANDWIDTH, PRICE, FLOPS, PERCENT, SHARE, CELSIUS, WATTS, SECONDS, MEGAHERTZ,
)  # fmt: skip
UNITS: Final = frozenset(unit for one in DIMENSIONS for unit in one.units if unit)
"""Every spelling of every unit."""


def shown(value: Fraction, dimension: Dimension) -> str:
    """A value in base units, exactly, in the dimension's plain unit; in its base unit where that takes no end."""
    whole = value / dimension.units[dimension.plain]
    scaled = whole * 10**_PLACES
    if scaled.denominator == 1:
        digits = f"{abs(scaled.numerator):0{_PLACES + 1}d}"
        return (
            f"{'-' if scaled < 0 else ''}{digits[:-_PLACES]}.{digits[-_PLACES:]}".rstrip("0").rstrip(".")
            + dimension.plain
        )
    return f"{float(whole)!r}{dimension.plain}"


def split(text: str) -> tuple[str, str] | None:
    """Number and unit; None when it does not begin with a number."""
    found = _NUMBER.match(text)
    return (found[0], text[found.end() :].strip()) if found else None


def quantity(text: str, column: int, dimension: Dimension, plain: str | None = None) -> tuple[Fraction, str]:
    """The value in base units, and the text with its unit. `plain` is the unit where none is written. Raises
    QueryError."""
    parts = split(text)
    if parts is None:
        raise _no_number(text, column, dimension)
    number, written = parts
    at = column + len(text) - len(written)
    unit = written or (dimension.plain if plain is None else plain)
    size = dimension.size(unit)
    if size is None:
        raise _no_unit(written, at, dimension)
    if len(number) > DIGITS_MAX:
        raise QueryError(column, f"{number} has too many digits", "Write fewer digits", length=len(number))
    value = Fraction(number.replace("_", "")) * size
    if not dimension.low <= value <= dimension.high:
        raise _out_of_range(number, column, dimension)
    return value, number + unit


def _no_number(text: str, column: int, dimension: Dimension) -> QueryError:
    units = dimension.shown or tuple(unit for unit in dimension.units if unit)
    remedy = f"Write {dimension.name}, such as 8{dimension.plain}"
    return QueryError(
        column,
        f"{text!r} is not {dimension.name}",
        f"{remedy} (units: {listed(units)})" if units else remedy,
        length=len(text),
    )


def _no_unit(unit: str, column: int, dimension: Dimension) -> QueryError:
    if not any(dimension.units):
        remedy = "Write the number alone"
    else:
        units = dimension.shown or tuple(one for one in dimension.units if one)
        known = dimension.shown or tuple(dimension.units)
        near = [one for one in known if one.casefold() == unit.casefold()]
        near += [one for one in known if one.replace("bit", "b").casefold() == unit.casefold()]
        near = near or (closest(unit, known) if len(unit) > 2 else [])
        remedy = f"Did you mean {listed(near)}?" if near else f"Units of {dimension.name}: {listed(units)}"
    return QueryError(column, f"{unit!r} is no unit of {dimension.name}", remedy, length=len(unit))


def _out_of_range(number: str, column: int, dimension: Dimension) -> QueryError:
    if dimension is SHARE:
        return QueryError(
            column, f"{number} is not a share from 0 to 1", f"Write {number}%, or 0.98 for 98 %", length=len(number)
        )
    if dimension is PERCENT:
        return QueryError(column, f"{number} is not from 0 to 100 %", "Write a percentage", length=len(number))
    end = f"of {dimension.low} or more" if number.startswith("-") else "that is smaller"
    return QueryError(column, f"{number} is out of range", f"Write {dimension.name} {end}", length=len(number))
