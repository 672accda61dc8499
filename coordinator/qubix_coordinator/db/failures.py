# SPDX-License-Identifier: Apache-2.0
"""Which failures of the database pass when one tries again."""

import asyncio

import asyncpg
from tortoise.exceptions import BaseORMException


class NotMigrated(ConnectionError):
    """The database is there, and its tables are not yet."""


class CannotConnect(ConnectionError):
    """Nothing answers at the database's address, or its socket is not even there."""


# asyncpg raises InterfaceError or InternalClientError when a connection goes away under a running query.
CONNECTION_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    ConnectionError,
)
CONTENTION = (asyncpg.TransactionRollbackError, asyncpg.LockNotAvailableError)
# Too many connections, a full disk or no memory; a statement that took too long; a disk that fails.
CROWDED = (
    asyncpg.InsufficientResourcesError,
    asyncpg.QueryCanceledError,
    asyncpg.PostgresIOError,
    TimeoutError,
    asyncio.TimeoutError,
)
MAY_PASS = (BaseORMException, *CONNECTION_LOST, *CONTENTION, *CROWDED)
CANNOT_CONNECT = (*MAY_PASS, asyncpg.PostgresError, OSError)


def cause(problem: BaseException) -> BaseException:
    """The driver's exception inside Tortoise's wrapper."""
    inner = problem.args[0] if isinstance(problem, BaseORMException) and problem.args else problem
    return inner if isinstance(inner, BaseException) else problem


def is_transient(problem: BaseException) -> bool:
    return isinstance(cause(problem), (*CONNECTION_LOST, *CONTENTION, *CROWDED))


def is_away(problem: BaseException) -> bool:
    """The server is gone or going, as opposed to busy."""
    return isinstance(cause(problem), CONNECTION_LOST)


def is_slow(problem: BaseException) -> bool:
    """A statement had all the time it may have: to repeat it at once would only add to the load."""
    return isinstance(cause(problem), asyncpg.QueryCanceledError)


def is_starting(problem: BaseException) -> bool:
    """A server that is not there yet, or there and not ready, or a database that its owner is still creating."""
    found = cause(problem)
    return isinstance(found, (*CONNECTION_LOST, *CROWDED, OSError))


def sqlstate(problem: BaseException) -> str:
    return str(getattr(cause(problem), "sqlstate", "") or "")


def constraint(problem: BaseException) -> str:
    return str(getattr(cause(problem), "constraint_name", "") or "")
