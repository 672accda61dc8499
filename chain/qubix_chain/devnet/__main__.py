# SPDX-License-Identifier: Apache-2.0
"""`python -m qubix_chain.devnet`: 0 after a signal, 1 when it cannot run, 2 for settings or arguments of no use."""

import asyncio
import sqlite3
import sys
from typing import Final

from qubix_chain.devnet import logs
from qubix_chain.devnet.app import serve
from qubix_chain.devnet.errors import CannotStart
from qubix_chain.devnet.settings import Settings, from_environment
from qubix_protocol import usage
from qubix_protocol.settings import SettingsError

FAILED: Final = 1
BAD_SETTINGS: Final = 2


def main() -> int:
    summary = "A Qubic network of one machine, for development: play money, a faucet, faults on demand; until Ctrl-C."
    usage.parser("qubix devnet", summary, Settings).parse_args()
    try:
        settings = from_environment()
    except SettingsError as problem:
        print(f"qubix: {problem}", file=sys.stderr)
        return BAD_SETTINGS
    logs.configure(settings.log_level)
    status = 0
    try:
        asyncio.run(serve(settings))
    except* (CannotStart, sqlite3.Error) as problems:
        for one in problems.exceptions:
            print(f"qubix: devnet: {one}", file=sys.stderr)
        status = FAILED
    return status


if __name__ == "__main__":
    sys.exit(main())
