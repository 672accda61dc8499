# SPDX-License-Identifier: Apache-2.0
"""`python -m qubix_node` (`qubix node`): offer this machine's hardware to the market and run what is assigned."""

import sys
from collections.abc import Iterator, Sequence

import trio

from qubix_node import logs
from qubix_node.daemon import serve
from qubix_node.errors import Fatal, WorkerLost
from qubix_node.memory import give_back_large_blocks
from qubix_node.settings import Settings, from_environment
from qubix_protocol import usage
from qubix_protocol.settings import SettingsError

EXIT_FATAL = 1
EXIT_BAD_SETTINGS = 2
_OPTIONS = (
    ("--data-dir", "QUBIX_DATA_DIR", "folder for key, journal and cache"),
    ("--coordinator", "QUBIX_COORDINATOR_URL", "the coordinator's HTTP address"),
    ("--bootstrap", "QUBIX_BOOTSTRAP", "gateways to dial first: multiaddrs, separated by commas"),
    ("--network", "QUBIX_NETWORK", "devnet, test or main"),
    ("--devices", "QUBIX_NODE_DEVICES", "auto, gpu or cpu"),
    ("--rate", "QUBIX_NODE_RATE_QU_PER_H", "price of one device for an hour, in QU"),
    ("--region", "QUBIX_NODE_REGION", "region to offer in"),
    ("--threads", "QUBIX_NODE_THREADS", "threads of a CPU kernel"),
    ("--jobs-parallel", "QUBIX_NODE_JOBS_PARALLEL", "jobs one device runs at a time"),
    ("--log-level", "QUBIX_LOG_LEVEL", "DEBUG, INFO, WARNING or ERROR"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    try:
        settings = from_environment(_overrides(arguments))
    except SettingsError as problem:
        print(f"qubix node: {problem}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
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


def _overrides(arguments: Sequence[str] | None) -> dict[str, str]:
    summary = "Offer this machine's hardware to the market and run what is assigned, until Ctrl-C."
    parser = usage.parser("qubix node", summary, Settings)
    for option, variable, text in _OPTIONS:
        parser.add_argument(option, dest=variable, metavar="…", help=f"{text} ({variable})")
    return {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}


def _fatals(error: BaseException) -> Iterator[Fatal | WorkerLost]:
    if isinstance(error, Fatal | WorkerLost):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _fatals(inner)


if __name__ == "__main__":
    sys.exit(main())
