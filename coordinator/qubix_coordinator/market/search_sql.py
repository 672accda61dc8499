# SPDX-License-Identifier: Apache-2.0
"""Queries and orders as SQL over `listing_search`. Values are parameters, never part of the text.

SQL's NULL and the query line's unknown follow the same logic, so each node has one twin. What a query means is
`qubix_protocol.query.evaluate`; a property test on PostgreSQL holds the two together.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from qubix_coordinator.market import rules, words
from qubix_coordinator.market.words import Looked
from qubix_protocol.query import FIELDS, SortKey
from qubix_protocol.query.fields import Field, Kind
from qubix_protocol.query.nodes import And, AnyValue, Between, Compare, Node, Not, OneOf, Operand, Or, Text, Unknown
from qubix_protocol.query.units import shown

CursorValue = int | float | str | bool | None

_TYPES: Final = {
    Kind.WHOLE: "bigint",
    Kind.REAL: "double precision",
    Kind.YESNO: "boolean",
}
_ALWAYS_KNOWN: Final = frozenset(
    [
        *("gpu_name", "num_gpus", "backend", "kind", "browser", "isolation", "country_seen", "price"),
        *(
            "jobs_accepted",
            "jobs_rejected",
            "rentable",
            "verified",
            "stale",
            "availability",
            "provider",
            "device",
            "listing",
        ),
    ]
)


def type_of(one: Field) -> str:
    """Of the parameters that are compared with the field's column."""
    if one.name == "listing":
        return "uuid"
    return _TYPES.get(one.kind, "text")


@dataclass(slots=True)
class Sql:
    """Collects parameters while a statement is written. Every text of its conditions must have been looked up."""

    now_ms: int
    looked: Looked
    arguments: list[object] = field(default_factory=list)

    def put(self, value: object, kind: str) -> str:
        """The parameter as it stands in the text."""
        self.arguments.append(value)
        return f"${len(self.arguments)}::{kind}"

    # Fields ----------------------------------------------------------------------------------------------------------

    def column(self, name: str) -> str:
        """As values of the field are compared."""
        match name:
            case "rentable":
                return "(availability = 'available')"
            case "stale":
                bound = self.put(self.now_ms - rules.UNMARKED_MS_MAX, "bigint")
                return f"coalesce(metrics_ms < {bound}, false)"
            case "listing":
                return "id::text"
            case _:
                return name

    def key(self, name: str) -> str:
        """As values of the field are sorted."""
        one = FIELDS[name]
        if one.kind is Kind.CHOICE:
            return f"array_position({self.put(list(one.choices), 'text[]')}, {name})"
        return self.column(name)

    # Nodes -----------------------------------------------------------------------------------------------------------

    def condition(self, node: Node | None) -> str:
        match node:
            case None | AnyValue():
                return "TRUE"
            case And(parts):
                return "(" + " AND ".join(self.condition(part) for part in parts) + ")"
            case Or(parts):
                return "(" + " OR ".join(self.condition(part) for part in parts) + ")"
            case Not(part):
                return f"(NOT {self.condition(part)})"
            case Text(needle):
                return self._text(needle)
            case Unknown(name, outside):
                return self._unknown(FIELDS[name], outside)
            case Compare(name, op, value):
                return self._compare(FIELDS[name], op, value.value)
            case Between(name, low, high, outside):
                ends = [(">=", low), ("<=", high)]
                both = [self._compare(FIELDS[name], op, end.value) for op, end in ends if end is not None]
                return f"({'NOT ' if outside else ''}({' AND '.join(both)}))"
            case OneOf(name, values, outside):
                return self._one_of(FIELDS[name], [one.value for one in values], outside)

    def _text(self, needle: str) -> str:
        found = self.looked[needle]
        parts = [
            self._among("words_no", found.devices, needle, peer=False),
            self._among("peer_no", found.peers, needle, peer=True),
        ]
        return f"({' OR '.join(part for part in parts if part) or 'FALSE'})"

    def _among(self, column: str, numbers: Sequence[int] | None, needle: str, *, peer: bool) -> str:
        """Empty for nobody. Too many to list are asked for once more, where the planner sees how many they are."""
        if numbers is None:
            held = words.holding(needle, self.put)
            whose = "peer" if peer else "NOT peer"
            return f"{column} IN (SELECT no FROM listing_words WHERE {whose} AND {held})"  # noqa: S608
        return f"{column} = ANY ({self.put(list(numbers), 'integer[]')})" if numbers else ""

    def _unknown(self, one: Field, outside: bool) -> str:
        if one.name in _ALWAYS_KNOWN:
            return "TRUE" if outside else "FALSE"
        return f"({self.column(one.name)} IS {'NOT ' if outside else ''}NULL)"

    def _compare(self, one: Field, op: str, value: Operand) -> str:
        if one.kind is Kind.SET:
            return self._one_of(one, [value], op == "!=")
        if isinstance(value, Fraction):
            whole = _whole(op, value)
            if whole is None:
                return self._certain(one, op == "!=")
            op, value = whole
        column, sign = self.column(one.name), "<>" if op == "!=" else op
        kind = "text" if one.name == "listing" else type_of(one)
        return f"({column} {sign} {self.put(operand(value), kind)})"

    def _one_of(self, one: Field, values: Sequence[Operand], outside: bool) -> str:
        known = [operand(value) for value in values if not isinstance(value, Fraction)]
        if one.kind is Kind.SET:
            return f"({'NOT ' if outside else ''}backend && {self.put(known, 'text[]')})"
        if not known:
            return self._certain(one, outside)
        kind = "text" if one.name == "listing" else type_of(one)
        members = self.put(known, f"{kind}[]")
        return f"({self.column(one.name)} {'<> ALL' if outside else '= ANY'} ({members}))"

    def _certain(self, one: Field, outcome: bool) -> str:
        """Always so, or never, where there is a reading; unknown where there is none."""
        column = self.column(one.name)
        return f"({column} {'=' if outcome else '<>'} {column})"

    def bounds(self, node: Compare | Between) -> tuple[str, str]:
        """What lies below a filter on an ordered field, and what above it."""
        column, one = self.column(node.name), FIELDS[node.name]
        if isinstance(node, Between):
            low, high = (None, None) if node.outside else (node.low, node.high)
        else:
            low = node.value if node.op in (">", ">=", "=") else None
            high = node.value if node.op in ("<", "<=", "=") else None
        below = f"{column} <= {self._bound(one, low.value, math.floor)}" if low is not None else "FALSE"
        above = f"{column} >= {self._bound(one, high.value, math.ceil)}" if high is not None else "FALSE"
        return below, above

    def _bound(self, one: Field, value: Operand, rounded: Callable[[Fraction], int]) -> str:
        return self.put(rounded(value) if isinstance(value, Fraction) else operand(value), type_of(one))

    # Order -----------------------------------------------------------------------------------------------------------

    def order(self, keys: Sequence[SortKey]) -> str:
        parts = []
        for key in keys:
            way = " DESC" if key.descending else ""
            nulls = "" if key.name in _ALWAYS_KNOWN else f" NULLS {'FIRST' if key.nulls_first else 'LAST'}"
            parts.append(f"{self.key(key.name)}{way}{nulls}")
        return ", ".join([*parts, "id"])

    def after(
        self, keys: Sequence[SortKey], values: Sequence[CursorValue], last_id: str, *, known: bool = False
    ) -> str:
        """What stands behind a row with these values. Where an index gives the order, the first bound lets it begin
        there. `known`: rows whose first key is unknown are not asked for."""
        if not keys:
            return f"(id > {self.put(last_id, 'uuid')})"
        key, value = keys[0], values[0]
        rest = self.after(keys[1:], values[1:], last_id)
        column, nullable = self.key(key.name), key.name not in _ALWAYS_KNOWN
        if value is None:
            behind = f"{column} IS NOT NULL OR " if key.nulls_first else ""
            return f"({behind}({column} IS NULL AND {rest}))"
        bound = self.put(value, _key_type(key))
        sign = "<" if key.descending else ">"
        if nullable and not key.nulls_first and not known:
            return f"({column} {sign} {bound} OR {column} IS NULL OR ({column} = {bound} AND {rest}))"
        return f"({column} {sign}= {bound} AND ({column} {sign} {bound} OR {rest}))"


