# SPDX-License-Identifier: Apache-2.0
"""Where commands write: tables for people, JSON for scripts, a client from the settings."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table

from qubix.client import Client

F = TypeVar("F", bound=Callable[..., Any])
_PIPE_WIDTH = 200


def console(*, err: bool = False) -> Console:
    """Colours only in a terminal, and none with NO_COLOR; in a pipe wide enough that a table keeps its words."""
    made = Console(stderr=err, highlight=False, markup=False)
    return made if made.is_terminal else Console(stderr=err, highlight=False, markup=False, width=_PIPE_WIDTH)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(command)


def print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table_of(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[str] = frozenset(), title: str = ""
) -> Table:
    """What does not fit is folded, never cut: ids are there to be copied."""
    table = Table(header_style="bold", title=title or None)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[str] = frozenset()) -> None:
    console().print(table_of(columns, rows, right=right))


def print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    for name, value in pairs:
        if value:
            table.add_row(name, value)
    console().print(table)


@contextmanager
def market() -> Iterator[Client]:
    with Client() as client:
        yield client
