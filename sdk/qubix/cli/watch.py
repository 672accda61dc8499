# SPDX-License-Identifier: Apache-2.0
"""`qubix offers watch`: a table that keeps itself up to date in a terminal, one line for each change anywhere else."""

from collections.abc import Iterable, Iterator
from typing import Any

import click
import msgspec
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from qubix.cli import rows
from qubix.cli.output import console, json_option, market, table_of
from qubix.watching import Link, OffersUpdate
from qubix_protocol.api import ListingView

EVERY_S = 1.0
_FRAME_LINES = 6
"""Of the screen that are not rows: the header, its rule, what is left out, the state."""


@click.command()
@click.argument("query", nargs=-1)
@click.option(
    "-o", "--order", default="price", show_default=True, metavar="ORDER", help="Sort by FIELD; FIELD- reverses."
)
@json_option
def watch(query: tuple[str, ...], order: str, as_json: bool) -> None:
    """Follow the offers that match QUERY, such as `gpu_ram>=16 price<500`, until Ctrl-C."""
    try:
        with market() as client:
            updates = client.watch_offers(" ".join(query), order, every_s=EVERY_S)
            if as_json:
                for update in updates:
                    for line in changes(update):
                        click.echo(msgspec.json.encode(line).decode())
            elif (out := console()).is_terminal:
                with Live(console=out, auto_refresh=False, screen=False) as live:
                    for update in updates:
                        live.update(picture(update, out.height), refresh=True)
            else:
                for text in lines(updates):
                    out.print(text, soft_wrap=True)
    except KeyboardInterrupt:
        return


def changes(update: OffersUpdate) -> Iterator[dict[str, Any]]:
    """One for each that somebody may want to act on."""
    if update.snapshot:
        yield {"kind": "snapshot", "offers": update.entered}
    else:
        yield from ({"kind": "entered", "offer": one} for one in update.entered)
    yield from ({"kind": "changed", "offer": one} for one in update.changed)
    yield from ({"kind": "gone", "offer": one} for one in update.gone)
    if update.link is Link.RECONNECTING:
        yield {"kind": "reconnecting", "age_s": round(update.age_s, 1)}


def lines(updates: Iterable[OffersUpdate]) -> Iterator[str]:
    """For people: what changes nothing that a line shows, such as a reading, has none."""
    said: dict[str, str] = {}
    for update in updates:
        for line in changes(update):
            if line["kind"] != "changed" or said.get(line["offer"].listing_id) != _brief(line["offer"]):
                yield told(line)
        said |= {one.listing_id: _brief(one) for one in (*update.entered, *update.changed)}


def told(line: dict[str, Any]) -> str:
    if line["kind"] == "snapshot":
        return "\n".join(["offer     " + _brief(one) for one in line["offers"]] or ["nothing matches now"])
    if line["kind"] == "reconnecting":
        return f"reconnecting; what is above is {line['age_s']:.0f} s old"
    return f"{line['kind']:<10}{_brief(line['offer'])}"


def _brief(one: ListingView) -> str:
    return f"{one.listing_id}  {one.model}  {one.rate_qu_per_h:,} QU/h  {one.availability}"


def picture(update: OffersUpdate, height: int) -> RenderableType:
    found = update.table.ordered()
    shown = found[: max(1, height - _FRAME_LINES)]
    columns = [name for name in rows.OFFER_COLUMNS if name not in rows.OFFER_SPARE]
    kept = [rows.OFFER_COLUMNS.index(name) for name in columns]
    short = [rows.SHORTEN.get(name, str) for name in columns]
    lines = [[cut(cells[at]) for at, cut in zip(kept, short, strict=True)] for cells in map(rows.offer, shown)]
    table = table_of(columns, lines, right=rows.OFFER_RIGHT)
    left_out = f", {len(found) - len(shown):,} more below" if len(shown) < len(found) else ""
    state = f"● live · {len(found):,} offers{left_out}"
    if update.link is Link.RECONNECTING:
        state = f"◍ reconnecting · {len(found):,} offers, as of {update.age_s:.0f} s ago{left_out}"
    return Group(table, Text(state, style="green" if update.link is Link.LIVE else "yellow"))
