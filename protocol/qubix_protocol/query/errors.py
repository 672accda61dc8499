# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a query line, and where."""

import difflib
from collections.abc import Iterable

from qubix_protocol.errors import ProtocolError


class QueryError(ProtocolError):
    """`column` counts characters of the line from 1 and may lie one behind its end; `length` of them are meant. `field`
    is what the line was given as."""

    code = "query"
    field = "q"

    def __init__(self, column: int, problem: str, remedy: str, *, length: int = 1) -> None:
        super().__init__(f"column {column}: {problem}")
        self.column = column
        self.length = max(1, length)
        self.problem = problem
        self.remedy = remedy

    def caret(self, line: str) -> str:
        """The line with a mark below what is meant. A line of one row."""
        return f"{line}\n{' ' * (self.column - 1)}{'^' * max(1, min(self.length, len(line) + 1 - self.column))}"


def closest(word: str, known: Iterable[str]) -> list[str]:
    """At most three of the known words that were probably meant, the likeliest first."""
    words = list(known)
    by_letters = {one.casefold(): one for one in reversed(words)}
    near = difflib.get_close_matches(word.casefold(), list(by_letters), n=3, cutoff=0.7)
    begins = [one for one in words if len(word) > 1 and one.casefold().startswith(word.casefold())]
    return list(dict.fromkeys([by_letters[one] for one in near] + begins))[:3]


def listed(words: Iterable[str], last: str = "or") -> str:
    """`a, b or c`."""
    *most, end = list(words) or [""]
    return f"{', '.join(most)} {last} {end}" if most else end
