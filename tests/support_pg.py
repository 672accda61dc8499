# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL for tests: one server a worker process, one fresh database a test.

The server is the product's own `qubix_coordinator.db.embedded`, as a process; that of the fixtures waits for no disk
(`tests.support.quick_database`). A conftest takes the fixtures over with
`from tests.support_pg import database_url, db, pg_server`.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from qubix_coordinator.db.database import Database, plain_connection
from qubix_coordinator.db.embedded import dsn_of
from qubix_coordinator.db.migrations import migrate
from qubix_coordinator.settings import Settings

READY_S = 60
ROOT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def reachable_folder(*, on_disk: bool = False) -> Iterator[Path]:
    """A folder that the unprivileged user of PostgreSQL can enter, unlike pytest's own; removed at the end. In memory
    where there is room: a database is 600 files, which a disk's file system makes ten times more slowly. What is
    measured belongs on a disk."""
    in_memory = not on_disk and _has_room(MEMORY)
    if in_memory:
        _remove_what_was_left(MEMORY)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=MEMORY if in_memory else None))
    folder.chmod(0o711)
    alive = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(alive, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(alive)


PREFIX = "qubix-test-"
MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 * 1024**3
LEFT_S = 60


def _has_room(parent: Path) -> bool:
    return os.access(parent, os.W_OK) and shutil.disk_usage(parent).free >= ROOM_BYTES


def _remove_what_was_left(parent: Path) -> None:
    """By tests that were killed: nobody holds it any more, and it was not made just now."""
    for left in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - left.stat().st_mtime > LEFT_S:
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(handle)


def clean_environment(**more: str) -> dict[str, str]:
    """What a process of ours gets, without the settings of whoever runs the tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("QUBIX_", "PG")) and k != "DATABASE_URL"}
    return kept | more


@dataclass
class PgServer:
    """The supervisor process and what it said when ready."""

    data_dir: Path
    process: "subprocess.Popen[bytes]"
    ready: dict[str, object]
    templates: dict[str, str] = field(default_factory=dict)

    def dsn(self, database: str) -> str:
        return dsn_of(self.data_dir / "postgres", database)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


def start_server(data_dir: Path, *, module: str = "qubix_coordinator.db.embedded") -> PgServer:
    read_fd, write_fd = os.pipe()
    command = [sys.executable, "-m", module]
    env = clean_environment(QUBIX_DATA_DIR=str(data_dir), QUBIX_READY_FD=str(write_fd), QUBIX_LOG_LEVEL="WARNING")
    process = subprocess.Popen(command, env=env, pass_fds=(write_fd,), cwd=ROOT)
    os.close(write_fd)
    with os.fdopen(read_fd) as pipe:
        line = pipe.readline()
    if not line:
        raise RuntimeError(f"the database ended with status {process.wait(READY_S)} before it was ready")
    return PgServer(data_dir, process, json.loads(line))


async def template_of(server: PgServer, network: str) -> str:
    """A migrated database that nobody connects to, so that copies can be made of it."""
    if network not in server.templates:
        name = f"template_{network}"
        await _admin(server, f'CREATE DATABASE "{name}"')
        await migrate(server.dsn(name), network)
        server.templates[network] = name
    return server.templates[network]


async def fresh_database(server: PgServer, network: str = "devnet", *, migrated: bool = True) -> str:
    """The address of a new database of this network."""
    name = f"test_{uuid.uuid4().hex}"
    template = await template_of(server, network) if migrated else "template1"
    # By files where that is quick: on a disk it waits for two checkpoints.
    how = "FILE_COPY" if server.data_dir.is_relative_to(MEMORY) else "WAL_LOG"
    await _admin(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY {how}')
    return server.dsn(name)


async def drop_database(server: PgServer, dsn: str) -> None:
    name = dsn.partition("@/")[2].partition("?")[0]
    await _admin(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def _admin(server: PgServer, sql: str) -> None:
    connection = await plain_connection(server.dsn("postgres"))
    try:
        await connection.execute(sql)
    finally:
        await connection.close(timeout=5)


def settings_for(server: PgServer, dsn: str, **more: object) -> Settings:
    values: dict[str, object] = {"data_dir": server.data_dir, "database_url": dsn, "database_pool_max": 24}
    return Settings(**(values | more))  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def connected(server: PgServer, network: str = "devnet", **more: object) -> AsyncIterator[Database]:
    """A connected fresh database, dropped at the end."""
    dsn = await fresh_database(server, network)
    database = await Database.connect(settings_for(server, dsn, network=network, **more), dsn)
    try:
        yield database
    finally:
        await database.close()
        await drop_database(server, dsn)


@pytest.fixture(scope="session")
def pg_server() -> Iterator[PgServer]:
    with reachable_folder() as folder:
        server = start_server(folder, module="tests.support.quick_database")
        try:
            yield server
        finally:
            server.stop()


@pytest_asyncio.fixture
async def database_url(pg_server: PgServer) -> AsyncIterator[str]:
    """A fresh migrated devnet database; nobody is connected to it yet."""
    dsn = await fresh_database(pg_server)
    try:
        yield dsn
    finally:
        await drop_database(pg_server, dsn)


@pytest_asyncio.fixture
async def db(pg_server: PgServer) -> AsyncIterator[Database]:
    async with connected(pg_server) as database:
        yield database
