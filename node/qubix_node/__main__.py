# SPDX-License-Identifier: Apache-2.0
"""`python -m qubix_node` (`qubix node`): offer this machine's hardware to the market and run what is assigned."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence

import trio

from qubix_node import logs
from qubix_node.daemon import serve
from qubix_node.errors import Fatal, WorkerLost
from qubix_node.memory import give_back_large_blocks
from qubix_node.offers import price
from qubix_node.rentals import maintenance
from qubix_node.settings import Settings, from_environment
from qubix_protocol import usage
from qubix_protocol.settings import SettingsError
from qubix_protocol.units import RATE_QU_PER_H_MAX

EXIT_FATAL = 1
EXIT_BAD_SETTINGS = 2
MAINTENANCE_S_MAX = 30 * 86_400
DRAIN_S = 900
"""Longer than the notice that markets ask for unless they are told otherwise."""
_OPTIONS = (
    ("--data-dir", "QUBIX_DATA_DIR", "folder for key, journal and cache"),
    ("--coordinator", "QUBIX_COORDINATOR_URL", "the coordinator's HTTP address"),
    ("--bootstrap", "QUBIX_BOOTSTRAP", "gateways to dial first: multiaddrs, separated by commas"),
    ("--network", "QUBIX_NETWORK", "devnet, test or main"),
    ("--devices", "QUBIX_NODE_DEVICES", "auto, gpu or cpu"),
    ("--rate", "QUBIX_NODE_RATE_QU_PER_H", "price of one device for an hour, in QU"),
    ("--pair", "QUBIX_PAIRING_CODE", "code of the account that the node is to belong to"),
    ("--region", "QUBIX_NODE_REGION", "region to offer in"),
    ("--listen", "QUBIX_NODE_LISTEN", "multiaddrs to listen on"),
    ("--relay", "QUBIX_NODE_RELAY", "yes: pass on the region's offers to whoever connects"),
    ("--threads", "QUBIX_NODE_THREADS", "threads of a CPU kernel"),
    ("--jobs-parallel", "QUBIX_NODE_JOBS_PARALLEL", "jobs one device runs at a time"),
    ("--log-level", "QUBIX_LOG_LEVEL", "DEBUG, INFO, WARNING or ERROR"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    given = _parser().parse_args(arguments)
    overrides = {name: value for name, value in vars(given).items() if value is not None and name.isupper()}
    try:
        settings = from_environment(overrides)
    except SettingsError as problem:
        print(f"qubix node: {problem}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    if given.maintenance_in is not None or given.maintenance_off or given.drain:
        return _maintenance(settings, given)
    if given.set_rate is not None:
        return _set_rate(settings, given.set_rate)
    logs.configure(settings.log_level)
    give_back_large_blocks()
    try:
        trio.run(serve, settings)
    except BaseException as error:
        fatal = next(_fatals(error), None)
        if fatal is None:
            raise
        print(f"qubix node: {fatal}", file=sys.stderr)
        return EXIT_FATAL
    return 0


def _parser() -> argparse.ArgumentParser:
    summary = "Offer this machine's hardware to the market and run what is assigned, until Ctrl-C."
    parser = usage.parser("qubix node", summary, Settings)
    for option, variable, text in _OPTIONS:
        parser.add_argument(option, dest=variable, metavar="…", help=f"{text} ({variable})")
    parser.add_argument(
        "--maintenance-in",
        type=_seconds,
        metavar="SECONDS",
        help="tell the node that runs already: give consumers notice, and be free after so long",
    )
    parser.add_argument(
        "--set-rate", type=_rate, metavar="QU", help="tell it what one device costs for an hour from now on"
    )
    parser.add_argument(
        "--drain",
        action="store_true",
        help="tell it to take nothing more, finish what runs and stop; rentals end after --maintenance-in or"
        f" {DRAIN_S} seconds",
    )
    parser.add_argument("--maintenance-off", action="store_true", help="tell it to take work again")
    parser.add_argument("--why", default="", metavar="TEXT", help="what consumers are told about the maintenance")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= MAINTENANCE_S_MAX:
        raise argparse.ArgumentTypeError(f"give 0 to {MAINTENANCE_S_MAX} seconds")
    return value


def _rate(text: str) -> int:
    value = int(text)
    if not 0 <= value <= RATE_QU_PER_H_MAX:
        raise argparse.ArgumentTypeError(f"give 0 to {RATE_QU_PER_H_MAX} QU")
    return value


def _set_rate(settings: Settings, rate_qu_per_h: int) -> int:
    try:
        price.announce(settings.node_dir, rate_qu_per_h, settings.rate_qu_per_h)
    except Fatal as problem:
        print(f"qubix node: {problem}", file=sys.stderr)
        return EXIT_FATAL
    print(f"The node asks {rate_qu_per_h} QU an hour; what runs or is rented keeps its price.")
    return 0


def _maintenance(settings: Settings, given: argparse.Namespace) -> int:
    try:
        if given.maintenance_off:
            maintenance.call_off(settings.node_dir)
            print("The node takes work again.")
        elif given.drain:
            after_s = DRAIN_S if given.maintenance_in is None else given.maintenance_in
            ends_ms = maintenance.announce(settings.node_dir, after_s, given.why, leave=True)
            print(
                "Nothing new is begun; the node stops when its jobs are finished. What is rented ends at"
                f" {time.ctime(ends_ms / 1000)}."
            )
        else:
            ends_ms = maintenance.announce(settings.node_dir, given.maintenance_in, given.why)
            print(f"Consumers are told. Nothing new is begun; free at {time.ctime(ends_ms / 1000)}.")
    except Fatal as problem:
        print(f"qubix node: {problem}", file=sys.stderr)
        return EXIT_FATAL
    return 0


def _fatals(error: BaseException) -> Iterator[Fatal | WorkerLost]:
    if isinstance(error, Fatal | WorkerLost):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _fatals(inner)


if __name__ == "__main__":
    sys.exit(main())
