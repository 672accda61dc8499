# SPDX-License-Identifier: Apache-2.0
"""Checks what the grammar found and makes nodes of it. Every error names its column."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from qubix_protocol.query import units, values
from qubix_protocol.query.errors import QueryError, closest, listed
from qubix_protocol.query.fields import NAMES, ORDERED, Field, Kind, lower
from qubix_protocol.query.nodes import (
    DEPTH_MAX,
    TERMS_MAX,
    And,
    AnyValue,
    Between,
    Compare,
    Literal,
    Node,
    Not,
    OneOf,
    Or,
    Span,
    Term,
    Text,
    Unknown,
    depth,
    terms,
)
from qubix_protocol.query.values import Word, literal

_SIGNS: Final = ("<", "<=", "=", "==", "!=", ">=", ">")
_SEARCH: Final = 'Put it in quotes to look for it as text, such as "{}"'


def unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


def field_of(word: Word) -> Field:
    """By any of its names, letters large or small. Raises QueryError."""
    found = NAMES.get(word.text.casefold().replace("-", "_"))
    if found is not None:
        return found
    near = list(dict.fromkeys(NAMES[name].name for name in closest(word.text, NAMES)))
    remedy = (
        f"Did you mean {listed(near)}?"
        if near
        else f"Fields are {listed(sorted({f.name for f in NAMES.values()}), 'and')}"
    )
    raise QueryError(word.column, f"there is no field {word.text!r}", remedy, length=word.length)


def compare(name: Word, op: Word, value: Word) -> Term:
    field, sign = field_of(name), _sign(op)
    span = _span(name, value)
    if op.folded not in _SIGNS:
        raise QueryError(
            value.column,
            f"{op.text!r} needs a list or a range",
            f"Write {field.name} {op.text} [{value.text}], or {field.name}={value.text}",
            length=value.length,
        )
    if value.folded in ("any", "unknown"):
        return _special(field, op, sign, value, span)
    if sign not in ("=", "!=") and field.kind not in ORDERED:
        raise values.no_order(field, op)
    return Compare(field.name, sign, literal(field, value), span)


def _special(field: Field, op: Word, sign: str, value: Word, span: Span) -> Term:
    if value.folded == "any" and sign == "=":
        return AnyValue(field.name, span)
    if value.folded == "unknown" and sign in ("=", "!="):
        return Unknown(field.name, sign == "!=", span)
    uses = f"{field.name}=any" if value.folded == "any" else f"{field.name}=unknown or {field.name}!=unknown"
    raise QueryError(op.column, f"{op.text!r} does not go with {value.text!r}", f"Write {uses}", length=op.length)


def between(name: Word, op: Word, low: Word | None, high: Word | None) -> Term:
    field, sign = field_of(name), _sign(op)
    first, last = low or high, high or low
    assert first is not None and last is not None  # noqa: PT018  the grammar has no range without an end
    if sign not in ("=", "!="):
        raise QueryError(
            op.column,
            f"{op.text!r} does not go with a range",
            f"Write {field.name}=… or {field.name}!=…",
            length=op.length,
        )
    whole = Word(f"{first.text}..{last.text}", first.column, last.column + last.length - first.column, False)
    for end in (first, last):
        if end.folded in ("any", "unknown"):
            raise QueryError(
                end.column, f"{end.text!r} is no end of a range", "Leave the open end out: 8..", length=end.length
            )
    if field.kind not in ORDERED:
        raise values.no_order(field, whole)
    top = literal(field, high) if high is not None else None
    bottom = literal(field, low, _unit_of(field, high)) if low is not None else None
    values.check_ends(field, bottom, top, whole)
    return Between(field.name, bottom, top, sign == "!=", _span(name, last))


def _unit_of(field: Field, high: Word | None) -> str | None:
    """`8..24GiB`: the unit stands behind the second number and belongs to both."""
    if high is None or field.kind not in (Kind.WHOLE, Kind.REAL):
        return None
    parts = units.split(high.text)
    return parts[1] if parts is not None and parts[1] else None


def one_of(name: Word, op: Word, members: Sequence[Word]) -> Term:
    field, sign = field_of(name), _sign(op)
    if sign not in ("=", "!="):
        raise QueryError(
            op.column, f"{op.text!r} does not go with a list", f"Write {field.name} in […]", length=op.length
        )
    if not members:
        raise QueryError(op.column, "the list is empty", f"Write {field.name}=any for every one", length=op.length)
    for word in members:
        if word.folded in ("any", "unknown"):
            raise QueryError(
                word.column,
                f"{word.text!r} does not go into a list",
                f"Write {field.name}={word.folded} by itself, or quote it as a word",
                length=word.length,
            )
    found: list[Literal] = []
    for word in members:
        one = literal(field, word)
        if one not in found:
            found.append(one)
    return OneOf(field.name, tuple(found), sign == "!=", _span(name, members[-1]))


def free(word: Word) -> Term:
    """A word by itself is looked for as text; but a field's name is one that lacks the rest."""
    field = None if word.quoted else NAMES.get(word.text.casefold().replace("-", "_"))
    span = _span(word, word)
    if field is not None and field.kind is Kind.YESNO:
        return Compare(field.name, "=", Literal(True, "true"), span)
    if field is not None:
        raise QueryError(
            word.column,
            f"{word.text!r} is a field and needs an operator and a value",
            f"Write {field.name}=…, or {_SEARCH.format(word.text)[0].lower()}{_SEARCH.format(word.text)[1:]}",
            length=word.length,
        )
    if not word.quoted:
        _check_bare(word)
    if not word.text.strip() or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in word.text):
        raise QueryError(
            word.column, "there is nothing to look for", "Write a word, or leave it out", length=word.length
        )
    return Text(lower(word.text), span)


