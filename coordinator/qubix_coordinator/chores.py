# SPDX-License-Identifier: Apache-2.0
"""What is done every so often and nobody waits for: sweeping, adding up, the nightly audit."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, NoReturn

from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import Unavailable

log = logging.getLogger(__name__)
AGAIN_S: Final = 5.0
TRIES: Final = 3


class Chore(NamedTuple):
    name: str
    work: Callable[[], Awaitable[object]]


async def repeat(db: Database, seconds: float, chores: Sequence[Chore]) -> NoReturn:
    """One after the other, then the pause. One that fails is logged and comes again with the rest: a row that cannot be
    swept must stop neither the other chores nor the market."""
    while True:
        for chore in chores:
            await _once(db, chore)
        await asyncio.sleep(seconds)


async def _once(db: Database, chore: Chore) -> None:
    for _ in range(TRIES):
        try:
            await chore.work()
        except Unavailable:
            await db.until_back()
            await asyncio.sleep(AGAIN_S)
        except Exception:
            log.exception("chore.failed", extra={"chore": chore.name})
            return
        else:
            return
    log.warning("chore.put_off", extra={"chore": chore.name})
