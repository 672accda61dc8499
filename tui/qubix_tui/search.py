# SPDX-License-Identifier: Apache-2.0
"""The query line and the order as a person types them, in the market's own language. Pure."""

from typing import Final

from qubix_protocol.query import Query, QueryError, SortKey, parse, parse_order

ORDERS: Final = tuple(
    parse_order(line)
    for line in ("price", "score-", "score_per_qu-", "reliability-", "gpu_ram-", "gpu_name", "utilisation")
)
"""What the sort key goes through."""
EVERYTHING: Final = parse("")


def query(line: str) -> Query:
    """Raises `QueryError`."""
    return parse(line)


def pointed(line: str, error: QueryError) -> str:
    """Stands below the line: a mark under what is meant, then the problem and what to do."""
    mark = error.caret(line).rpartition("\n")[2]
    end = "" if error.remedy[-1:] in ".!?" else "."
    return f"{mark}\n✗ {error.problem}. {error.remedy}{end}"


def following(order: tuple[SortKey, ...]) -> tuple[SortKey, ...]:
    """The next of the usual ones, whichever direction this one has."""
    names = [one[0].name for one in ORDERS]
    at = names.index(order[0].name) + 1 if order[0].name in names else 0
    return ORDERS[at % len(ORDERS)]


def reversed_first(order: tuple[SortKey, ...]) -> tuple[SortKey, ...]:
    first, *rest = order
    return (SortKey(first.name, not first.descending, first.nulls_first), *rest)
