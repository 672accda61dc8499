# SPDX-License-Identifier: Apache-2.0
"""By what results are sorted: `score_per_qu-, price, temperature nulls first`."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qubix_protocol.api import ListingView
from qubix_protocol.query import build
from qubix_protocol.query.errors import QueryError
from qubix_protocol.query.evaluate import reading
from qubix_protocol.query.fields import FIELDS, SORTABLE, Kind
from qubix_protocol.query.values import Word

KEYS_MAX: Final = 6
LENGTH_MAX: Final = 400
_KEY: Final = re.compile(
    r"\s*(?P<before>[+-]?)(?P<name>[^\s,+-][^\s,+]*?)(?P<after>[+-]?)(?:\s+(?P<word>asc|desc))?"
    r"(?:\s+nulls\s+(?P<nulls>first|last))?\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class SortKey:
    """Unknown readings come last, whichever the direction, unless `nulls_first`."""

    name: str
    descending: bool = False
    nulls_first: bool = False

    def text(self) -> str:
        return f"{self.name}{'-' if self.descending else ''}{' nulls first' if self.nulls_first else ''}"


def parse_order(line: str) -> tuple[SortKey, ...]:
    """Empty for an empty line. Results are always sorted by listing id in the end, so that the order is one. Raises
    QueryError."""
    if len(line) > LENGTH_MAX:
        raise QueryError(LENGTH_MAX + 1, "the order is too long", "Sort by fewer fields")
    keys: list[SortKey] = []
    at = 0
    for part in line.split(",") if line.strip() else ():
        key = _key(part, at)
        if key.name in {one.name for one in keys}:
            raise QueryError(_column(part, at), f"it is sorted by {key.name} already", "Name each field once")
        keys.append(key)
        at += len(part) + 1
    if len(keys) > KEYS_MAX:
        raise QueryError(1, f"the order has more than {KEYS_MAX} fields", "Sort by fewer fields")
    return tuple(keys)


def order_text(keys: Iterable[SortKey]) -> str:
    return ", ".join(key.text() for key in keys)


def _key(part: str, at: int) -> SortKey:
    found = _KEY.fullmatch(part)
    if found is None:
        raise QueryError(
            _column(part, at),
            f"{part.strip()!r} is no field to sort by" if part.strip() else "a field is missing",
            "Write FIELD, or FIELD- for the largest first, with commas between; `nulls first` may stand behind",
            length=len(part.strip()),
        )
    word = Word(found["name"], at + found.start("name") + 1, len(found["name"]), False)
    field = build.field_of(word)
    if field.kind not in SORTABLE:
        raise QueryError(word.column, f"{field.name} has no order", "Sort by another field", length=word.length)
    signs = [sign for sign in (found["before"], found["after"], (found["word"] or "").lower()) if sign]
    if len(signs) > 1:
        raise QueryError(word.column, f"{field.name} has two directions", f"Write {field.name} or {field.name}-")
    return SortKey(field.name, signs in (["-"], ["desc"]), (found["nulls"] or "").lower() == "first")


def _column(part: str, at: int) -> int:
    return at + len(part) - len(part.lstrip()) + 1


def ordered(views: Iterable[ListingView], keys: Sequence[SortKey]) -> list[ListingView]:
    """Stable: equal ones by listing id."""
    found = sorted(views, key=lambda one: one.listing_id)
    for key in reversed(keys):
        found.sort(key=_position(key), reverse=key.descending)
    return found


def _position(key: SortKey) -> Callable[[ListingView], tuple[bool, Any]]:
    """Reversed as a whole when it descends; Python's sort keeps the order of equal ones then, too."""
    field = FIELDS[key.name]
    read = reading(field)
    last = key.nulls_first is key.descending

    def position(one: ListingView) -> tuple[bool, Any]:
        value: Any = read(one)
        if value is not None and field.kind is Kind.CHOICE:
            value = field.choices.index(value)
        return ((value is None) is last, value) if value is not None else (last, 0)

    return position