_LOGIC: Final = {"&&": "and", "&": "and", "+": "and", "||": "or", "|": "or"}


def _check_bare(word: Word) -> None:
    """What looks like a filter in another language is not text to look for."""
    if not any(letter.isalnum() for letter in word.text):
        remedy = f"Write {_LOGIC[word.text]}" if word.text in _LOGIC else "Put it in quotes to look for it as text"
        raise QueryError(word.column, f"{word.text!r} means nothing here", remedy, length=word.length)
    head = re.match(r"([A-Za-z_]+)[:~]", word.text)
    if head is not None and head[1].casefold() in NAMES:
        raise QueryError(
            word.column + head.end() - 1,
            f"{word.text[head.end() - 1]!r} is no operator",
            f"Write {head[1]}={word.text[head.end() :]}",
        )


def joined(kind: type[And] | type[Or], parts: Sequence[Node]) -> Node:
    """One of two parts and more, parts of its own kind taken into it. Raises QueryError when it gets too deep."""
    flat: list[Node] = []
    for part in parts:
        if isinstance(part, And | Or) and isinstance(part, kind):
            flat.extend(part.parts)
        else:
            flat.append(part)
    deepest = 1 + max(depth(part) for part in flat)
    _check_depth(deepest, flat[0].span.start)
    return kind(tuple(flat), deepest, Span(flat[0].span.start, flat[-1].span.stop))


def negated(part: Node, sign: Word) -> Node:
    deepest = 1 + depth(part)
    _check_depth(deepest, sign.column)
    return Not(part, deepest, Span(sign.column, part.span.stop))


def check_size(node: Node | None) -> None:
    for number, term in enumerate(terms(node)):
        if number == TERMS_MAX:
            raise QueryError(
                term.span.start, f"there are more than {TERMS_MAX} filters", "Ask for less at once: lists count once"
            )


def _check_depth(deepest: int, column: int) -> None:
    if deepest > DEPTH_MAX:
        raise QueryError(column, f"the query is nested more than {DEPTH_MAX} deep", "Write it flatter")


def _sign(op: Word) -> str:
    folded = op.text.casefold()
    if folded in ("=", "==", "in"):
        return "="
    return "!=" if folded.startswith("not") else folded


def _span(first: Word, last: Word) -> Span:
    return Span(first.column, last.column + last.length)


# What the grammar did not expect -------------------------------------------------------------------------------------


def unexpected(line: str, at: int, what: str, expected: frozenset[str]) -> QueryError:
    """`at` counts from 0; `what` is empty at the line's end; `expected` are names of the grammar's terminals."""
    if what and what in "\"'":
        return QueryError(
            at + 1, f"the quote {what} is not closed", f"Add {what} where the text ends", length=len(line) - at
        )
    found = repr(what) if what else "the end"
    if {"IN", "OP"} & expected:
        return QueryError(at + 1, f"{found} is no operator", "Use one of < <= = != >= > in notin", length=len(what))
    if line[max(0, at - 1) : at + 1] in ("=>", "=<"):
        return QueryError(at, f"'={what}' is no operator", f"Write {what}=", length=2)
    if {"WORD", "LSQB"} & expected:
        return _no_value(at, found, expected)
    if "RSQB" in expected:
        return QueryError(
            at + 1, f"the list is not closed before {found}", "Write , between its values, and ] behind them"
        )
    return _no_filter(at, what, found, "TEXT" in expected, "RPAR" in expected)


def _no_value(at: int, found: str, expected: frozenset[str]) -> QueryError:
    if "WORD" in expected:
        return QueryError(at + 1, f"a value is missing before {found}", 'Write a value here, such as 8 or "RTX 4090"')
    return QueryError(at + 1, f"a list or range is missing before {found}", "Write in [EU, US], or in 8..24")


def _no_filter(at: int, what: str, found: str, wanted: bool, open_: bool) -> QueryError:
    if not what and open_:
        return QueryError(at + 1, "a parenthesis is not closed", "Add )")
    if what == ")" and not open_ and not wanted:
        return QueryError(at + 1, "this parenthesis was never opened", "Take it out, or add ( before")
    if what == "..":
        return QueryError(at + 1, "a range needs a field", "Write FIELD=8..24", length=2)
    if what == "!":
        return QueryError(at + 1, "'!' is no operator by itself", "Write FIELD!=VALUE, or not before a filter")
    if what == ",":
        return QueryError(at + 1, "filters have no commas between them", "Write a blank, or and, between them")
    if wanted:
        return QueryError(
            at + 1, f"a filter is missing before {found}", "Write FIELD OP VALUE, or a word", length=len(what)
        )
    return QueryError(
        at + 1, f"{found} is not expected here", "Write FIELD OP VALUE, or put text in quotes", length=len(what)
    )
