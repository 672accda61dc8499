# SPDX-License-Identifier: Apache-2.0
"""Free text is looked up before a search, in the few words that listings share: the search then compares numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from qubix_coordinator.db.database import Database, Tx, execute, one, rows
from qubix_protocol.query.nodes import Compare, Node, OneOf, Text, conjuncts, terms

NUMBERS_MAX: Final = 2_000
"""Of words that are listed one by one. What more of them have in them is no rare text: there is nothing to skip to."""
GRAM: Final = 3
LINES: Final = ("region", "country")
"""Fields whose value is a line of a device's words as it is, with others before and behind."""
FORGET_BATCH: Final = 1_000
FORGET_BATCHES_MAX: Final = 200
"""In one sweep; the next one goes on."""


@dataclass(frozen=True, slots=True)
class Found:
    """The numbers of the words in which a text is, of devices and of peers; None: of too many."""

    devices: tuple[int, ...] | None
    peers: tuple[int, ...] | None


Looked = Mapping[str, Found]
"""By the text."""


def holding(needle: str, put: Callable[[object, str], str]) -> str:
    """The condition on `listing_words`; `put` gives a parameter as it stands in the text."""
    exact = f"strpos(words, {put(needle, 'text')}) > 0"
    if len(needle) < GRAM:
        return exact
    # The index knows runs of three letters; it finds too much, and the exact condition decides. They are made here: the
    # planner would have the database make them several times.
    grams = sorted({needle[start : start + GRAM] for start in range(len(needle) - GRAM + 1)})
    return f"{exact} AND query_grams(words) @> {put(grams, 'text[]')}"


async def plan_anew(tx: Tx) -> None:
    """From here on the transaction plans each statement for its own values: a plan for all queries alike would walk the
    price index past a million rows for a filter that nothing satisfies. Whoever but searches says so to
    `db.transaction`, at no cost."""
    await execute(tx, "SET LOCAL plan_cache_mode = force_custom_plan")


async def look_up(tx: Tx, root: Node | None, *, apart: bool = False) -> Looked:
    """Every text of a query. `apart` for who asks for parts of it by themselves: for the whole, of devices' words only
    those count that have in them what it demands of region and country."""
    needles = sorted({term.needle for term in terms(root) if isinstance(term, Text)})
    if not needles:
        return {}
    arguments: list[object] = []

    def put(value: object, kind: str) -> str:
        arguments.append(value)
        return f"${len(arguments)}::{kind}"

    tables, columns = [], []
    demanded = [] if apart else _demanded(root, put)
    for number, needle in enumerate(needles):
        held = " AND ".join([holding(needle, put), *(f"(peer OR {one})" for one in demanded)])
        tables.append(f"held{number} AS MATERIALIZED (SELECT no, peer FROM listing_words WHERE {held})")  # noqa: S608
        for name, whose in (("devices", "NOT peer"), ("peers", "peer")):
            listed = f"SELECT no FROM held{number} WHERE {whose} LIMIT {NUMBERS_MAX + 1}"  # noqa: S608
            columns.append(f"ARRAY({listed}) AS {name}{number}")
    row = await one(tx, f"WITH {', '.join(tables)} SELECT {', '.join(columns)}", *arguments)
    assert row is not None, "a statement without a table gives one"
    return {
        needle: Found(_few(row[f"devices{number}"]), _few(row[f"peers{number}"]))
        for number, needle in enumerate(needles)
    }


def _demanded(root: Node | None, put: Callable[[object, str], str]) -> list[str]:
    """What the words of a device have in them if the whole query holds for it: region and country stand between others,
    a line each."""
    demanded = []
    for part in conjuncts(root):
        match part:
            case Compare(name, "=", value) if name in LINES:
                lines = [value.value]
            case OneOf(name, values, False) if name in LINES:
                lines = [one.value for one in values]
            case _:
                continue
        found = (f"strpos(words, {put(f'{chr(10)}{line}{chr(10)}', 'text')}) > 0" for line in lines)
        demanded.append(f"({' OR '.join(found)})")
    return demanded


def _few(numbers: list[int]) -> tuple[int, ...] | None:
    return tuple(numbers) if len(numbers) <= NUMBERS_MAX else None


async def sweep(db: Database) -> int:
    """All that no listing has any more, a short transaction at a time; gives how many."""
    gone = 0
    for _ in range(FORGET_BATCHES_MAX):
        found = await db.run(forget)
        gone += found
        if found < FORGET_BATCH:
            break
    return gone


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
