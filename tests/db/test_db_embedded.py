# SPDX-License-Identifier: Apache-2.0
"""The life of the embedded server: started once, killed, started again, and never left behind."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qubix_coordinator.db import binaries, embedded
from qubix_coordinator.db.database import Database, connection_arguments, plain_connection
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.settings import Settings
from tests.support_pg import clean_environment, reachable_folder, start_server

GONE_S = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    with reachable_folder() as path:
        yield path


def postmaster_pid(data_dir: Path) -> int:
    return int((data_dir / "postgres/data/postmaster.pid").read_text().splitlines()[0])


def processes_of(data_dir: Path) -> list[int]:
    """Every live process whose working folder is the server's data: the postmaster and its children."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "cwd") == str(data_dir / "postgres/data"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_until_none(data_dir: Path) -> None:
    deadline = time.monotonic() + GONE_S
    while processes_of(data_dir):
        assert time.monotonic() < deadline, f"still running: {processes_of(data_dir)}"
        time.sleep(0.05)


async def run_sql(dsn: str, *statements: str) -> object:
    connection = await plain_connection(dsn)
    try:
        return [await connection.fetchval(sql) for sql in statements][-1]
    finally:
        await connection.close()


def test_one_life(folder: Path) -> None:
    server = start_server(folder)
    dsn = str(server.ready["database_url"])
    assert server.ready["process"] == "database"
    assert server.ready["pid"] == server.process.pid
    assert asyncio.run(run_sql(dsn, "SHOW listen_addresses")) == ""
    assert asyncio.run(run_sql(dsn, "SHOW fsync")) == "on"
    socket_dir = embedded.socket_dir(folder / "postgres")
    assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700

    second = subprocess.run(
        [sys.executable, "-m", "qubix_coordinator.db.embedded"],
        env=clean_environment(QUBIX_DATA_DIR=str(folder)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert second.returncode == 1
    assert "already running" in second.stderr
    assert str(server.process.pid) in second.stderr

    assert processes_of(folder)
    assert server.stop() == 0
    wait_until_none(folder)


def test_data_survive_a_killed_postmaster(folder: Path) -> None:
    server = start_server(folder)
    dsn = str(server.ready["database_url"])
    asyncio.run(run_sql(dsn, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)"))
    os.kill(postmaster_pid(folder), signal.SIGKILL)
    assert server.process.wait(GONE_S) == 1, "the supervisor says that its server is gone"
    again = start_server(folder)
    try:
        assert asyncio.run(run_sql(dsn, "SELECT n FROM kept")) == 7
    finally:
        assert again.stop() == 0


def test_nothing_outlives_a_killed_supervisor(folder: Path) -> None:
    server = start_server(folder)
    assert processes_of(folder)
    server.process.kill()
    server.process.wait(GONE_S)
    wait_until_none(folder)
    again = start_server(folder)
    assert again.stop() == 0


@pytest.mark.asyncio
async def test_a_long_path_gets_a_short_socket(folder: Path) -> None:
    deep = folder / ("x" * 60) / ("y" * 60)
    for part in (deep.parent, deep):
        part.mkdir(mode=0o711)
    socket = embedded.socket_dir(deep / "postgres")
    try:
        async with embedded.running(deep / "postgres", durable=False) as server:
            assert len(str(socket / ".s.PGSQL.5432")) <= 107
            assert await run_sql(server.dsn, "SELECT current_database()") == "qubix"
    finally:
        socket.rmdir()


@pytest.mark.asyncio
async def test_a_bad_address_is_unavailable_with_a_remedy(folder: Path) -> None:
    nowhere = f"postgresql://postgres@/qubix?host={folder}"
    with pytest.raises(Unavailable) as refused:
        await Database.connect(Settings(data_dir=folder, database_url=nowhere, database_wait_s=0.2))
    assert "DATABASE_URL" in refused.value.remedy


def test_a_folder_out_of_reach_is_named() -> None:
    user = binaries.user_for(Path("/nonexistent"))
    with reachable_folder() as outer:
        shut = outer / "shut"
        (shut / "data").mkdir(parents=True)
        shut.chmod(0o600)
        if os.geteuid() == 0:
            with pytest.raises(binaries.Fault) as refused:
                binaries.require_reach(user, shut / "data")
            assert str(shut) in refused.value.remedy
        else:
            assert not binaries.reaches(user, shut / "data")
            shut.chmod(0o700)


def test_addresses_are_taken_apart() -> None:
    assert connection_arguments("postgresql://a%40b:s%2F@db.example:6432/market?sslmode=require") == {
        "host": "db.example",
        "port": 6432,
        "user": "a@b",
        "password": "s/",
        "database": "market",
        "ssl": "require",
    }
    local = connection_arguments(embedded.dsn_of(Path("/data/with space/pg")))
    assert (local["host"], local["user"], local["database"]) == ("/data/with space/pg/socket", "postgres", "qubix")
