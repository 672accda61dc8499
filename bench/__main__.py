# SPDX-License-Identifier: Apache-2.0
"""`python -m bench [NAME …] [--json]`: runs the benches, prints each figure beside its limit, keeps the run as JSON."""

import argparse
import importlib
import platform
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import msgspec
from rich.console import Console
from rich.table import Table

from bench.figures import Figure

BENCHES = {
    "chain": "a Qubic key, a signature and a strict verification, with and without GMP",
    "protocol": "encode and decode, beside msgspec alone",
    "adverts": "30 libp2p nodes saying an advert each 10 s: loss, delay, and CPU beside stock py-libp2p",
    "control": "a signed control round trip, beside a bare libp2p stream and raw TCP",
    "check": "what a check costs, beside the run",
    "takeover": "from the end of a node in the middle of a job to the next attempt's first chunk, beside the lease",
    "kernels": "the kernels' back ends, beside NumPy, SciPy and scikit-learn",
    "cards": "an NVIDIA card: its kernels beside cuBLAS, its arithmetic and its memory; a trial and a wipe of it all",
    "box": "a worker's start in its box, beside a bare fork",
    "spread": "the same job on one node and on two, beside two bare processes",
    "catchup": "reading deposits after downtime, beside bare requests to the same devnet",
    "settle": "settlements, beside the bare SQL function and pgbench; 1,000 open jobs settling at once",
    "ingest": "readings of many nodes, beside a bare COPY; a chart from samples and from minutes",
    "forecast": "how far forecasts of 100 mixed jobs are off, beside the same job run twice",
    "feed": "a change of the market at 1,000 watchers, and a delivery beside websockets.broadcast",
    "tui": "the terminal in front of 2,000 offers and 50 changes a second, beside the same feed only read",
    "search": "a page of the market by the query line, at 1,000 to 1,000,000 offers, beside SELECT 1",
    "worker": "the Linux installer from its start to a listed node, beside venv and pip alone",
    "web": "first load, Lighthouse, and the market page in Chromium with 10,000 offers of which 200 a second change",
    "market": "submit to first chunk, tiny jobs a second beside Procrastinate, resident memory",
}
RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(BENCHES)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(BENCHES))
    if unknown:
        print(f"bench: no bench named {', '.join(unknown)}; there are: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _ended)
    figures = [figure for name in options.names or BENCHES for figure in _run(name)]
    _keep(figures)
    if options.json:
        print(msgspec.json.encode(figures).decode())
    else:
        Console(width=None if sys.stdout.isatty() else 160).print(_table(figures))
    return 0


def _ended(number: int, frame: FrameType | None) -> None:
    """As Ctrl-C: each bench takes away what it started."""
    raise SystemExit(128 + number)


def _run(name: str) -> list[Figure]:
    print(f"bench {name}: {BENCHES[name]} …", file=sys.stderr)
    module = importlib.import_module(f"bench.{name}_bench")
    figures: list[Figure] = module.run()
    return figures


def _keep(figures: Sequence[Figure]) -> None:
    RESULTS.mkdir(exist_ok=True)
    run = {"at": time.time(), "machine": platform.platform(), "python": platform.python_version(), "figures": figures}
    (RESULTS / f"{int(time.time())}.json").write_bytes(msgspec.json.format(msgspec.json.encode(run)))


def _table(figures: Sequence[Figure]) -> Table:
    table = Table("figure", "value", "beside", "ratio", "aim", "met", "note")
    for f in figures:
        limit = f"{f.limit:,.4g} {f.unit} ({f.beside})" if f.limit is not None else ""
        ratio = f"{f.ratio:.2f}×" if f.ratio is not None else ""
        met = "" if f.met is None else "yes" if f.met else "NO"
        table.add_row(f.name, f"{f.value:,.4g} {f.unit}", limit, ratio, f.aim, met, f.note)
    return table


if __name__ == "__main__":
    sys.exit(main())
