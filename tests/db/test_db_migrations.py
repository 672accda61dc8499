# SPDX-License-Identifier: Apache-2.0
"""Migrations run once whoever starts first, and a database keeps to its network and version."""

import asyncio

import pytest

from qubix_coordinator.db.database import Database, plain_connection
from qubix_coordinator.db.migrations import PACKAGE, STEPS, digest_of, migrate
from qubix_coordinator.errors import WrongDatabase
from tests.support_pg import PgServer, drop_database, fresh_database, settings_for


@pytest.mark.asyncio
async def test_replicas_that_start_together_migrate_once(pg_server: PgServer) -> None:
    dsn = await fresh_database(pg_server, migrated=False)
    try:
        ran = await asyncio.gather(*(migrate(dsn, "test") for _ in range(3)))
        present = [step for step in STEPS if (PACKAGE / step).exists()]
        assert sorted(ran, key=len) == [[], [], present]
    finally:
        await drop_database(pg_server, dsn)


@pytest.mark.asyncio
async def test_a_database_keeps_its_network(database_url: str, db: Database) -> None:
    assert await migrate(database_url, "devnet") == []
    for other in ("test", "main"):
        with pytest.raises(WrongDatabase, match="devnet") as refused:
            await migrate(database_url, other)
        assert "QUBIX_NETWORK=devnet" in refused.value.remedy
    for sql in ("UPDATE network SET name = 'main'", "DELETE FROM network", "TRUNCATE network CASCADE"):
        with pytest.raises(Exception, match="append-only"):
            await db.fetch(sql)
    with pytest.raises(Exception, match="network_pkey"):
        await db.fetch("INSERT INTO network (name) VALUES ('main')")


@pytest.mark.asyncio
async def test_processes_of_another_network_or_before_the_migration_do_not_start(pg_server: PgServer) -> None:
    dsn = await fresh_database(pg_server, migrated=False)
    try:
        waiting = asyncio.create_task(Database.connect(settings_for(pg_server, dsn, network="test"), dsn))
        await asyncio.sleep(0.2)
        assert not waiting.done(), "it waits for whoever migrates"
        await migrate(dsn, "test")
        await (await asyncio.wait_for(waiting, 30)).close()
        with pytest.raises(WrongDatabase, match="test"):
            await Database.connect(settings_for(pg_server, dsn, network="main"), dsn)
    finally:
        await drop_database(pg_server, dsn)


@pytest.mark.asyncio
async def test_an_edited_or_unknown_migration_is_refused(database_url: str) -> None:
    connection = await plain_connection(database_url)
    try:
        await connection.execute("UPDATE migration SET digest = 'x' WHERE step = 'ledger/schema.sql'")
        with pytest.raises(WrongDatabase, match="not the one"):
            await migrate(database_url, "devnet")
        await connection.execute("UPDATE migration SET digest = $1 WHERE digest = 'x'", digest_of("ledger/schema.sql"))
        await connection.execute("INSERT INTO migration (step, digest) VALUES ('ledger/0099.sql', 'x')")
        with pytest.raises(WrongDatabase, match="0099"):
            await migrate(database_url, "devnet")
    finally:
        await connection.close()
