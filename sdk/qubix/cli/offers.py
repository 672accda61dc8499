# SPDX-License-Identifier: Apache-2.0
"""`qubix offers`."""

import click

from qubix.cli import rows
from qubix.cli.output import console, json_option, market, print_json
from qubix.cli.tables import print_offers
from qubix_protocol.states import DeviceKind


@click.group()
def offers() -> None:
    """What the market has for rent."""


@offers.command()
@click.option("--kind", type=click.Choice([str(kind) for kind in DeviceKind]), help="Kind of device.")
@click.option("--backend", metavar="NAME", help="Only devices with this back end, such as cuda or cpu.")
@click.option("--provider", metavar="PEER", help="Only this provider's.")
@click.option("-o", "--order", default="price", show_default=True, metavar="NAME", help="Sort by NAME; NAME- reverses.")
@json_option
def search(kind: str | None, backend: str | None, provider: str | None, order: str, as_json: bool) -> None:
    """List devices; all filters must hold."""
    with market() as client:
        found = rows.ordered(client.offers(kind=kind, backend=backend, provider=provider), order)
        everything = len(found) if found or not (kind or backend or provider) else len(client.offers())
    if as_json:
        print_json(found)
    elif found:
        print_offers(found)
    elif everything:
        devices = "the only device" if everything == 1 else f"all {everything:,} devices"
        console().print(f"No match: the filters exclude {devices}. Leave one of them out.", soft_wrap=True)
    else:
        console().print("Nothing is offered yet. `qubix node` shares this machine.")
