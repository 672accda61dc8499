# SPDX-License-Identifier: Apache-2.0
"""How a command ends: 0 done, 1 failed, 2 bad usage or input. An error is a sentence and a remedy, no traceback."""

import errno
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from qubix.errors import QubixError

DONE: Final = 0
FAILED: Final = 1
BAD: Final = 2
_CANNOT_WRITE: Final = (errno.ENOSPC, errno.EIO)


class Group(click.Group):
    """Turns the SDK's errors into messages and exit codes, for every command below it."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **named: Any) -> Any:
        try:
            return super().main(args, *rest, **named)
        except BrokenPipeError:
            _drop_output()
            sys.exit(FAILED)
        except OSError as problem:
            if problem.errno not in _CANNOT_WRITE:
                raise
            _drop_output()
            click.echo(f"qubix: cannot write the output: {problem.strerror}", err=True)
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


def _drop_output() -> None:
    """Nobody can be told through it any more; Python would complain once more while closing it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_BAD_INPUT: Final = (
    "BadUsage",
    "BadSettings",
    "InvalidInput",
    "NotEnoughBalance",
    "NotFound",
    "Unauthorised",
    "Forbidden",
    "Conflict",
    "NoWallet",
    "WalletExists",
    "WalletLocked",
    "WrongPassphrase",
)
_IN_OUR_WORDS: Final = {
    "job_id": "`qubix job list` shows your jobs.",
    "rental_id": "`qubix rent list` shows your rentals.",
    "dispute_id": "`qubix job dispute list` shows your disputes, `qubix arbiter list` all of them to an arbiter.",
}
"""By field, where the coordinator's remedy speaks of HTTP."""
_FOR_ROUTES: Final = {
    "/wallet/bind": "Bind it first: `qubix wallet login --bind`; or prove one that cannot sign: `qubix wallet prove`.",
    "/account/addresses": "List it first: `qubix wallet address add IDENTITY`.",
}
"""The same by the route that the remedy names."""


def _remedy(error: "QubixError") -> str:
    from qubix.errors import NotFound

    if isinstance(error, NotFound) and error.field in _IN_OUR_WORDS:
        return _IN_OUR_WORDS[error.field]
    return next((ours for path, ours in _FOR_ROUTES.items() if path in error.remedy), error.remedy)


def explain(error: Exception) -> tuple[str, int] | None:
    """The words and the exit status for an error of the SDK's; None for any other."""
    if type(error).__module__ != "qubix.errors":
        return None
    from qubix import errors
    from qubix.errors import ApiError, BadUsage, QubixError, Unauthorised

    if not isinstance(error, QubixError):
        return None
    bad = isinstance(error, tuple(getattr(errors, name) for name in _BAD_INPUT))
    lines = [f"qubix: {error.problem}"]
    by_field = isinstance(error, (BadUsage, ApiError)) and not isinstance(error, Unauthorised)
    field = getattr(error, "field", "") if by_field else ""
    if field and field not in error.problem:
        lines.append(f"  field: {field}")
    if isinstance(error, ApiError):
        lines += [f"  {one.field}: {one.problem}" for one in error.problems if one.field != error.field]
    remedy = _remedy(error)
    if remedy:
        lines.append(f"  remedy: {remedy}")
    return "\n".join(lines), BAD if bad else FAILED
