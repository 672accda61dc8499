# SPDX-License-Identifier: Apache-2.0
"""Chores go on, whatever becomes of one of them."""

import asyncio
from collections import Counter
from typing import cast

import pytest

from qubix_coordinator import chores
from qubix_coordinator.chores import Chore, repeat
from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import Unavailable

pytestmark = pytest.mark.asyncio
DEADLINE_S = 60.0
ROUNDS = 3


class Db:
    """A database that is back as soon as somebody waits for it."""

    waited = 0

    async def until_back(self) -> None:
        self.waited += 1


async def test_one_that_fails_is_logged_and_stops_nobody_and_an_outage_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(chores, "AGAIN_S", 0.0)
    db, done, over = Db(), Counter[str](), asyncio.Event()

    async def broken() -> None:
        done["broken"] += 1
        raise ValueError("a row that cannot be swept")

    async def away() -> None:
        done["away"] += 1
        if done["away"] == 1:
            raise Unavailable("away")

    async def never() -> None:
        done["never"] += 1
        raise Unavailable("away")

    async def last() -> None:
        done["last"] += 1
        if done["last"] == ROUNDS:
            over.set()

    all_of_them = [Chore(work.__name__, work) for work in (broken, away, never, last)]
    task = asyncio.create_task(repeat(cast(Database, db), 0.0, all_of_them))
    async with asyncio.timeout(DEADLINE_S):
        await over.wait()
    task.cancel()
    assert done == {"broken": ROUNDS, "away": ROUNDS + 1, "never": ROUNDS * chores.TRIES, "last": ROUNDS}
    assert db.waited == 1 + done["never"]
    said = Counter((record.message, record.__dict__["chore"]) for record in caplog.records)
    assert said == {("chore.failed", "broken"): ROUNDS, ("chore.put_off", "never"): ROUNDS}
