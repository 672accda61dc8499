# SPDX-License-Identifier: Apache-2.0
"""Commands that become another process: the other parts' and the bench."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from qubix import processes
from qubix.errors import StartFailed

_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": list[str]()}


def process_command(name: str, summary: str) -> click.Command:
    """Everything behind the name, `--help` too, is the process's own business."""

    def become(arguments: tuple[str, ...]) -> NoReturn:
        _exec(processes.command(name, *arguments))

    rest = click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(name, params=[rest], callback=become, help=summary, context_settings=dict(_PASS_ON))


@click.command(context_settings=dict(_PASS_ON))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> NoReturn:
    """Measure this machine, each figure beside its limit."""
    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / "bench" / "__main__.py").exists():
        raise StartFailed("the bench is not part of an installed package", remedy="Run it from a checkout: make bench")
    os.chdir(checkout)
    _exec([sys.executable, "-m", "bench", *arguments])


@click.command(context_settings=dict(_PASS_ON))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def selftest(arguments: tuple[str, ...]) -> NoReturn:
    """Whether this machine is fit for the market, check by check."""
    _exec(processes.command("node", *arguments, part="selftest"))


def _exec(command: list[str]) -> NoReturn:
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606  no shell is wanted
