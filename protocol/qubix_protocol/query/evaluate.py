# SPDX-License-Identifier: Apache-2.0
"""What a query means, in plain Python: the truth that the database's answer is held against.

Logic of three values (Kleene's, SQL's): a comparison with an unknown reading is unknown, so is its negation, and only
what is true is found. `and` is false as soon as one part is, `or` true.
"""

import operator
from collections.abc import Callable
from typing import Any, Final

from qubix_protocol.api import ListingView
from qubix_protocol.query.fields import FIELDS, Field, Kind, Value, lower, model_key, search_text
from qubix_protocol.query.nodes import And, AnyValue, Between, Compare, Node, Not, OneOf, Operand, Or, Text, Unknown

Truth = bool | None
Test = Callable[[ListingView], Truth]

_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}


def compiled(node: Node | None) -> Test:
    """One function for the whole tree; its depth is bounded by the tree's."""
    match node:
        case None:
            return lambda one: True
        case And(parts):
            return _all([compiled(part) for part in parts])
        case Or(parts):
            return _any([compiled(part) for part in parts])
        case Not(part):
            return _not(compiled(part))
        case Text(needle):
            return lambda one: needle in search_text(one)
        case AnyValue():
            return lambda one: True
        case Unknown(name, outside):
            return _unknown(FIELDS[name], outside)
        case Compare(name, op, value):
            return _compare(FIELDS[name], op, value.value)
        case Between(name, low, high, outside):
            return _between(FIELDS[name], low.value if low else None, high.value if high else None, outside)
        case OneOf(name, values, outside):
            return _one_of(FIELDS[name], frozenset(one.value for one in values), outside)


def reading(field: Field) -> Callable[[ListingView], Value | None]:
    """As a field's values are compared and sorted."""
    if field.kind is Kind.MODEL:
        return lambda one: model_key(one.model)
    return field.read


def _all(tests: list[Test]) -> Test:
    def test(one: ListingView) -> Truth:
        found: Truth = True
        for part in tests:
            truth = part(one)
            if truth is False:
                return False
            if truth is None:
                found = None
        return found

    return test


def _any(tests: list[Test]) -> Test:
    def test(one: ListingView) -> Truth:
        found: Truth = False
        for part in tests:
            truth = part(one)
            if truth:
                return True
            if truth is None:
                found = None
        return found

    return test


def _not(inner: Test) -> Test:
    def test(one: ListingView) -> Truth:
        truth = inner(one)
        return None if truth is None else not truth

    return test


def _unknown(field: Field, outside: bool) -> Test:
    if field.kind is Kind.SET:
        return lambda one: outside
    read = reading(field)
    return lambda one: (read(one) is None) is not outside


def _compare(field: Field, op: str, value: Operand) -> Test:
    if field.kind is Kind.SET:
        return _one_of(field, frozenset([value]), op == "!=")
    read, holds = reading(field), _OPERATORS[op]

    def test(one: ListingView) -> Truth:
        known = read(one)
        return None if known is None else holds(known, value)

    return test


def _between(field: Field, low: Any, high: Any, outside: bool) -> Test:
    read = reading(field)

    def test(one: ListingView) -> Truth:
        known: Any = read(one)
        if known is None:
            return None
        return ((low is None or known >= low) and (high is None or known <= high)) is not outside

    return test


def _one_of(field: Field, values: frozenset[Operand], outside: bool) -> Test:
    if field.kind is Kind.SET:
        return lambda one: any(lower(word) in values for word in one.backends) is not outside
    read = reading(field)

    def test(one: ListingView) -> Truth:
        known = read(one)
        return None if known is None else (known in values) is not outside

    return test
