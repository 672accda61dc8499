# SPDX-License-Identifier: Apache-2.0
"""Free text is looked up before a search, in the few words that listings share: the search then compares numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from qubix_coordinator.db.database import Tx, execute, one, rows
from qubix_protocol.query.nodes import Node, Text, terms

NUMBERS_MAX: Final = 2_000
"""Of words that are listed one by one. What more of them have in them is no rare text: there is nothing to skip to."""
GRAM: Final = 3
FORGET_BATCH: Final = 1_000


@dataclass(frozen=True, slots=True)
class Found:
    """The numbers of the words in which a text is, of devices and of peers; None: of too many."""

    devices: tuple[int, ...] | None
    peers: tuple[int, ...] | None


Looked = Mapping[str, Found]
"""By the text."""


def holding(needle: str, param: str, *, peer: bool) -> str:
    """The condition on `listing_words`; `param` is the needle as it stands in the text."""
    exact = f"{'peer' if peer else 'NOT peer'} AND strpos(words, {param}) > 0"
    # The index knows runs of three letters; it finds too much, and the exact condition decides.
    return f"{exact} AND query_grams(words) @> query_grams({param})" if len(needle) >= GRAM else exact


async def look_up(tx: Tx, root: Node | None) -> Looked:
    """Every text of a query. From here on the transaction plans each statement for its own values: a plan for all
    alike would walk the price index past a million rows for a filter that nothing satisfies."""
    needles = sorted({term.needle for term in terms(root) if isinstance(term, Text)})
    columns = ["set_config('plan_cache_mode', 'force_custom_plan', true)"]
    for number, needle in enumerate(needles):
        for peer in (False, True):
            held = holding(needle, f"${number + 1}::text", peer=peer)
            listed = f"ARRAY(SELECT no FROM listing_words WHERE {held} LIMIT {NUMBERS_MAX + 1})"  # noqa: S608
            columns.append(f"{listed} AS {'peers' if peer else 'devices'}{number}")
    row = await one(tx, f"SELECT {', '.join(columns)}", *needles)
    assert row is not None, "a statement without a table gives one"
    return {
        needle: Found(_few(row[f"devices{number}"]), _few(row[f"peers{number}"]))
        for number, needle in enumerate(needles)
    }


def _few(numbers: list[int]) -> tuple[int, ...] | None:
    return tuple(numbers) if len(numbers) <= NUMBERS_MAX else None


async def forget(tx: Tx) -> int:
    """What no listing has any more; gives how many. Locked first and looked at again then: whoever lists a device
    with these very words has either done so, or waits."""
    alone = "NOT EXISTS (SELECT FROM listing_search s WHERE s.words_no = w.no OR s.peer_no = w.no)"
    found = await rows(
        tx,
        f"SELECT no FROM listing_words w WHERE {alone} ORDER BY no LIMIT $1 FOR UPDATE SKIP LOCKED",  # noqa: S608
        FORGET_BATCH,
    )
    return await execute(
        tx,
        f"DELETE FROM listing_words w WHERE no = ANY ($1::integer[]) AND {alone}",  # noqa: S608 - our own words
        [row["no"] for row in found],
    )
