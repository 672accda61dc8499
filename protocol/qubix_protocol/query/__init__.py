# SPDX-License-Identifier: Apache-2.0
"""The query line: one language for the API, the SDK, the command line, the terminal and the web.

`gpu_ram>=8 price<500 region in [EU, US]`: filters beside each other must all hold. README.md has the whole language.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from qubix_protocol.api import ListingView
from qubix_protocol.query import evaluate, grammar, nodes
from qubix_protocol.query.build import joined
from qubix_protocol.query.errors import QueryError
from qubix_protocol.query.fields import FIELDS, NAMES, Field
from qubix_protocol.query.grammar import LENGTH_MAX
from qubix_protocol.query.nodes import Node, conjuncts
from qubix_protocol.query.order import LENGTH_MAX as ORDER_LENGTH_MAX
from qubix_protocol.query.order import SortKey, order_text, ordered, parse_order

__all__ = [
    "FIELDS", "LENGTH_MAX", "NAMES", "ORDER_LENGTH_MAX", "SEARCH_DEFAULTS", "Field", "Query", "QueryError", "SortKey",
    "order_text", "ordered", "parse", "parse_order",
]  # fmt: skip

SEARCH_DEFAULTS: Final = "rentable=true"
"""What a search by a person begins with. Nothing adds it unseen: it is part of the query's text, and `rentable=any`
takes it away."""


@dataclass(frozen=True, slots=True)
class Query:
    """`root` None: everything is found."""

    root: Node | None
    _test: evaluate.Test = field(compare=False, repr=False)

    def matches(self, one: ListingView) -> bool:
        """Whether every filter is known to hold."""
        return self._test(one) is True

    def text(self) -> str:
        """The canonical line; `parse` makes an equal query of it."""
        return nodes.text(self.root)

    def filters(self) -> tuple["Query", ...]:
        """Each of those that must all hold, as a query by itself."""
        return tuple(of(part) for part in conjuncts(self.root))

    def with_also(self, line: str) -> "Query":
        """Both must hold; what is added has no place in this query's line. Raises QueryError."""
        more = [replace(part, span=nodes.Span(0, 0)) for part in conjuncts(grammar.parse(line))]
        return of(_both([*conjuncts(self.root), *more], None))

    def names(self) -> frozenset[str]:
        """The fields that it speaks of."""
        return nodes.names(self.root)


def of(root: Node | None) -> Query:
    return Query(root, evaluate.compiled(root))


def parse(line: str, *, defaults: str = "") -> Query:
    """Raises QueryError. `defaults` are filters beside each other; those whose field the line speaks of, be it as
    `FIELD=any`, are left out, and the others become part of the query, in front."""
    root = grammar.parse(line)
    spoken = nodes.names(root)
    kept = [part for part in conjuncts(grammar.parse(defaults)) if not nodes.names(part) & spoken]
    return of(_both(kept, root))


def _both(first: Sequence[Node], last: Node | None) -> Node | None:
    parts = [*first, *conjuncts(last)]
    return joined(nodes.And, parts) if len(parts) > 1 else parts[0] if parts else None
