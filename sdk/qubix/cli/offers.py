# SPDX-License-Identifier: Apache-2.0
"""`qubix offers`."""

from collections.abc import Iterator

import click

from qubix import searching
from qubix.cli import readings as reading
from qubix.cli import rows
from qubix.cli.found import print_found, units_of
from qubix.cli.history import history
from qubix.cli.output import console, json_option, market, print_json, print_pairs, print_table
from qubix.cli.tables import print_offers, print_readings
from qubix.cli.watch import watch
from qubix.cli.which import offers_named
from qubix_protocol.query import FIELDS, SEARCH_DEFAULTS, parse
from qubix_protocol.reputation import ReputationView
from qubix_protocol.states import DeviceKind


@click.group()
def offers() -> None:
    """What the market has for rent."""


offers.add_command(history)
offers.add_command(watch)


@offers.command()
@click.argument("query", nargs=-1)
@click.option("--kind", type=click.Choice([str(kind) for kind in DeviceKind]), help="Kind of device.")
@click.option("--backend", metavar="NAME", help="Only devices with this back end, such as cuda or cpu.")
@click.option("--provider", metavar="PEER", help="Only this provider's.")
@click.option("--readings", is_flag=True, help="Show use, heat, memory, power, clock and what slows it.")
@click.option(
    "-o", "--order", default="price", show_default=True, metavar="FIELDS", help="Sort by fields; FIELD- reverses."
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Show at most so many.")
@click.option("--explain", is_flag=True, help="Say how the query was understood, and what each filter leaves.")
@json_option
def search(
    query: tuple[str, ...],
    kind: str | None,
    backend: str | None,
    provider: str | None,
    readings: bool,
    order: str,
    limit: int,
    explain: bool,
    as_json: bool,
) -> None:
    """Search the market: qubix offers search 'gpu_ram>=8 price<500 region in [EU, US]' -o score_per_qu-

    What people see is free to be taken (rentable=true) unless the query says otherwise, such as rentable=any; with
    --json the query stands as it is. `qubix offers fields` lists what can be searched by.
    """
    line = " ".join(query)
    searching.order(order, "-o")
    asked = searching.query(line, "QUERY")
    if not as_json:
        asked = parse(line, defaults=SEARCH_DEFAULTS)
    with market() as client:
        plain = {"kind": kind, "backend": backend, "provider": provider}
        found = client.search(asked.text(), order=order, limit=limit, counts=explain or not as_json, **plain)
    if as_json:
        print_json(found if explain else found.offers)
        return
    if found.offers:
        (print_readings if readings else print_offers)(found.offers)
    print_found(found, explain=explain)


@offers.command()
@json_option
def fields(as_json: bool) -> None:
    """What the market can be searched and sorted by."""
    if as_json:
        print_json([{"name": one.name, "aliases": one.aliases, "about": one.about} for one in FIELDS.values()])
        return
    rows_ = [[one.name, ", ".join(one.aliases), units_of(one), one.about] for one in FIELDS.values()]
    print_table(("field", "also", "values", "what it is"), rows_)


@offers.command()
@click.argument("which")
@json_option
def show(which: str, as_json: bool) -> None:
    """One device in full. WHICH is its listing, its own id, or its provider; the beginning or the end is enough."""
    with market() as client:
        found = offers_named(client, which)
        if as_json:
            print_json(found)
            return
        for number, one in enumerate(found):
            if number:
                console().print()
            fitness = rows.selftest_pairs(client.selftest(one.listing_id))
            trust = _trust(client.reputation(one.listing_id))
            print_pairs([*rows.offer_pairs(one), *fitness, *reading.pairs(one), *trust])


def _trust(found: ReputationView) -> Iterator[tuple[str, str]]:
    yield "reliability", f"{found.reliability:.0%}. {found.text}"
    for part in found.parts:
        yield part.name, part.text
