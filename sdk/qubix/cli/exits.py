# SPDX-License-Identifier: Apache-2.0
"""How a command ends: 0 done, 1 failed, 2 bad usage or input. An error is a sentence and a remedy, no traceback."""

import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

DONE: Final = 0
FAILED: Final = 1
BAD: Final = 2


class Group(click.Group):
    """Turns the SDK's errors into messages and exit codes, for every command below it."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **named: Any) -> Any:
        try:
            return super().main(args, *rest, **named)
        except BrokenPipeError:
            # Whoever read our output has left; Python would complain once more while closing it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            told = explain(error)
            if told is None:
                raise
            message, status = told
            click.echo(message, err=True)
            ctx.exit(status)


def explain(error: Exception) -> tuple[str, int] | None:
    """The words and the exit status for an error of the SDK's; None for any other."""
    if type(error).__module__ != "qubix.errors":
        return None
    from qubix.errors import ApiError, BadUsage, InvalidInput, NotEnoughBalance, NotFound, QubixError, Unauthorised

    if not isinstance(error, QubixError):
        return None
    bad = isinstance(error, (BadUsage, InvalidInput, NotEnoughBalance, NotFound, Unauthorised))
    lines = [f"qubix: {error.problem}"]
    if isinstance(error, (BadUsage, ApiError)) and error.field and error.field not in error.problem:
        lines.append(f"  field: {error.field}")
    if isinstance(error, ApiError):
        lines += [f"  {one.field}: {one.problem}" for one in error.problems if one.field != error.field]
    if error.remedy:
        lines.append(f"  remedy: {error.remedy}")
    return "\n".join(lines), BAD if bad else FAILED
