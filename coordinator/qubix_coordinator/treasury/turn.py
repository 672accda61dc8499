# SPDX-License-Identifier: Apache-2.0
"""One chain process acts at a time on a database: the others wait for their turn."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg

from qubix_coordinator.db.database import Database, plain_connection
from qubix_coordinator.deposits.desk import TurnLost, take_turn

log = logging.getLogger(__name__)
LOCK_KEY: Final = 0x71756279
WAIT_S: Final = 0.5
BEAT_S: Final = 2.0
_GONE: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class Turn:
    """A session's lock says who is next as soon as the last one is gone, however it went; the fence stops one that only
    believes that it has the lock."""

    def __init__(self, connection: Any, fence: int) -> None:
        self._connection = connection
        self.fence = fence

    async def until_lost(self) -> None:
        """Raises TurnLost when the session that holds the lock is gone."""
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self._connection.fetchval("SELECT true", timeout=30)
            except _GONE as problem:
                raise _lost("held", problem) from None


def _lost(did: str, problem: BaseException) -> TurnLost:
    return TurnLost(
        f"the database session that {did} the turn is gone: {type(problem).__name__}",
        remedy="Start it again; `qubix up` does so by itself",
    )


@contextlib.asynccontextmanager
async def turn(db: Database) -> AsyncIterator[Turn]:
    """Waits for whoever has it. Raises TurnLost when the session that waits is gone."""
    connection = await plain_connection(db.dsn)
    try:
        await _wait_for(connection)
        yield Turn(connection, await db.run(take_turn))
    finally:
        with contextlib.suppress(*_GONE):
            await connection.close(timeout=5)


async def _wait_for(connection: Any) -> None:
    waited = False
    try:
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK_KEY, timeout=30):
            if not waited:
                log.info("chain.waiting", extra={"why": "another chain process is active on this database"})
            waited = True
            await asyncio.sleep(WAIT_S)
    except _GONE as problem:
        raise _lost("waited for", problem) from None
