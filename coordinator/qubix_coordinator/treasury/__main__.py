# SPDX-License-Identifier: Apache-2.0
"""`python -m qubix_coordinator.treasury`: watches deposits and pays withdrawals, until Ctrl-C."""

import asyncio
import logging
import sys

from qubix_coordinator import logs
from qubix_coordinator.errors import QubixError, told
from qubix_coordinator.signals import stopped_while_starting
from qubix_coordinator.treasury.process import serve
from qubix_coordinator.treasury.settings import ChainSettings, from_environment_or_exit
from qubix_protocol import usage


def main() -> int:
    summary = "Watches deposits on the Qubic network and pays withdrawals, until Ctrl-C. Holds the keys to all QU."
    usage.parser("qubix chain", summary, ChainSettings).parse_args()
    settings = from_environment_or_exit()
    logs.configure(settings.log_level, as_json=settings.log_json)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request, many a second
    status = 0
    try:
        with stopped_while_starting():
            asyncio.run(serve(settings))
    except* QubixError as problems:
        for line in told(problems):
            print(f"qubix: {line}", file=sys.stderr)
        status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
