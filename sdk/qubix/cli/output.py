# SPDX-License-Identifier: Apache-2.0
"""Where commands write: tables for people, JSON for scripts, a client from the settings."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from qubix.client import Client

F = TypeVar("F", bound=Callable[..., Any])
_PIPE_WIDTH = 200
_WIDEST = 10_000


def console(*, err: bool = False) -> Console:
    """Colours only in a terminal, and none with NO_COLOR; in a pipe wide enough that a table keeps its words."""
    made = Console(stderr=err, highlight=False, markup=False)
    return made if made.is_terminal else Console(stderr=err, highlight=False, markup=False, width=_PIPE_WIDTH)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(command)


def print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table_of(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[str] = frozenset()) -> Table:
    """What does not fit is folded, never cut: ids are there to be copied."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: frozenset[str] = frozenset(),
    spare: Sequence[str] = (),
    shorten: Mapping[str, Callable[[str], str]] | None = None,
    to: Console | None = None,
) -> None:
    """Where it is wider than the console, first `shorten` is done to its columns, then those of `spare` go, the first
    first, and a line says which; a table that is too wide even so becomes a list. A `spare` column that is empty all
    the way down is not shown at all."""
    out = to or console()
    whole = rows
    empty = {name for at, name in enumerate(columns) if name in spare and not any(row[at] for row in rows)}
    table, hidden = _without(columns, rows, right, empty), list[str]()
    if shorten and _width(out, table) > out.width:
        rows = [[shorten.get(name, str)(cell) for name, cell in zip(columns, row, strict=True)] for row in rows]
        table = _without(columns, rows, right, empty)
    for name in spare:
        if _width(out, table) <= out.width:
            break
        if name not in empty:
            hidden.append(name)
            table = _without(columns, rows, right, empty | set(hidden))
    if _width(out, table) > out.width:
        for row in whole:
            print_pairs(list(zip(columns, row, strict=True)), to=out)
            out.print()
        return
    out.print(table)
    if hidden:
        out.print(f"Too narrow here for: {', '.join(hidden)}. --json has everything.", style="dim")


def _without(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str], left_out: Collection[str]
) -> Table:
    kept = [at for at, name in enumerate(columns) if name not in left_out]
    return table_of([columns[at] for at in kept], [[row[at] for at in kept] for row in rows], right=right)


def _width(out: Console, table: Table) -> int:
    return out.measure(table, options=out.options.update(max_width=_WIDEST)).maximum


def print_pairs(pairs: Sequence[tuple[str, str]], *, to: Console | None = None) -> None:
    table = Table.grid(padding=(0, 2))
    for name, value in pairs:
        if value:
            table.add_row(name, value)
    (to or console()).print(table)


@contextmanager
def market() -> Iterator[Client]:
    with Client() as client:
        yield client
