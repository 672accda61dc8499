# SPDX-License-Identifier: Apache-2.0
"""The grammar, and what each of its rules builds. The parser is LALR: its work grows with the line's length alone, and
it keeps its own stack, so no line is too deep for it. Trees are bounded as they are built.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

from qubix_protocol.query import build
from qubix_protocol.query.errors import QueryError
from qubix_protocol.query.nodes import And, Node, Or, Term
from qubix_protocol.query.units import UNITS
from qubix_protocol.query.values import Word

LENGTH_MAX: Final = 2_000

_END: Final = r"""(?=[\s()\[\],"'<>=!]|\.\.|$)"""
"""Behind a word."""
_CHARACTER: Final = r"""(?:(?!\.\.)[^\s()\[\],"'<>=!])"""
_UNIT: Final = "|".join(sorted((one.replace("/", r"\/") for one in UNITS), key=len, reverse=True))

_FIELD: Final = rf"""{_CHARACTER}+(?=\s*(?:[<>=]|!=)|\s+(?:not\s+in|notin|in){_END})"""
"""A word with an operator behind it."""

_GRAMMAR: Final = rf"""
start: either?

?either: both (OR both)*
?both: one (AND? one)*
?one: NOT one | "(" either ")" | term

?term: FIELD OP range          -> between
     | FIELD (OP | IN | NOTIN) list  -> one_of
     | FIELD (IN | NOTIN) range -> between
     | FIELD (OP | IN | NOTIN) value -> compare
     | text                    -> free

range: value DOTS value -> closed
     | value OPEN       -> above
     | DOTS value       -> below
list: "[" (value ("," value)*)? ","? "]"
value: QUANTITY | WORD | QUOTED
text: TEXT | QUOTED

OP: "<=" | ">=" | "==" | "!=" | "<" | ">" | "="
OPEN.2: /\.\.(?=\s*(?:$|[)\],])|\s+(?:["'(]|(?:and|or|not){_END}|{_FIELD}))/i
DOTS.1: ".."
AND.9: /and{_END}/i
OR.9: /or{_END}/i
NOTIN.9: /(?:not\s+in|notin){_END}/i
NOT.8: /not{_END}/i
IN.9: /in{_END}/i
FIELD.7: /{_FIELD}/i
QUANTITY.6: /[+-]?(?:[0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)(?:e[+-]?[0-9]{{1,2}})?(?:[ \t]*(?:{_UNIT}))?{_END}/i
QUOTED: /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/s
TEXT: /(?!(?:and|or|not|in|notin){_END}){_CHARACTER}+/i
WORD: /{_CHARACTER}+/
%ignore /\s+/
"""


@v_args(inline=True)
class _Build(Transformer[Token, Any]):
    """Called from the leaves up, without recursion."""

    def start(self, node: Node | None = None) -> Node | None:
        return node

    def either(self, *parts: Node | Token) -> Node:
        return build.joined(Or, [part for part in parts if not isinstance(part, Token)])

    def both(self, *parts: Node | Token) -> Node:
        return build.joined(And, [part for part in parts if not isinstance(part, Token)])

    def one(self, sign: Token, part: Node) -> Node:
        return build.negated(part, _word(sign))

    def between(self, field: Token, op: Token, ends: tuple[Word | None, Word | None]) -> Term:
        return build.between(_word(field), _word(op), *ends)

    def one_of(self, field: Token, op: Token, values: tuple[Word, ...]) -> Term:
        return build.one_of(_word(field), _word(op), values)

    def compare(self, field: Token, op: Token, value: Word) -> Term:
        return build.compare(_word(field), _word(op), value)

    def free(self, value: Word) -> Term:
        return build.free(value)

    def closed(self, low: Word, dots: Token, high: Word) -> tuple[Word | None, Word | None]:
        return low, high

    def above(self, low: Word, dots: Token) -> tuple[Word | None, Word | None]:
        return low, None

    def below(self, dots: Token, high: Word) -> tuple[Word | None, Word | None]:
        return None, high

    def list(self, *values: Word) -> tuple[Word, ...]:
        return values

    def value(self, token: Token) -> Word:
        return _word(token)

    def text(self, token: Token) -> Word:
        return _word(token)


def _word(token: Token) -> Word:
    column, text = (token.start_pos or 0) + 1, str(token)
    if token.type == "QUOTED":
        return Word(build.unquoted(text), column, len(text), True)
    return Word(text, column, len(text), False)


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", lexer="contextual", transformer=_Build())


def parse(line: str) -> Node | None:
    """None for a line that says nothing. Raises QueryError, and nothing else."""
    if len(line) > LENGTH_MAX:
        raise QueryError(LENGTH_MAX + 1, f"the query is longer than {LENGTH_MAX:,} characters", "Write a shorter one")
    run: Callable[[str], Any] = _parser().parse
    try:
        node: Node | None = run(line)
    except VisitError as error:
        if isinstance(error.orig_exc, QueryError):
            raise error.orig_exc from None
        raise
    except UnexpectedInput as error:
        raise _unexpected(line, error) from None
    build.check_size(node)
    return node


def _unexpected(line: str, error: UnexpectedInput) -> QueryError:
    expected: set[str]
    if isinstance(error, UnexpectedToken) and error.token.type != "$END":
        at, what, expected = error.token.start_pos or 0, str(error.token), error.accepts or error.expected
    elif isinstance(error, UnexpectedCharacters):
        at, expected = error.pos_in_stream or 0, error.allowed or set()
        what = line[at]
    else:
        at, what = len(line.rstrip()), ""
        expected = set(error.accepts or error.expected) if isinstance(error, UnexpectedToken) else set()
    return build.unexpected(line, at, what, frozenset(expected))
