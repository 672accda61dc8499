# SPDX-License-Identifier: Apache-2.0
"""`python -m qubix_coordinator`: the coordinator, on its own PostgreSQL unless DATABASE_URL names another."""

import asyncio
import sys

import uvloop

from qubix_coordinator import logs
from qubix_coordinator.app import serve
from qubix_coordinator.errors import QubixError, told
from qubix_coordinator.settings import Settings, from_environment_or_exit
from qubix_coordinator.signals import stopped_while_starting
from qubix_protocol import usage


def main() -> int:
    summary = "The market itself: jobs, ledger, HTTP API and live feed, until Ctrl-C."
    usage.parser("qubix coordinator", summary, Settings).parse_args()
    settings = from_environment_or_exit()
    logs.configure(settings.log_level, as_json=settings.log_json)
    status = 0
    try:
        # uvloop cannot start a process as another user, which our own PostgreSQL needs when this runs as root.
        loop = uvloop.new_event_loop if settings.database_url else None
        with stopped_while_starting(), asyncio.Runner(loop_factory=loop) as runner:
            runner.run(serve(settings))
    except* QubixError as problems:
        for line in told(problems):
            print(f"qubix: {line}", file=sys.stderr)
        status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
