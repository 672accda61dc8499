# SPDX-License-Identifier: Apache-2.0
"""Migrations run once whoever starts first, and a database keeps to its network and version."""

import asyncio

import pytest

from qubix_coordinator.db.database import Database, plain_connection
from qubix_coordinator.db.migrations import CREATE_TABLE, PACKAGE, STEPS, digest_of, migrate
from qubix_coordinator.errors import WrongDatabase
from tests.support_pg import PgServer, drop_database, fresh_database, settings_for

SPREAD = "jobs/schema_2_spread.sql"
OLD_JOB = (
    "INSERT INTO job (id, no, account_id, idempotency_key, body_digest, state, reason, detail, kernel, kernel_version,"
    " params, params_digest, inputs_digest, outputs, units, units_accepted, cap_qu, paid_qu, created_ms, queued_ms,"
    " match_ms, deadline_ms, ended_ms) SELECT gen_random_uuid(), no, gen_random_uuid(), 'key', digest, state, 'none',"
    " '', 'matmul', 1, '{}', digest, digest, '{}', 100, (no - 1) * 50, 10, (no / 3) * 10, 0, 0, 0, 1,"
    " CASE state WHEN 'settled' THEN 1 END FROM (SELECT sha256(''), $1::bigint, $2::text) AS one (digest, no, state)"
)
OLD_ATTEMPT = (
    "INSERT INTO attempt (id, job_id, job_no, fence, listing_id, peer_id, device_id, model, backend, state, reason,"
    " detail, rate_qu_per_h, offer_digest, ranges, units, chunk_units, forecast_ms, time_limit_ms, head, created_ms,"
    " sent_ms, due_ms) SELECT gen_random_uuid(), id, no, 1, gen_random_uuid(), 'peer', 'cpu', 'CPU', 'cpu', 'running',"
    " 'none', '', 1, params_digest, '[[0, 10], [60, 70]]', 20, 1, 1, 1, params_digest, 0, 0, 1 FROM job WHERE no = 2"
)


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
async def test_m8_a_database_keeps_its_network(database_url: str, db: Database) -> None:
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
async def test_m8_processes_of_another_network_or_before_the_migration_do_not_start(pg_server: PgServer) -> None:
    dsn = await fresh_database(pg_server, migrated=False)
    try:
        patient = settings_for(pg_server, dsn, network="test", database_wait_s=300.0)
        waiting = asyncio.create_task(Database.connect(patient, dsn))
        await asyncio.sleep(0.2)
        assert not waiting.done(), "it waits for whoever migrates"
        await migrate(dsn, "test")
        await (await waiting).close()
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


@pytest.mark.asyncio
async def test_jobs_from_before_they_could_be_spread_stay_in_one_hand(pg_server: PgServer) -> None:
    """A database in the field with a queued job, one that is running, and one that has ended."""
    dsn = await fresh_database(pg_server, migrated=False)
    try:
        connection = await plain_connection(dsn)
        await connection.execute(CREATE_TABLE)
        for step in STEPS[: STEPS.index(SPREAD)]:
            await connection.execute((PACKAGE / step).read_text())
            await connection.execute("INSERT INTO migration (step, digest) VALUES ($1, $2)", step, digest_of(step))
        await connection.execute("SET session_replication_role = replica")
        for number, state in enumerate(("queued", "running", "settled"), 1):
            await connection.execute(OLD_JOB, number, state)
        await connection.execute(OLD_ATTEMPT)
        await connection.close()

        assert SPREAD in await migrate(dsn, "devnet")
        connection = await plain_connection(dsn)
        jobs = await connection.fetch("SELECT units_waiting, hands_max, spread FROM job ORDER BY no")
        assert [tuple(row) for row in jobs] == [(100, 1, None), (30, 1, None), (0, 1, None)]
        await connection.close()
    finally:
        await drop_database(pg_server, dsn)
