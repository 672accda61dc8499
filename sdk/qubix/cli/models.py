# SPDX-License-Identifier: Apache-2.0
"""`qubix models`."""

from pathlib import Path

import click

from qubix.cli import shown
from qubix.cli.exits import FAILED
from qubix.cli.output import console, json_option, market, print_json, print_pairs, print_table
from qubix.cli.pairs import split
from qubix.models import listed
from qubix_protocol.models import ModelCard, ModelPort, ModelState, ModelView, ModelWork

_OPERATORS = 6
_STATES = {
    ModelState.DESCRIBED: "can be run",
    ModelState.DECLARED: "needs inputs",
    ModelState.REFUSED: "cannot be run",
    ModelState.FAILED: "was not looked at",
    ModelState.WAITING: "waits",
}


@click.group()
def models() -> None:
    """ONNX models: what one takes, gives and costs, or why it is refused."""


@models.command()
@click.argument("file", metavar="FILE")
@click.option("-i", "--input", "inputs", multiple=True, metavar="NAME=FILE", help="An input: a .npy file.")
@click.option("--whole", metavar="NAMES", help="Inputs that every row gets as they are, commas between.")
@json_option
def describe(file: str, inputs: tuple[str, ...], whole: str | None, as_json: bool) -> None:
    """Have the market read a model and run a row or two of it in a box. Free; the file is uploaded.

    Inputs are needed where the file leaves shapes open, and give the price of a row on your own data.
    """
    given = {name: Path(path) for name, path in split("-i", inputs).items()}
    with market() as client:
        view = client.describe_model(file, given, whole=listed(whole or ""))
    if as_json:
        print_json(view)
    else:
        _print(view)
    if view.state in (ModelState.REFUSED, ModelState.FAILED):
        raise click.exceptions.Exit(FAILED)


def _print(view: ModelView) -> None:
    out = console()
    out.print(f"The model {_STATES[view.state]}.")
    if view.refusal is not None:
        out.print(view.refusal.problem, soft_wrap=True)
        if view.refusal.remedy:
            out.print(f"What to do: {view.refusal.remedy}", soft_wrap=True)
    if view.state is ModelState.DECLARED:
        out.print(f"Give its inputs with -i NAME=FILE: {', '.join(view.needs)}", soft_wrap=True)
    if view.card is not None:
        _print_card(view.card, view.work)


def _print_card(card: ModelCard, work: ModelWork | None) -> None:
    rows = [["in", *_port(one)] for one in card.inputs] + [["out", *_port(one)] for one in card.outputs]
    print_table(("way", "name", "kind", "shape"), rows)
    most = sorted(card.operators.items(), key=lambda one: (-one[1], one[0]))[:_OPERATORS]
    pairs = [
        ("file", shown.size(card.size_bytes)),
        ("parameters", f"{card.parameters:,}"),
        ("made by", card.producer),
        ("operators", ", ".join(f"{name or 'ai.onnx'} {version}" for name, version in card.opsets.items())),
        ("graph", f"{card.nodes:,} operations: {', '.join(f'{name} × {count:,}' for name, count in most)}"),
    ]
    if work is not None:
        pairs += [
            ("work of a row", f"{work.flops:,.0f} operations"),
            ("moved for a row", shown.size(round(work.bytes_moved))),
            ("memory of a row", shown.size(work.memory_bytes)),
            ("rows at a time", f"{work.batch:,}"),
            ("checked", f"{work.checked_units:,} of {work.units:,} rows" if work.units else "a sample of the rows"),
        ]
    print_pairs([(name, text) for name, text in pairs if text])


def _port(port: ModelPort) -> list[str]:
    shape = "any" if port.dims is None else f"({', '.join(map(str, port.dims))})"
    return [port.name, port.dtype, shape]
