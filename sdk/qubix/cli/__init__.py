# SPDX-License-Identifier: Apache-2.0
"""The `qubix` command. Only click is imported before it is known which command is meant, so that help is instant."""

import importlib
from typing import Final

import click

from qubix.cli.exits import Group

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("demo:demo", "A whole market on this machine: QU in, two real jobs, checked and paid, QU out."),
    "up": ("up:up", "Start a market on this machine and keep it running until Ctrl-C."),
    "offers": ("offers:offers", "What the market has for rent."),
    "kernels": ("kernels:kernels", "What the market can run."),
    "models": ("models:models", "What an ONNX model takes, gives and costs."),
    "job": ("job:job", "Submit jobs, follow them, fetch results and receipts."),
    "rent": ("rent:rent", "A device for a time: rent, extend, stop."),
    "audit": (
        "audit:audit",
        "Check every invariant; audit reserves: what is owed and what is there.",
    ),
    "wallet": ("wallet:wallet", "The Qubic key on this machine, and the account's money."),
    "provider": ("provider:provider", "The account of the node on this machine."),
    "arbiter": ("dispute:arbiter", "Judge disputes (arbiters)."),
    "selftest": ("processes:selftest", "Whether this machine is fit for the market, check by check."),
    "bench": ("processes:bench", "Measure this machine, each figure beside its limit."),
}
"""Where each command lives below `qubix.cli`, and its line in the help."""
PROCESSES: Final = {
    "audit": "Check every invariant: sums, holds, deadlines, receipts, the chain.",
    "chain": "The process that credits deposits and pays withdrawals; it alone holds the keys.",
    "coordinator": "The coordinator's process.",
    "verifier": "The process that checks finished work.",
    "database": "The embedded PostgreSQL's process.",
    "devnet": "A Qubic network of play money on this machine.",
    "gateway": "The mesh gateway's process.",
    "mesh": "See the market straight from the nodes, with or without a coordinator.",
    "node": "The provider's process.",
    "worker": "The worker that installed itself on this machine: status, update, uninstall.",
    "tui": "The market in a terminal: offers, jobs, rentals, wallet, the mesh.",
}


class Commands(Group):
    """Loads a command when it is used; the other parts' are found by entry point and become processes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from qubix.processes import modules

        return [*COMMANDS, *sorted(set(modules()) - set(COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module, _, name = COMMANDS[cmd_name][0].partition(":")
            command: click.Command = getattr(importlib.import_module(f"qubix.cli.{module}"), name)
            return command
        from qubix.cli.processes import process_command
        from qubix.processes import modules

        return process_command(cmd_name, PROCESSES.get(cmd_name, "")) if cmd_name in modules() else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = self.list_commands(ctx)
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in names if name in COMMANDS])
        with formatter.section("Processes of the parts that are installed"):
            formatter.write_dl([(name, PROCESSES.get(name, "")) for name in names if name not in COMMANDS])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="qubix")
def main() -> None:
    """QUBIX: rent out a GPU, or run a job on one and pay only for a checked result."""
