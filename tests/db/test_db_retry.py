# SPDX-License-Identifier: Apache-2.0
"""Transactions that fail through no fault of their own are repeated, logged, and bounded."""

import asyncio
import logging
import uuid

import asyncpg
import pytest

from qubix_coordinator.db.database import ATTEMPTS_MAX, Database, Tx, backoff_s, execute, one, value
from qubix_coordinator.errors import Unavailable
from tests.support_pg import PgServer, connected, fresh_database, reachable_folder, settings_for, start_server


def retries(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(r)["problem"] for r in caplog.records if r.getMessage() == "db.retry"]


async def add_account(tx: Tx, account_id: uuid.UUID) -> None:
    await execute(tx, "INSERT INTO account (id, kind, name) VALUES ($1, 'user', 'n')", account_id)


async def names(db: Database) -> int:
    return int(await db.fetch_value("SELECT count(*) FROM account"))


@pytest.mark.asyncio
async def test_a_lost_connection_is_retried(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    tries = 0

    async def step(tx: Tx) -> int:
        nonlocal tries
        tries += 1
        await add_account(tx, uuid.uuid4())
        if tries == 1:
            mine = await value(tx, "SELECT pg_backend_pid()")
            await db.fetch("SELECT pg_terminate_backend($1)", mine)
            await asyncio.sleep(0.05)
            await one(tx, "SELECT 1")
        return tries

    assert await db.run(step) == 2
    assert len(retries(caplog)) == 1
    assert await names(db) == 1, "what the lost transaction wrote is not there"


@pytest.mark.asyncio
async def test_a_connection_lost_under_a_running_statement_is_retried(db: Database) -> None:
    started: asyncio.Queue[int] = asyncio.Queue()

    async def step(tx: Tx) -> str:
        if started.qsize() == 0 and not killed.is_set():
            started.put_nowait(await value(tx, "SELECT pg_backend_pid()"))
            await one(tx, "SELECT pg_sleep(5)")
        return "done"

    killed = asyncio.Event()
    task = asyncio.create_task(db.run(step))
    pid = await started.get()
    killed.set()
    await db.fetch("SELECT pg_terminate_backend($1)", pid)
    assert await asyncio.wait_for(task, 30) == "done"


@pytest.mark.asyncio
async def test_both_sides_of_a_deadlock_finish(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    first, second = uuid.uuid4(), uuid.uuid4()
    async with db.transaction() as tx:
        await add_account(tx, first)
        await add_account(tx, second)
    gate = asyncio.Barrier(2)

    async def both(order: tuple[uuid.UUID, uuid.UUID]) -> None:
        crossed = False

        async def step(tx: Tx) -> None:
            nonlocal crossed
            await execute(tx, "UPDATE account SET name = name || 'x' WHERE id = $1", order[0])
            if not crossed:
                crossed = True
                await gate.wait()
            await execute(tx, "UPDATE account SET name = name || 'x' WHERE id = $1", order[1])

        await db.run(step)

    await asyncio.gather(both((first, second)), both((second, first)))
    assert "DeadlockDetectedError" in retries(caplog)
    assert await db.fetch_value("SELECT count(*) FROM account WHERE name = 'nxx'") == 2


@pytest.mark.asyncio
async def test_a_serialisation_failure_is_retried(db: Database) -> None:
    shared = uuid.uuid4()
    await db.run(lambda tx: add_account(tx, shared))

    async def append(tx: Tx) -> None:
        name = await value(tx, "SELECT name FROM account WHERE id = $1", shared)
        await execute(tx, "UPDATE account SET name = $2 WHERE id = $1", shared, name + "x")

    await asyncio.gather(*(db.run(append, "serializable") for _ in range(3)))
    assert await db.fetch_value("SELECT name FROM account WHERE id = $1", shared) == "nxxx"


@pytest.mark.asyncio
async def test_retries_are_bounded(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    async def step(tx: Tx) -> None:
        await execute(tx, "DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$")

    with pytest.raises(Unavailable):
        await db.run(step)
    assert len(retries(caplog)) == ATTEMPTS_MAX - 1


@pytest.mark.asyncio
async def test_other_failures_are_not_retried(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    async def step(tx: Tx) -> None:
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        await db.run(step)
    with pytest.raises(Exception, match="division by zero"):
        await db.run(lambda tx: one(tx, "SELECT 1/0"))
    assert not retries(caplog)


@pytest.mark.asyncio
async def test_statements_are_bounded_in_time(pg_server: PgServer) -> None:
    tries = 0

    async def sleep(tx: Tx) -> None:
        nonlocal tries
        tries += 1
        await one(tx, "SELECT pg_sleep(30)")

    async with connected(pg_server, statement_timeout_s=0.5) as db:
        with pytest.raises(Unavailable) as refused:
            await db.run(sleep)
        assert "statement timeout" in str(refused.value.__cause__)
        assert tries == 1, "what is too slow is not tried again at once"
        assert await db.fetch_value("SHOW synchronous_commit") == "on"


@pytest.mark.asyncio
@pytest.mark.parametrize("anew", [False, True])
async def test_a_cancelled_transaction_rolls_back_and_gives_its_connection_back(
    pg_server: PgServer, anew: bool
) -> None:
    async with connected(pg_server, database_pool_max=2) as db:
        for _ in range(4):
            inside = asyncio.Event()

            async def hang(inside: asyncio.Event = inside) -> None:
                async with db.transaction(anew=anew) as tx:
                    await add_account(tx, uuid.uuid4())
                    inside.set()
                    await asyncio.sleep(60)

            task = asyncio.create_task(hang())
            await inside.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert await names(db) == 0


@pytest.mark.asyncio
async def test_a_transaction_that_plans_anew_does_so_alone_and_is_one_like_others(pg_server: PgServer) -> None:
    asked = ("transaction_isolation", "transaction_read_only", "plan_cache_mode")

    async def told(tx: Tx) -> list[str]:
        return [str(await value(tx, f"SHOW {name}")) for name in asked]

    async def fail(db: Database) -> None:
        async with db.transaction(anew=True) as tx:
            await add_account(tx, uuid.uuid4())
            await tx._connection.execute("SELECT 1 / 0")

    async with connected(pg_server, database_pool_max=1) as db:
        async with db.transaction("repeatable_read", readonly=True, anew=True) as tx:
            assert await told(tx) == ["repeatable read", "on", "force_custom_plan"]
        async with db.transaction(anew=True) as tx:
            assert await told(tx) == ["read committed", "off", "force_custom_plan"]
            await add_account(tx, uuid.uuid4())
        with pytest.raises(asyncpg.DivisionByZeroError):
            await fail(db)
        async with db.transaction() as tx:
            assert await told(tx) == ["read committed", "off", "auto"]
        assert await names(db) == 1


def test_backoff_grows_with_full_jitter_and_a_bound() -> None:
    assert [round(backoff_s(n, lambda: 1.0), 3) for n in range(8)] == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]
    assert backoff_s(5, lambda: 0.0) == 0.0


@pytest.mark.asyncio
async def test_an_outage_is_told_once_and_everybody_who_waits_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    def told(event: str) -> int:
        return sum(record.getMessage() == event for record in caplog.records)

    with reachable_folder() as folder:
        server = start_server(folder)
        database = await Database.connect(settings_for(server, dsn := await fresh_database(server)), dsn)
        try:
            server.stop()
            for _ in range(3):
                with pytest.raises(Unavailable):
                    await database.fetch("SELECT 1")
            waiting = [asyncio.create_task(database.until_back()) for _ in range(20)]
            await asyncio.sleep(0.5)
            assert not any(task.done() for task in waiting)
            assert (told("db.away"), told("db.back")) == (1, 0)
            server = start_server(folder)
            await asyncio.wait_for(asyncio.gather(*waiting), 30)
            assert (told("db.away"), told("db.back")) == (1, 1)
            assert await database.fetch_value("SELECT 1") == 1
        finally:
            await database.close()
            server.stop()


@pytest.mark.asyncio
async def test_a_task_that_is_cancelled_as_its_connection_dies_ends(db: Database) -> None:
    """The failing rollback must not hide the cancellation: the task would try again, and nobody could end it."""
    task: asyncio.Task[None]

    async def step(tx: Tx) -> None:
        mine = await value(tx, "SELECT pg_backend_pid()")
        await db.fetch("SELECT pg_terminate_backend($1)", mine)
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.sleep(0)

    task = asyncio.create_task(db.run(step))
    await asyncio.wait({task}, timeout=30)
    assert task.cancelled()
