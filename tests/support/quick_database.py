# SPDX-License-Identifier: Apache-2.0
"""The embedded PostgreSQL for tests: `python -m tests.support.quick_database`, otherwise as the product runs it.

It waits for no disk. And it analyses and vacuums nothing by itself: a transaction of that kind, in whatever database of
the server, holds every outbox back for as long as it lasts, so that a test which reads at once would sometimes find
nothing.
"""

from pathlib import Path

from qubix_coordinator.db import embedded
from qubix_coordinator.db.database import plain_connection


class QuickServer(embedded.Server):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, durable=False)

    async def start(self) -> None:
        await super().start()
        connection = await plain_connection(self.dsn)
        try:
            await connection.execute("ALTER SYSTEM SET autovacuum = off")
            await connection.execute("SELECT pg_reload_conf()")
        finally:
            await connection.close(timeout=5)


if __name__ == "__main__":
    embedded.Server = QuickServer  # type: ignore[misc, assignment]
    raise SystemExit(embedded.main())
