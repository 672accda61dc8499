# SPDX-License-Identifier: Apache-2.0
"""A coordinator that is killed in the middle of a migration leaves whole steps behind, and the next one goes on."""

import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from qubix_coordinator.db.database import plain_connection
from qubix_coordinator.db.migrations import STEPS
from tests.db.test_http_process import start
from tests.support_pg import PgServer, clean_environment, drop_database, fresh_database

STOP_S = 30
STUCK = "jobs/schema.sql"
"""The step in the middle of which it stands: somebody else is just making a table of the same name."""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.mark.asyncio
async def test_a_coordinator_killed_in_the_middle_of_a_migration_is_followed_by_one_that_ends_it(
    pg_server: PgServer, tmp_path: Path
) -> None:
    dsn = await fresh_database(pg_server, migrated=False)
    watcher = await plain_connection(dsn)
    holder = await plain_connection(dsn)
    try:
        held = holder.transaction()
        await held.start()
        await holder.execute("CREATE TABLE job_input ()")
        await _kill_one_that_waits(dsn, tmp_path, watcher)
        assert await _applied(watcher) == list(STEPS[: STEPS.index(STUCK)])
        assert await watcher.fetchval("SELECT to_regclass('job')") is None, "nothing of the step is there"
        await held.rollback()
        process, ready = start(DATABASE_URL=dsn, QUBIX_DATA_DIR=str(tmp_path))
        process.terminate()
        assert process.wait(STOP_S) == 0
        assert ready["network"] == "devnet"
        assert await _applied(watcher) == list(STEPS)
    finally:
        await watcher.close(timeout=5)
        await holder.close(timeout=5)
        await drop_database(pg_server, dsn)


async def _kill_one_that_waits(dsn: str, folder: Path, watcher: asyncpg.Connection) -> None:
    process = _begin(dsn, folder)
    try:
        while not await watcher.fetchval(WAITING):
            assert process.poll() is None, "it ended before it came to the step"
    finally:
        process.kill()
        process.wait(STOP_S)


def _begin(dsn: str, folder: Path) -> "subprocess.Popen[bytes]":
    env = clean_environment(DATABASE_URL=dsn, QUBIX_DATA_DIR=str(folder), QUBIX_HTTP_PORT="0")
    return subprocess.Popen([sys.executable, "-m", "qubix_coordinator"], env=env, stderr=subprocess.DEVNULL)


async def _applied(watcher: asyncpg.Connection) -> list[str]:
    return [row["step"] for row in await watcher.fetch("SELECT step FROM migration ORDER BY applied_at")]
