# SPDX-License-Identifier: Apache-2.0
"""`python -m qubix_node.service` (`qubix worker`): the worker that installed itself on this machine.

Exit status: 0 done, 1 it failed and says why, 2 bad usage, 3 it does not run or is not listed.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx

from qubix_node.service.install import Worker, become_node
from qubix_node.service.layout import NAME, Layout, read_settings
from qubix_node.service.market import Market
from qubix_node.service.supervisors import chosen
from qubix_node.service.trouble import Trouble

FAILED: Final = 1
NOT_IN_MARKET: Final = 3
_WORDS: Final = {
    "status": "whether it runs, and what the market knows of it",
    "start": "start it now",
    "stop": "stop it; it starts again at the next login",
    "update": "install what the coordinator runs now, and start that",
    "uninstall": "stop it and take everything away",
    "hold": "start it, and stay until this is ended: WSL goes with its last session",
    "run": "become the node (what the service starts)",
    "install": "the installer's last step",
}


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    layout = Layout(given.root.expanduser().absolute())
    if given.word != "install" and not layout.version:
        print(f"qubix worker: none is installed in {layout.root}. Download its file from the page.", file=sys.stderr)
        return FAILED
    if given.word == "run":
        become_node(layout, os.environ)
    try:
        return _do(given, layout)
    except Trouble as problem:
        print(problem.text(), file=sys.stderr)
        return FAILED


def _do(given: argparse.Namespace, layout: Layout) -> int:
    # A pairing code never stands on a command line, where every user of the machine could read it.
    wanted = {**read_settings(layout), **(_told(given) if given.word == "install" else {})}
    supervisor = chosen(layout, os.environ)
    with httpx.Client(trust_env=True, follow_redirects=False) as client:
        market = Market(
            client,
            wanted.get("QUBIX_COORDINATOR_URL", "").rstrip("/"),
            wanted.get("QUBIX_COORDINATOR_KEY", ""),
            wanted.get("QUBIX_NETWORK", ""),
        )
        worker = Worker(layout, supervisor, market, lambda text: print(text, flush=True))
        if given.word == "install":
            worker.install(given.version, os.environ.get("QUBIX_PAIRING_CODE", ""), _told(given))
        elif given.word == "status":
            return 0 if worker.status(as_json=given.as_json) else NOT_IN_MARKET
        elif given.word == "update":
            worker.update()
        elif given.word == "uninstall":
            worker.uninstall()
        elif given.word in ("start", "hold"):
            supervisor.start()
            if given.word == "hold":
                signal.pause()
        else:
            supervisor.stop()
    return 0


def _told(given: argparse.Namespace) -> dict[str, str]:
    return {
        "QUBIX_COORDINATOR_URL": given.coordinator,
        "QUBIX_COORDINATOR_KEY": given.coordinator_key,
        "QUBIX_NETWORK": given.network,
        "QUBIX_WORKER_LOCK": given.lock,
    }


def _parser() -> argparse.ArgumentParser:
    lines = "\n".join(f"  {word:<10} {text}" for word, text in _WORDS.items())
    parser = argparse.ArgumentParser(
        prog="qubix worker",
        description="The worker that installed itself on this machine.",
        epilog=lines,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    parser.add_argument("word", choices=list(_WORDS), metavar="WORD", help="one of the words below")
    parser.add_argument("--root", type=Path, default=Path(data) / NAME, help="its folder")
    parser.add_argument("--json", dest="as_json", action="store_true", help="for status: as JSON, for scripts")
    for name in ("version", "coordinator", "coordinator-key", "network", "lock"):
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