def _key_type(key: SortKey) -> str:
    one = FIELDS[key.name]
    if one.kind is Kind.CHOICE:
        return "integer"
    return "text" if one.name == "listing" else type_of(one)


def key_accepts(key: SortKey, value: CursorValue) -> bool:
    """Whether a cursor may hold this value for the key."""
    if value is None:
        return key.name not in _ALWAYS_KNOWN
    match FIELDS[key.name].kind:
        case Kind.WHOLE | Kind.CHOICE:
            return type(value) is int and abs(value) < 2**31 if _key_type(key) == "integer" else type(value) is int
        case Kind.REAL:
            return isinstance(value, float | int) and not isinstance(value, bool)
        case Kind.YESNO:
            return isinstance(value, bool)
        case _:
            return isinstance(value, str) and "\0" not in value


def operand(value: Operand) -> object:
    """A version as the database sorts it: before each number a letter for how many digits it has."""
    if isinstance(value, tuple):
        return "".join(chr(96 + len(str(part))) + str(part) for part in value)
    return value


def _whole(op: str, value: Fraction) -> tuple[str, int] | None:
    """The same comparison of a whole number with a whole number; None: there is no such number at all."""
    match op:
        case "<" | ">=":
            return op, math.ceil(value)
        case "<=" | ">":
            return op, math.floor(value)
        case _:
            return None


def nearest_text(node: Compare | Between, low: object, high: object) -> str:
    """The filter that finds the nearest value below or above what was asked, such as `price<=140QU/h`; empty for none.
    `low` and `high` are as the database holds them."""
    one = FIELDS[node.name]
    down, up = (_shown(one, value) if value is not None else "" for value in (low, high))
    if isinstance(node, Between):
        first, last = (end.shown if end is not None else "" for end in (node.low, node.high))
        return f"{node.name}={down or first}..{up or last}" if down or up else ""
    if node.op == "=":
        return " or ".join(f"{node.name}={value}" for value in (down, up) if value)
    return f"{node.name}>={down}" if down else f"{node.name}<={up}" if up else ""


def _shown(one: Field, value: object) -> str:
    if one.kind is Kind.VERSION:
        return ".".join(re.findall("[a-z]([0-9]+)", str(value)))
    assert isinstance(value, int | float)
    return shown(Fraction(value), one.dimension)
