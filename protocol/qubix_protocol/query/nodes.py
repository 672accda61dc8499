# SPDX-License-Identifier: Apache-2.0
"""A query as a tree. What it means is `evaluate.py`'s matter, how it is written `text()`'s.

Two trees are equal when they mean the same comparisons in the same order, wherever they stood in a line and whatever
unit was written.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

Operand = int | Fraction | float | str | bool | tuple[int, ...]
"""As the field's kind holds it: numbers in base units, words in small letters, versions without noughts at the end."""

DEPTH_MAX: Final = 32
TERMS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Literal:
    """`shown` is how it is written: parsed again for the same field it gives the same value."""

    value: Operand
    shown: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Span:
    """Characters of the line, from 1; `stop` is one behind."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Compare:
    """`op` is one of `< <= = != >= >`."""

    name: str
    op: str
    value: Literal
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Between:
    """Both ends belong to it; None: open."""

    name: str
    low: Literal | None
    high: Literal | None
    outside: bool
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class OneOf:
    name: str
    values: tuple[Literal, ...]
    outside: bool
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Unknown:
    """Whether there is no reading: the one thing that an unknown one satisfies."""

    name: str
    outside: bool
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AnyValue:
    """Holds always; it takes the place of a default."""

    name: str
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Text:
    """Free text, in small letters."""

    needle: str
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Not:
    part: "Node"
    depth: int = field(compare=False, repr=False)
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class And:
    """Two parts or more, none of them an And."""

    parts: tuple["Node", ...]
    depth: int = field(compare=False, repr=False)
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Or:
    """Two parts or more, none of them an Or."""

    parts: tuple["Node", ...]
    depth: int = field(compare=False, repr=False)
    span: Span = field(compare=False, repr=False)


Term = Compare | Between | OneOf | Unknown | AnyValue | Text
Node = Term | Not | And | Or


def depth(node: Node) -> int:
    return node.depth if isinstance(node, Not | And | Or) else 0


def conjuncts(node: Node | None) -> tuple[Node, ...]:
    """The filters that must all hold."""
    if node is None:
        return ()
    return node.parts if isinstance(node, And) else (node,)


def terms(node: Node | None) -> Iterator[Term]:
    """From left to right."""
    if isinstance(node, And | Or):
        for part in node.parts:
            yield from terms(part)
    elif isinstance(node, Not):
        yield from terms(node.part)
    elif node is not None:
        yield node


def names(node: Node | None) -> frozenset[str]:
    """The fields that a query speaks of."""
    return frozenset(term.name for term in terms(node) if not isinstance(term, Text))


def text(node: Node | None) -> str:
    """The one canonical way to write it."""
    if node is None:
        return ""
    if isinstance(node, And):
        return " ".join(_inner(part, Or) for part in node.parts)
    if isinstance(node, Or):
        return " or ".join(text(part) for part in node.parts)
    if isinstance(node, Not):
        return f"not {_inner(node.part, Or, And)}"
    return _term(node)


def _inner(node: Node, *weaker: type) -> str:
    return f"({text(node)})" if isinstance(node, weaker) else text(node)


def _term(term: Term) -> str:
    match term:
        case Compare(name, op, value):
            return f"{name}{op}{value.shown}"
        case Between(name, low, high, outside):
            ends = f"{low.shown if low else ''}..{high.shown if high else ''}"
            return f"{name}{'!=' if outside else '='}{ends}"
        case OneOf(name, values, outside):
            return f"{name} {'notin' if outside else 'in'} [{', '.join(one.shown for one in values)}]"
        case Unknown(name, outside):
            return f"{name}{'!=' if outside else '='}unknown"
        case AnyValue(name):
            return f"{name}=any"
        case Text(needle):
            return quoted(needle)


def quoted(value: str) -> str:
    """A text that may hold anything but control characters."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
