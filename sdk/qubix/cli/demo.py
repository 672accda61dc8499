# SPDX-License-Identifier: Apache-2.0
"""`qubix demo`."""

import signal
import sys
from pathlib import Path
from typing import NoReturn

import click

from qubix import settings
from qubix.cli.exits import FAILED
from qubix.cli.output import console, json_option, print_json
from qubix.errors import BadUsage, QubixError, StartFailed


@click.command()
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder to use and to keep.")
@json_option
def demo(data_dir: Path | None, as_json: bool) -> None:
    """Start a market here, deposit QU, run two real jobs, withdraw QU, check the ledger, stop everything.

    Its QU are play money of a devnet on this machine, and move by signed transactions as on the main network.

    Without --data-dir everything happens in a temporary folder that is removed.
    """
    from qubix.demo import market
    from qubix.demo.run import Demo

    shown, outside = console(err=as_json), settings.outside()
    if outside.get("QUBIX_NETWORK", "devnet") not in ("", "devnet"):
        problem = "the demonstration is paid by a devnet's faucet, and no other network has one"
        raise BadUsage("QUBIX_NETWORK", problem, "Leave QUBIX_NETWORK out, or set it to devnet.")
    signal.signal(signal.SIGTERM, _leave)

    def say(line: str) -> None:
        shown.print(line, soft_wrap=True, markup=False)

    with market.folder(data_dir) as folder:
        try:
            with market.running(folder, outside, say) as info:
                found = Demo(info, folder, outside, shown).run()
        except StartFailed:
            raise
        except QubixError as error:
            say(market.tails(folder))
            remedy = error.remedy or "The logs above say more; --data-dir keeps them."
            raise StartFailed(f"the demonstration failed: {error.problem}", remedy=remedy) from error
    if as_json:
        print_json(found)


def _leave(number: int, frame: object) -> NoReturn:
    """So that SIGTERM, too, ends what was started."""
    sys.exit(FAILED)
