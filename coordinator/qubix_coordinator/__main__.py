# SPDX-License-Identifier: Apache-2.0
"""`python -m qubix_coordinator`: the coordinator, on its own PostgreSQL unless DATABASE_URL names another."""

import asyncio
import sys

import uvloop

from qubix_coordinator import logs
from qubix_coordinator.app import serve
from qubix_coordinator.errors import QubixError
from qubix_coordinator.settings import from_environment_or_exit


def main() -> int:
    settings = from_environment_or_exit()
    logs.configure(settings.log_level, as_json=settings.log_json)
    try:
        # uvloop cannot start a process as another user, which our own PostgreSQL needs when this runs as root.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if settings.database_url else None) as runner:
            runner.run(serve(settings))
    except QubixError as problem:
        print(f"qubix: {problem}. {problem.remedy}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
