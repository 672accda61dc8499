# SPDX-License-Identifier: Apache-2.0
"""A page by price of offers that have a text in them, without reading all that have.

Each of the words with the text has its offers in order of price. A page needs the first of all of them together. Of
each word a few are looked at; those fill a page too, and no price of the true one is behind its last. So the index need
not give more than the offers up to there, however many have the text.
"""

from collections.abc import Sequence
from typing import Final

from qubix_coordinator.market.search_sql import CursorValue, Sql
from qubix_protocol.query import SortKey
from qubix_protocol.query.nodes import Node, Text, conjuncts

WORDS_MAX: Final = 64
"""Of more, looking at a few of each is as dear as reading them all."""
PAGES: Final = 3
"""Looked at, for one that is filled: some of them fail the other filters."""
EACH_MIN: Final = 4


def bound(
    sql: Sql, root: Node | None, key: SortKey, behind: CursorValue, where: Sequence[str], count: int
) -> str | None:
    """A condition that the first `count` offers satisfy of those `where` finds, by a key of which they stand behind
    this value. None where it would spare nothing."""
    numbers = _fewest(sql, root)
    if key.name != "price" or numbers is None:
        return None
    each = max(EACH_MIN, -(-PAGES * count // len(numbers)))
    way, sign, none = (" DESC", ">=", -1) if key.descending else ("", "<=", 2**63 - 1)
    begin = ""
    if behind is not None:
        begin = f" AND price {'<=' if key.descending else '>='} {sql.put(behind, 'bigint')}"
    few = (
        f"SELECT * FROM listing_search WHERE words_no = among.no{begin}"  # noqa: S608 - parameters
        f" ORDER BY price{way} LIMIT {each}"
    )
    last = (
        f"SELECT price FROM unnest({sql.put(numbers, 'integer[]')}) AS among (no)"  # noqa: S608 - parameters
        f" CROSS JOIN LATERAL ({few}) AS few WHERE {' AND '.join(where)} ORDER BY price{way} OFFSET {count - 1} LIMIT 1"
    )
    return f"price {sign} coalesce(({last}), {none})"


def _fewest(sql: Sql, root: Node | None) -> list[int] | None:
    """Words one of which every offer has that is found; None: of too many, or of one, whose offers are in order."""
    found = [sql.looked[one.needle] for one in conjuncts(root) if isinstance(one, Text)]
    lists = [one.devices for one in found if one.peers == () and one.devices and len(one.devices) <= WORDS_MAX]
    fewest = min(lists, key=len, default=())
    return list(fewest) if len(fewest) > 1 else None
