# SPDX-License-Identifier: Apache-2.0
"""Connections and transactions.

A service takes the transaction as its first argument and passes it on; nothing looks one up behind its back:

    async with db.transaction() as tx:
        row = await one(tx, "SELECT … WHERE id = $1", job_id)
        await Account.filter(id=owner).using_db(tx)

`db.run(step)` does the same and repeats `step(tx)` in a new transaction after a deadlock, a serialisation failure or a
lost connection. A database that stays away is `Unavailable`; a task that lives on is `db.every(…)`, or waits for it
with `db.until_back()`.

A connection can be lost after the commit reached the server, so a step must be safe to repeat: ids and
unique keys derived from the cause, never from a counter.
"""

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Literal, NoReturn, TypeAlias, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
from tortoise.context import TortoiseContext, _current_context

from qubix_coordinator.db import failures
from qubix_coordinator.db.models import table_modules
from qubix_coordinator.db.outage import Outage
from qubix_coordinator.errors import Unavailable, WrongDatabase
from qubix_coordinator.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")
Row: TypeAlias = dict[str, Any]
Tx: TypeAlias = TransactionWrapper
Isolation: TypeAlias = Literal["read_committed", "repeatable_read", "serializable"]
ATTEMPTS_MAX = 6
BACKOFF_FIRST_S = 0.02
BACKOFF_MAX_S = 1.0
ACQUIRE_S = 10.0
REPEAT_S = 20.0
"""No repeat starts later than this after the first try."""
PROBE_FIRST_S = 0.1
PROBE_MAX_S = 2.0
CLOSE_S = 5.0


async def rows(tx: Tx, sql: str, *args: object) -> list[Row]:
    found: list[Row] = await tx.execute_query_dict(sql, list(args))
    return found


async def one(tx: Tx, sql: str, *args: object) -> Row | None:
    found = await rows(tx, sql, *args)
    return found[0] if found else None


async def value(tx: Tx, sql: str, *args: object) -> Any:
    """The first column of the first row, or None."""
    found = await one(tx, sql, *args)
    return next(iter(found.values())) if found else None


async def execute(tx: Tx, sql: str, *args: object) -> int:
    """Rows affected by an UPDATE or a DELETE; an INSERT tells 0. For a statement with RETURNING use `rows`."""
    affected, _ = await tx.execute_query(sql, list(args))
    return int(affected)


def backoff_s(attempt: int, draw: Callable[[], float]) -> float:
    """Exponential with full jitter; `draw` gives [0, 1)."""
    return float(min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2**attempt) * draw())


