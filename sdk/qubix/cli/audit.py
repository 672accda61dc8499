# SPDX-License-Identifier: Apache-2.0
"""`qubix audit`: the coordinator's own process, and `qubix audit reserves`, which anybody can run."""

import click

from qubix.cli.processes import process_command
from qubix.cli.reserves import reserves

_PROCESS = process_command("audit", "Check every invariant, on the market's own machine.")


class _Audit(click.Group):
    """Everything but `reserves` is the process's own business, `--help` too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] != ["reserves"]:
            args = ["everything", *args]
        return super().parse_args(ctx, args)


audit = _Audit("audit", help="Check every invariant, on the market's own machine.", add_help_option=False)
audit.add_command(reserves)
audit.add_command(_PROCESS, "everything")
