# SPDX-License-Identifier: Apache-2.0
"""From a written word to a value of its field, or to an error that points at it."""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from qubix_protocol.query import units
from qubix_protocol.query.errors import QueryError, closest, listed
from qubix_protocol.query.fields import ORDERED, Field, Kind, lower, model_key, version_key
from qubix_protocol.query.nodes import Literal, Operand, quoted

TRUE: Final = frozenset({"true", "yes", "1", "on"})
FALSE: Final = frozenset({"false", "no", "0", "off"})
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_VERSION: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})*")
_RESERVED: Final = frozenset({"and", "or", "not", "in", "notin", "any", "unknown"})
_ISO: Final = {"uk": "GB", "en": "GB", "usa": "US", "eu": "region=eu"}
"""What people write for a country, and what they mean."""


@dataclass(frozen=True, slots=True)
class Word:
    """As it stands in the line; `text` is without quotes."""

    text: str
    column: int
    length: int
    quoted: bool

    @property
    def folded(self) -> str:
        """For keywords: a quoted word is none."""
        return "" if self.quoted else self.text.casefold()


def written(value: str) -> str:
    """A word that needs no quotes, or the text in quotes."""
    return value if _PLAIN.fullmatch(value) and value.casefold() not in _RESERVED else quoted(value)


def literal(field: Field, word: Word, unit: str | None = None) -> Literal:
    """`unit` for a number without one. Raises QueryError."""
    match field.kind:
        case Kind.WHOLE | Kind.REAL:
            return _number(field, word, unit)
        case Kind.VERSION:
            return _version(field, word)
        case Kind.YESNO:
            return _yes_no(field, word)
        case Kind.CHOICE:
            return _choice(field, word)
        case _:
            return _word(field, word)


def _number(field: Field, word: Word, unit: str | None) -> Literal:
    value, shown = units.quantity(word.text, word.column + int(word.quoted), field.dimension, unit)
    if field.kind is Kind.REAL:
        return Literal(float(value), shown)
    return Literal(int(value) if value.denominator == 1 else value, shown)


def _version(field: Field, word: Word) -> Literal:
    if _VERSION.fullmatch(word.text) is None:
        raise _refused(field, word, "is not a version", "Write numbers with points between them, such as 12.4")
    key = version_key(word.text)
    assert key is not None  # the pattern says so
    if field.name == "compute_cap" and key[0] >= 100:
        raise _refused(field, word, "is no compute capability", f"Write {word.text[:-2]}.{word.text[-2:-1]}")
    return Literal(key, word.text)


def _yes_no(field: Field, word: Word) -> Literal:
    folded = word.text.casefold()
    if folded in TRUE or folded in FALSE:
        return Literal(folded in TRUE, "true" if folded in TRUE else "false")
    raise _refused(field, word, "is neither true nor false", f"Write {field.name}=true, =false or =any")


def _choice(field: Field, word: Word) -> Literal:
    folded = lower(word.text)
    if folded in field.choices:
        return Literal(folded, folded)
    near = closest(word.text, field.choices)
    remedy = f"Did you mean {listed(near)}?" if near else f"It is one of {listed(field.choices)}"
    raise _refused(field, word, f"is no {field.name}", remedy)


def _word(field: Field, word: Word) -> Literal:
    if not word.text.strip() or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in word.text):
        raise _refused(field, word, "is nothing to look for", f"Write {field.name}=any for every one")
    if field.kind is Kind.ID:
        value = lower(word.text) if field.name == "listing" else word.text
        return Literal(value, written(value))
    if field.name == "country":
        return _country(field, word)
    value = model_key(word.text) if field.kind is Kind.MODEL else lower(word.text)
    return Literal(value, written(value))


def _country(field: Field, word: Word) -> Literal:
    value = lower(word.text)
    if re.fullmatch("[a-z]{2}", value) is None or value in _ISO:
        meant = _ISO.get(value)
        remedy = f"Did you mean {meant}?" if meant else "Write its two letters, such as DE"
        raise _refused(field, word, "is no country", remedy)
    return Literal(value, value.upper())


def check_ends(field: Field, low: Literal | None, high: Literal | None, word: Word) -> None:
    """Of a range. Raises QueryError."""
    if field.kind not in ORDERED:
        raise no_order(field, word)
    if low is not None and high is not None and _above(low.value, high.value):
        raise QueryError(
            word.column,
            f"the range {low.shown}..{high.shown} is empty",
            f"Write {high.shown}..{low.shown}",
            length=word.length,
        )


def _above(low: Operand, high: Operand) -> bool:
    if isinstance(low, tuple) and isinstance(high, tuple):
        return low > high
    assert isinstance(low, int | float | Fraction) and isinstance(high, int | float | Fraction)  # noqa: PT018
    return low > high


def no_order(field: Field, word: Word) -> QueryError:
    return QueryError(
        word.column, f"{field.name} has no order", f"Use {field.name}=…, !=, in or notin", length=word.length
    )


def _refused(field: Field, word: Word, problem: str, remedy: str) -> QueryError:
    return QueryError(word.column, f"{word.text!r} {problem}", remedy, length=word.length)
