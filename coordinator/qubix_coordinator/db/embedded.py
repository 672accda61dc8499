# SPDX-License-Identifier: Apache-2.0
"""Our own PostgreSQL: `python -m qubix_coordinator.db.embedded` runs one in the foreground until SIGTERM or SIGINT.

It listens on a Unix socket alone, in a folder that only its user can enter, and dies with its supervisor. `running`
does the same inside an `async with`.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import hashlib
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qubix_coordinator import logs
from qubix_coordinator.db import failures
from qubix_coordinator.db.binaries import User, programs, require_reach, user_for
from qubix_coordinator.db.database import plain_connection
from qubix_coordinator.errors import Conflict, Fault, QubixError
from qubix_coordinator.settings import Settings, from_environment_or_exit
from qubix_protocol import usage

log = logging.getLogger(__name__)
DATABASE = "qubix"
SOCKET_FILE = ".s.PGSQL.5432"
SOCKET_PATH_MAX = 107
START_S = 60.0
# After kill -9 the old server's backends keep its memory for a moment, and a new one refuses to start.
RETRY_S = 10.0
STOP_FAST_S = 3.0
STOP_HARD_S = 2.0
LOG_BYTES_MAX = 10_000_000
PR_SET_PDEATHSIG = 1
STILL_THERE = ("already exists", "still in use", "still running")


class AlreadyRunning(Conflict):
    """Another process runs a server on this data folder."""


def socket_dir(folder: Path) -> Path:
    """In the data folder, or under the system's temporary folder when that path is too long for a socket."""
    near = folder.absolute() / "socket"
    if len(os.fsencode(near / SOCKET_FILE)) <= SOCKET_PATH_MAX:
        return near
    name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"qubix-{name}"


def dsn_of(folder: Path, database: str = DATABASE) -> str:
    """The address of the server of this folder, whether it runs or not."""
    return f"postgresql://postgres@/{database}?host={quote(str(socket_dir(folder)), safe='/')}"


class Server:
    """One PostgreSQL on `folder` (its parent folders exist or can be made). `durable=False` is for tests alone."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self.dsn = dsn_of(self.folder)
        self._durable = durable
        self._process: asyncio.subprocess.Process | None = None
        self._lock_fd: int | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Returns once it takes connections and the database exists. Raises AlreadyRunning, Fault."""
        self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._lock_fd = _locked(self.folder / "lock")
        try:
            user = user_for(self.data)
            require_reach(user, self.folder)
            bin_dir = programs(user)
            _private_dir(socket_dir(self.folder), user)
            await self._initialise(bin_dir, user)
            await self._start_until_ready(bin_dir, user)
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> int:
        """The exit status, once the server has ended by itself or by `stop`."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Ends every session and the server. Idempotent; also when cancelled."""
        process, self._process = self._process, None
        if process is not None:
            await asyncio.shield(_end(process))
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    async def _initialise(self, bin_dir: Path, user: User) -> None:
        if self.data.exists():
            return
        # Made beside and renamed, so that an interrupted first start leaves nothing that looks like data.
        fresh = Path(tempfile.mkdtemp(prefix="data-new-", dir=self.folder))
        user.own(fresh)
        command = [str(bin_dir / "initdb"), "-D", str(fresh), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        command += ["--locale=C", *(() if self._durable else ("--no-sync",))]
        process = await asyncio.create_subprocess_exec(
            *command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **_arguments(user)
        )
        async with asyncio.timeout(START_S):
            output, _ = await process.communicate()
        if process.returncode != 0:
            raise Fault(
                f"initdb failed: {output.decode(errors='replace')[-500:]}", remedy="Free space in the data folder"
            )
        os.rename(fresh, self.data)

    async def _start_until_ready(self, bin_dir: Path, user: User) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + RETRY_S
        while True:
            self._process = await self._spawn(bin_dir, user)
            if await self._ready():
                break
            said = self._log_tail()
            if loop.time() > deadline_s or not any(words in said for words in STILL_THERE):
                raise Fault(f"PostgreSQL did not start: {said[-500:]}", remedy=f"Read {self.folder / 'log'}")
            log.info("db.start_again", extra={"folder": str(self.folder)})
            await asyncio.sleep(0.2)

    async def _spawn(self, bin_dir: Path, user: User) -> asyncio.subprocess.Process:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(socket_dir(self.folder)),
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            "shared_buffers": "256MB",
            "max_wal_size": "256MB",
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "synchronous_commit": "on",
            "fsync": "on" if self._durable else "off",
            "full_page_writes": "on" if self._durable else "off",
        }
        flags = [part for name, chosen in options.items() for part in ("-c", f"{name}={chosen}")]
        with _log_file(self.folder / "log") as sink:
            return await asyncio.create_subprocess_exec(
                str(bin_dir / "postgres"),
                "-D",
                str(self.data),
                *flags,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                # A group of its own: Ctrl-C in a terminal reaches the supervisor, which ends the server in order.
                start_new_session=True,
                preexec_fn=_die_with_parent(),
                **_arguments(user),
            )

    async def _ready(self) -> bool:
        """False when the server ended instead."""
        assert self._process is not None
        for _ in range(round(START_S / 0.02)):
            if self._process.returncode is not None:
                return False
            try:
                await _ensure_database(dsn_of(self.folder, "postgres"))
            except Exception as problem:
                if not failures.is_starting(problem):
                    raise
                await asyncio.sleep(0.02)
            else:
                return True
        raise Fault(f"PostgreSQL was not ready within {START_S:g} s", remedy=f"Read {self.folder / 'log'}")

    def _log_tail(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]


