# SPDX-License-Identifier: Apache-2.0
"""`qubix offers`."""

from collections.abc import Iterator

import click

from qubix.cli import readings as reading
from qubix.cli import rows
from qubix.cli.history import history
from qubix.cli.output import console, json_option, market, print_json, print_pairs
from qubix.cli.tables import print_offers, print_readings
from qubix.cli.watch import watch
from qubix.errors import BadUsage
from qubix_protocol.api import ListingView
from qubix_protocol.reputation import ReputationView
from qubix_protocol.states import DeviceKind


@click.group()
def offers() -> None:
    """What the market has for rent."""


offers.add_command(history)
offers.add_command(watch)


@offers.command()
@click.option("--kind", type=click.Choice([str(kind) for kind in DeviceKind]), help="Kind of device.")
@click.option("--backend", metavar="NAME", help="Only devices with this back end, such as cuda or cpu.")
@click.option("--provider", metavar="PEER", help="Only this provider's.")
@click.option("--readings", is_flag=True, help="Show use, heat, memory, power, clock and what slows it.")
@click.option("-o", "--order", default="price", show_default=True, metavar="NAME", help="Sort by NAME; NAME- reverses.")
@json_option
def search(
    kind: str | None, backend: str | None, provider: str | None, readings: bool, order: str, as_json: bool
) -> None:
    """List devices; all filters must hold."""
    with market() as client:
        found = rows.ordered(client.offers(kind=kind, backend=backend, provider=provider), order)
        everything = len(found) if found or not (kind or backend or provider) else len(client.offers())
    if as_json:
        print_json(found)
    elif found:
        (print_readings if readings else print_offers)(found)
    elif everything:
        devices = "the only device" if everything == 1 else f"all {everything:,} devices"
        console().print(f"No match: the filters exclude {devices}. Leave one of them out.", soft_wrap=True)
    else:
        console().print("Nothing is offered yet. `qubix node` shares this machine.")


@offers.command()
@click.argument("which")
@json_option
def show(which: str, as_json: bool) -> None:
    """One device in full. WHICH is its listing, its own id, or its provider; the beginning or the end is enough."""
    with market() as client:
        found = [one for one in client.offers() if _is(one, which.strip("…"))]
        if not found:
            raise BadUsage(
                "WHICH", f"nothing in the market is called {which!r}", "Copy an id from `qubix offers search`"
            )
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


def _is(one: ListingView, text: str) -> bool:
    return any(name.startswith(text) or name.endswith(text) for name in (one.listing_id, one.device_id, one.provider))
