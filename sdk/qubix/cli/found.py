# SPDX-License-Identifier: Apache-2.0
"""What a search says below its offers: how it was understood, what each filter leaves, and why nothing was found."""

from qubix.cli.output import console, print_table
from qubix_protocol.api import OffersView
from qubix_protocol.query import Field
from qubix_protocol.query.fields import Kind


def print_found(found: OffersView, *, explain: bool) -> None:
    out = console()
    if not found.everything:
        out.print("Nothing is offered yet. `qubix node` shares this machine.")
        return
    out.print(_summary(found), soft_wrap=True, highlight=False, markup=False)
    if explain or not found.total:
        lines = [[one.text, f"{one.matches:,}", f"{one.without:,}"] for one in found.filters]
        print_table(
            ("filter", "satisfied by", "found without it"), lines, right=frozenset({"satisfied by", "found without it"})
        )
    if found.why:
        out.print(found.why, soft_wrap=True, highlight=False, markup=False)
    for one in found.relax:
        out.print(f"  {one.said}", soft_wrap=True, highlight=False, markup=False)


def _summary(found: OffersView) -> str:
    shown = f"{len(found.offers):,} of " if len(found.offers) < (found.total or 0) else ""
    query = found.query or "everything"
    return f"{shown}{found.total or 0:,} found among {found.everything:,}: {query} (by {found.order})"


def units_of(one: Field) -> str:
    """How values of a field are written, in a word or two."""
    match one.kind:
        case Kind.CHOICE:
            return ", ".join(one.choices)
        case Kind.YESNO:
            return "true, false"
        case Kind.VERSION:
            return "12.4"
        case Kind.WHOLE | Kind.REAL:
            return one.dimension.plain or "number"
        case _:
            return "text"
