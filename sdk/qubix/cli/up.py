# SPDX-License-Identifier: Apache-2.0
"""`qubix up`."""

import os
import sys
from pathlib import Path

import click

from qubix import settings
from qubix.cli.output import console
from qubix.errors import BadUsage


@click.command()
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder that keeps everything.")
@click.option("--port", type=click.IntRange(0, 65535), help="HTTP port; 0 takes a free one.")
@click.option("--rate", type=click.IntRange(min=0), metavar="QU", help="What the local node asks for an hour.")
@click.option("--no-node", is_flag=True, help="Start the market without a local provider.")
@click.option(
    "--browser/--no-browser", default=None, help="Open the market's page; by default on a terminal of a desktop."
)
def up(data_dir: Path | None, port: int | None, rate: int | None, no_node: bool, browser: bool | None) -> None:
    """Start a market on this machine and keep it running until Ctrl-C.

    Database, devnet, coordinator, gateway, verifier, chain process and one local node, each a process of its own with
    its own log. The devnet is a Qubic network of play money; with QUBIX_QUBIC_URL set, the market uses the network
    there instead.
    """
    from qubix.up import command, desktop
    from qubix.up.market import Plan

    found = settings.from_environment()
    if found.ready_fd is not None and not _is_open(found.ready_fd):
        raise BadUsage("QUBIX_READY_FD", f"QUBIX_READY_FD: {found.ready_fd} is not open", "Leave it out")
    plan = Plan(
        data_dir=(data_dir or found.data_dir).absolute(),
        port=found.http_port if port is None else port,
        rate_qu_per_h=rate,
        node=not no_node,
        browser=desktop.is_there(settings.outside(), interactive=sys.stdout.isatty()) if browser is None else browser,
    )
    command.up(plan, settings.outside(), console(), found.ready_fd)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