@contextlib.asynccontextmanager
async def running(folder: Path, *, durable: bool = True) -> AsyncIterator[Server]:
    """A server on `folder` for the length of the block."""
    server = Server(folder, durable=durable)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def _arguments(user: User) -> dict[str, Any]:
    # PostgreSQL takes connection defaults from PG*, and refuses a locale that the machine lacks.
    return {**user.start_arguments(), "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}}


def _locked(path: Path) -> int:
    """Held for the life of the supervisor, and released by the system when it is killed."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 20).decode(errors="replace") or "unknown"
        os.close(fd)
        raise AlreadyRunning(
            f"a database is already running on {path.parent} (process {holder})",
            remedy="Use it, stop it, or choose another QUBIX_DATA_DIR",
        ) from None
    os.truncate(fd, 0)
    os.write(fd, str(os.getpid()).encode())
    return fd


def _private_dir(path: Path, user: User) -> None:
    """Makes it 0700 and the user's. Raises Fault when somebody else's is there, as may happen in a shared /tmp."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
        user.own(path)
    found = path.lstat()
    owner = os.geteuid() if user.uid is None else user.uid
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner:
        raise Fault(f"{path} belongs to somebody else", remedy="Remove it, or choose a shorter QUBIX_DATA_DIR")
    path.chmod(0o700)


@contextlib.contextmanager
def _log_file(path: Path) -> Any:
    """Starts afresh, so that what is read after a failed start is about this one."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _die_with_parent() -> Callable[[], None] | None:
    """Linux: the kernel sends SIGINT, a fast shutdown, when the supervisor is gone, even by kill -9.

    It runs in the child after the change of user, which would clear the setting.
    """
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def set_in_child() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return set_in_child


async def _ensure_database(dsn: str) -> None:
    connection = await plain_connection(dsn)
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f'CREATE DATABASE "{DATABASE}"')
    finally:
        await connection.close(timeout=5)


async def _end(process: asyncio.subprocess.Process) -> None:
    for how, seconds in ((signal.SIGINT, STOP_FAST_S), (signal.SIGQUIT, STOP_HARD_S), (signal.SIGKILL, STOP_HARD_S)):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await process.wait()
            return


async def serve(folder: Path, ready_fd: int | None) -> int:
    """Until SIGTERM or SIGINT (0) or the server's own end (1)."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = Server(folder)
    await server.start()
    try:
        log.info("db.ready", extra={"pid": server.pid, "database_url": server.dsn})
        if ready_fd is not None:
            _announce(ready_fd, server)
        return await _first_end(server, stopped)
    finally:
        await server.stop()
        log.info("db.stopped")


async def _first_end(server: Server, stopped: asyncio.Event) -> int:
    ended, asked = asyncio.create_task(server.wait()), asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            return 0
        log.error("db.ended", extra={"status": ended.result(), "log": str(server.folder / "log")})
        return 1
    finally:
        for task in (ended, asked):
            task.cancel()
        await asyncio.gather(ended, asked, return_exceptions=True)


def _announce(fd: int, server: Server) -> None:
    line = json.dumps({"process": "database", "pid": os.getpid(), "database_url": server.dsn})
    with os.fdopen(fd, "w") as ready:
        ready.write(line + "\n")


def main() -> int:
    usage.parser("qubix database", "The data folder's own PostgreSQL, until Ctrl-C.", Settings).parse_args()
    settings = from_environment_or_exit()
    logs.configure(settings.log_level, as_json=settings.log_json)
    try:
        return asyncio.run(serve(settings.postgres_dir, settings.ready_fd))
    except QubixError as problem:
        print(f"qubix: {problem}. {problem.remedy}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