class Database:
    """The pool of one process. Make it with `connect`, before serving: Tortoise's models find it by their context."""

    def __init__(self, context: TortoiseContext, client: AsyncpgDBClient, dsn: str) -> None:
        self.dsn = dsn
        self._context = context
        self._client = client
        self._random = random.SystemRandom()
        self._outage = Outage()
        self._asking = asyncio.Lock()

    @classmethod
    async def connect(cls, settings: Settings, dsn: str = "") -> "Database":
        """Waits up to `database_wait_s` for a server that starts or a database that is being migrated.

        Raises Unavailable after that, and WrongDatabase for one of another network. Without `dsn` and without
        `settings.database_url`, the embedded server of the data folder is used; it must run.
        """
        address = dsn or settings.database_url or embedded_dsn(settings)
        return await until_reachable(lambda: cls._open(settings, address), settings.database_wait_s)

    @classmethod
    async def _open(cls, settings: Settings, dsn: str) -> "Database":
        context = TortoiseContext()
        with _active(context):
            await context.init(config=_config(settings, dsn))
        client = context.connections.get("default")
        assert isinstance(client, AsyncpgDBClient)
        db = cls(context, client, dsn)
        try:
            await client.create_connection(with_db=True)
            async with db.transaction() as tx:
                await _check_network(tx, settings.network)
        except BaseException:
            await db.close()
            raise
        return db

    async def close(self) -> None:
        """Connections still in use after CLOSE_S are ended."""
        pool = self._client._pool
        if pool is not None:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await pool.close()
            except TimeoutError:
                pool.terminate()
            self._client._pool = None
        await self._context.connections.close_all()

    @contextlib.asynccontextmanager
    async def transaction(
        self, isolation: Isolation = "read_committed", *, readonly: bool = False, anew: bool = False
    ) -> AsyncIterator[Tx]:
        """Commits when the block ends, rolls back when it raises (also when cancelled). `anew`: each statement is
        planned for its own values, never by a plan for all alike."""
        pool = self._client._pool
        if pool is None:
            raise Unavailable("the database is closed", remedy="Try again once the process has started again")
        connection = await _acquired(pool)
        try:
            tx = TransactionWrapper(self._client)
            tx._connection = connection
            begun = _planned_anew if anew else _plain
            async with begun(connection, isolation, readonly):
                self._outage.end()
                with _active(self._context):
                    yield tx
        finally:
            await pool.release(connection, timeout=ACQUIRE_S)

    async def run(self, step: Callable[[Tx], Awaitable[T]], isolation: Isolation = "read_committed") -> T:
        """`step` in a transaction, repeated a bounded number of times after failures that a repeat can cure.

        Raises Unavailable after that; while the database is known to be away, after a single try.
        """
        last_try_s = asyncio.get_running_loop().time() + REPEAT_S
        for attempt in range(ATTEMPTS_MAX):
            try:
                async with self.transaction(isolation) as tx:
                    return await step(tx)
            except failures.MAY_PASS as problem:
                if not failures.is_transient(problem):
                    raise
                await self._pause(attempt, problem, last_try_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def until_back(self) -> None:
        """Returns when the database answers, after a pause in any case; for a task that met Unavailable and lives on.

        All who wait share one who asks.
        """
        await asyncio.sleep(PROBE_FIRST_S)
        async with self._asking:
            pause_s = PROBE_FIRST_S
            while self._outage.lasts:
                with contextlib.suppress(Unavailable):
                    await self.fetch_value("SELECT true")
                    return
                await asyncio.sleep(pause_s * (0.5 + self._random.random() / 2))
                pause_s = min(PROBE_MAX_S, pause_s * 2)

    async def every(self, seconds: float, step: Callable[[], Awaitable[object]]) -> NoReturn:
        """`step` again and again with a pause between, until cancelled. A database that is away is waited for."""
        while True:
            try:
                await step()
            except Unavailable:
                await self.until_back()
            await asyncio.sleep(seconds)

    async def _pause(self, attempt: int, problem: BaseException, last_try_s: float) -> None:
        _end_if_cancelled()
        away = failures.is_away(problem)
        late = failures.is_slow(problem) or asyncio.get_running_loop().time() >= last_try_s
        if late or attempt + 1 >= ATTEMPTS_MAX or (away and self._outage.lasts):
            if away:
                self._outage.begin(problem)
            raise Unavailable("the database is busy or away", remedy="Try again in a few seconds") from problem
        delay_s = backoff_s(attempt, self._random.random)
        log.warning(
            "db.retry",
            extra={"attempt": attempt + 1, "delay_ms": round(delay_s * 1000), "problem": type(problem).__name__},
        )
        await asyncio.sleep(delay_s)

    async def fetch(self, sql: str, *args: object) -> list[Row]:
        """Reads in a transaction of their own, repeated like `run`."""
        return await self.run(lambda tx: rows(tx, sql, *args))

    async def fetch_value(self, sql: str, *args: object) -> Any:
        return await self.run(lambda tx: value(tx, sql, *args))


def _plain(connection: Any, isolation: Isolation, readonly: bool) -> contextlib.AbstractAsyncContextManager[None]:
    begun: contextlib.AbstractAsyncContextManager[None] = connection.transaction(isolation=isolation, readonly=readonly)
    return begun


@contextlib.asynccontextmanager
async def _planned_anew(connection: Any, isolation: Isolation, readonly: bool) -> AsyncIterator[None]:
    """Said with the beginning: a statement of its own would cost as much as a search."""
    level, mode = isolation.replace("_", " "), "READ ONLY" if readonly else "READ WRITE"
    try:
        await connection.execute(f"BEGIN ISOLATION LEVEL {level} {mode}; SET LOCAL plan_cache_mode = force_custom_plan")
        yield
    except BaseException:
        if not connection.is_closed() and connection.is_in_transaction():
            await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")


def _end_if_cancelled() -> None:
    """A rollback that fails under a cancelled task hides its CancelledError, and the task would go on for ever."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _acquired(pool: Any) -> Any:
    """A connection of the pool. A missing socket or a name that nobody knows is a lost connection like any other."""
    try:
        async with asyncio.timeout(ACQUIRE_S):
            return await pool.acquire()
    except failures.CROWDED:
        raise
    except OSError as problem:
        raise failures.CannotConnect(str(problem)) from problem


async def until_reachable(connect: Callable[[], Awaitable[T]], wait_s: float) -> T:
    """Tries until the server is there. Raises Unavailable: after `wait_s`, or at once for other reasons."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + wait_s
    for attempt in itertools.count():
        try:
            return await connect()
        except failures.CANNOT_CONNECT as problem:
            if loop.time() >= deadline_s or not failures.is_starting(problem):
                raise Unavailable(
                    f"the database cannot be reached: {problem}",
                    remedy="Start it with `qubix up`, or correct DATABASE_URL",
                ) from problem
            log.info("db.waiting", extra={"attempt": attempt, "problem": str(problem)})
            await asyncio.sleep(0.05 + backoff_s(min(attempt, 6), random.SystemRandom().random))
    raise AssertionError("unreachable: the deadline ends the loop")


async def _check_network(tx: Tx, network: str) -> None:
    if await value(tx, "SELECT to_regclass('network') IS NULL"):
        raise failures.NotMigrated("the coordinator has not set it up yet")
    refuse_other_network(await value(tx, "SELECT name FROM network"), network)


def refuse_other_network(found: str | None, network: str) -> None:
    """A ledger never changes its network (trust.md M8)."""
    if found is None:
        raise failures.NotMigrated("the coordinator has not set it up yet")
    if found != network:
        raise WrongDatabase(
            f"the database belongs to the network {found}, and QUBIX_NETWORK says {network}",
            remedy=f"Set QUBIX_NETWORK={found}, or use another database or data folder",
        )


@contextlib.contextmanager
def _active(context: TortoiseContext) -> Iterator[None]:
    """Models look the context up by task, and a request's task is not the one that connected."""
    before = _current_context.get()
    _current_context.set(context)
    try:
        yield
    finally:
        _current_context.set(before)


def embedded_dsn(settings: Settings) -> str:
    from qubix_coordinator.db.embedded import dsn_of

    return dsn_of(settings.postgres_dir)


def connection_arguments(dsn: str) -> dict[str, Any]:
    """asyncpg arguments of a postgresql:// address; `?host=/folder` names a Unix socket."""
    parts = urlsplit(dsn)
    query = {key: found[-1] for key, found in parse_qs(parts.query).items()}
    host = unquote(parts.hostname or "") or query.pop("host", "") or "localhost"
    return {
        "host": host,
        "port": parts.port or int(query.pop("port", "5432")),
        "user": unquote(parts.username or "") or query.pop("user", "postgres"),
        "password": unquote(parts.password) if parts.password else None,
        "database": unquote(parts.path.lstrip("/")) or query.pop("dbname", "postgres"),
        "ssl": query.get("sslmode"),
    }


def _config(settings: Settings, dsn: str) -> dict[str, Any]:
    limits = {
        "application_name": "qubix",
        "statement_timeout": str(round(settings.statement_timeout_s * 1000)),
        "lock_timeout": str(round(settings.lock_timeout_s * 1000)),
        "idle_in_transaction_session_timeout": "60000",
        "synchronous_commit": "on",
    }
    credentials = {
        **connection_arguments(dsn),
        "minsize": 1,
        "maxsize": settings.database_pool_max,
        "server_settings": limits,
        "command_timeout": settings.statement_timeout_s + settings.lock_timeout_s,
        "timeout": 10,
    }
    return {
        "connections": {"default": {"engine": "tortoise.backends.asyncpg", "credentials": credentials}},
        "apps": {"qubix": {"models": table_modules(), "default_connection": "default"}},
        "use_tz": True,
        "timezone": "UTC",
    }


async def plain_connection(dsn: str, timeout_s: float = 10.0) -> Any:
    """A single asyncpg connection outside the pool, for migrations and administration."""
    return await asyncpg.connect(**connection_arguments(dsn), timeout=timeout_s)
