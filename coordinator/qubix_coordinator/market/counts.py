# SPDX-License-Identifier: Apache-2.0
"""How many offers each filter of a query leaves, and why nothing was found, in one pass over the market.

Every offer has a mask: one bit for each filter that it fails (or that is not known to hold). How many offers have which
mask answers every question about what leaving filters out would give.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qubix_coordinator.db.database import Tx, rows
from qubix_coordinator.market import rules, words
from qubix_coordinator.market.search_sql import Sql, nearest_text
from qubix_coordinator.market.words import Looked
from qubix_protocol.api import FilterView, RelaxView
from qubix_protocol.query import FIELDS, Query, nodes
from qubix_protocol.query.build import joined
from qubix_protocol.query.fields import ORDERED
from qubix_protocol.query.nodes import And, AnyValue, Between, Compare, Node

COUNTED_MAX: Final = 24
"""Filters counted by themselves; any more are counted as one."""
RELAX_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Counts:
    everything: int
    total: int
    filters: tuple[FilterView, ...]
    relax: tuple[RelaxView, ...]
    why: str


async def counts(tx: Tx, query: Query, *, now_ms: int, offer_s: float) -> Counts:
    filters, looked = counted(query.root), await words.look_up(tx, query.root, apart=True)
    sql = Sql(now_ms, looked)
    # Grouped by truths, not by a number made of them: the planner knows how few those are, and shares the scan.
    truths = [f"({sql.condition(node)}) IS TRUE AS t{n}" for n, node in enumerate(filters)]
    seen = sql.put(rules.visible_since_ms(now_ms, offer_s), "bigint")
    names = [f"t{n}" for n in range(len(filters))]
    # What is grouped by is not what lists of numbers are hashed in: one would be looked through for each offer.
    apart = " OFFSET 0" if looked else ""
    grouped = f" GROUP BY {', '.join(names)}" if names else ""
    text = (
        f"SELECT {', '.join([*names, 'count(*) AS offers'])} FROM (SELECT {', '.join(truths)}"  # noqa: S608  parameters
        f" FROM listing_search WHERE offered_ms >= {seen}{apart}) AS each{grouped}"
    )
    found = {
        sum(1 << n for n, name in enumerate(names) if not row[name]): row["offers"]
        for row in await rows(tx, text, *sql.arguments)
        if row["offers"]
    }
    total, everything = found.get(0, 0), sum(found.values())
    views = tuple(_view(node, 1 << number, found) for number, node in enumerate(filters))
    if total or not everything:
        why = "" if total else "Nothing is offered at the moment."
        return Counts(everything, total, views, (), why)
    nearest = await _nearest(tx, filters, found, looked, now_ms, offer_s)
    relax = relaxed(filters, found, nearest)
    return Counts(everything, total, views, relax, _why(everything, views, relax))


def counted(root: Node | None) -> list[Node]:
    """The filters that must all hold, but those that always do."""
    parts: list[Node] = [part for part in nodes.conjuncts(root) if not isinstance(part, AnyValue)]
    if len(parts) <= COUNTED_MAX:
        return parts
    return [*parts[: COUNTED_MAX - 1], joined(And, parts[COUNTED_MAX - 1 :])]


def _view(node: Node, bit: int, found: Mapping[int, int]) -> FilterView:
    return FilterView(
        text=nodes.text(node),
        column=node.span.start,
        length=node.span.stop - node.span.start,
        matches=sum(offers for mask, offers in found.items() if not mask & bit),
        without=found.get(0, 0) + found.get(bit, 0),
    )


async def _nearest(
    tx: Tx, filters: Sequence[Node], found: Mapping[int, int], looked: Looked, now_ms: int, offer_s: float
) -> dict[int, str]:
    """By filter: what it would have to say to find the nearest of the offers that it alone excludes."""
    said = {}
    for number, node in enumerate(filters):
        if (
            not found.get(1 << number)
            or not isinstance(node, Compare | Between)
            or FIELDS[node.name].kind not in ORDERED
        ):
            continue
        sql = Sql(now_ms, looked)
        others = [sql.condition(other) for place, other in enumerate(filters) if place != number]
        column = sql.column(node.name)
        seen = sql.put(rules.visible_since_ms(now_ms, offer_s), "bigint")
        below, above = sql.bounds(node)
        text = (
            f"SELECT max({column}) FILTER (WHERE {below}) AS low, min({column}) FILTER (WHERE {above}) AS high"  # noqa: S608
            f" FROM listing_search WHERE {' AND '.join([*others, f'offered_ms >= {seen}'])}"
        )
        (row,) = await rows(tx, text, *sql.arguments)
        nearest = nearest_text(node, row["low"], row["high"])
        if nearest:
            said[number] = nearest
    return said


def relaxed(filters: Sequence[Node], found: Mapping[int, int], nearest: Mapping[int, str]) -> tuple[RelaxView, ...]:
    """The fewest filters to leave out, and of those the ones that give the most."""
    fewest = min(mask.bit_count() for mask in found)
    best = sorted(((offers, -mask) for mask, offers in found.items() if mask.bit_count() == fewest), reverse=True)
    return tuple(_relax(filters, -mask, offers, nearest) for offers, mask in best[:RELAX_MAX])


def _relax(filters: Sequence[Node], mask: int, offers: int, nearest: Mapping[int, str]) -> RelaxView:
    numbers = [number for number in range(len(filters)) if mask >> number & 1]
    names = tuple(nodes.text(filters[number]) for number in numbers)
    instead = nearest.get(numbers[0], "") if len(numbers) == 1 else ""
    said = f"{offers:,} offer{'s' if offers != 1 else ''} without {' and '.join(names)}"
    return RelaxView(
        leave_out=names, offers=offers, instead=instead, said=said + (f"; the nearest has {instead}" if instead else "")
    )


def _why(everything: int, views: Sequence[FilterView], relax: Sequence[RelaxView]) -> str:
    nobody = [view.text for view in views if not view.matches]
    if nobody:
        offers = f"None of the {everything:,} offers satisfies" if everything > 1 else "The only offer does not satisfy"
        return f"{offers} {' or '.join(nobody)}."
    if all(len(one.leave_out) == 1 for one in relax):
        names = " or ".join(one.leave_out[0] for one in relax)
        return f"{names} excludes every offer that satisfies the rest."
    return "No single filter excludes everything: no offer satisfies all of them together."
