# SPDX-License-Identifier: Apache-2.0
"""Visitors look at the market at nobody's expense: whoever has an account is served beside any number of them."""

import asyncio
from pathlib import Path

import pytest

from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.feed.bounds import Bounds
from tests.db.support_http import assembled, make_person, served
from tests.db.test_live_feed import feed_of

pytestmark = pytest.mark.asyncio
DEADLINE_S = 20
MANY = 40
"""More than there are connections to the database."""


async def test_who_has_an_account_waits_for_no_visitor(db: Database, tmp_path: Path) -> None:
    person, coordinator = await make_person(db), await assembled(db, tmp_path)
    client = coordinator.app.test_client()
    async with asyncio.TaskGroup() as tasks:
        async with db.transaction() as tx:
            await execute(tx, "LOCK TABLE listing IN ACCESS EXCLUSIVE MODE")
            looks = [tasks.create_task(client.get("/api/v1/offers")) for _ in range(MANY)]
            for _ in range(5):
                answer = await client.get("/api/v1/account", headers=person.headers)
                assert answer.status_code == 200
            assert not any(look.done() for look in looks)
        async with asyncio.timeout(DEADLINE_S):
            assert {(await look).status_code for look in looks} == {200}


def above(*prices: int) -> list[dict[str, str]]:
    return [{"topic": "market", "query": f"price>={price}"} for price in prices]


async def test_each_query_of_a_visitors_subscription_counts(db: Database, tmp_path: Path) -> None:
    """Each may have the whole table sorted and encoded for one reader."""
    async with served(db, tmp_path) as running, feed_of(running, None) as feed:
        for first in range(0, 80, 8):
            await feed.send({"subscribe": above(*range(first, first + 8))})
        async with asyncio.timeout(DEADLINE_S):
            while "limit_exceeded" not in str(await feed.socket.recv()):
                pass


async def test_visitors_leave_room_for_the_queries_of_who_has_an_account(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    async with served(db, tmp_path) as running, feed_of(running, None) as visitor, feed_of(running, person) as owner:
        running.coordinator.context.feeds.bounds = Bounds(queries=4)
        await visitor.send({"subscribe": above(1, 2)})
        assert [(await visitor.next()).kind for _ in range(2)] == ["snapshot"] * 2
        async with feed_of(running, None) as other:
            await other.send({"subscribe": above(3)})
            assert (await other.refusal()).code == "limit_exceeded"
        async with feed_of(running, None) as other:
            await other.send({"subscribe": above(2)})
            assert (await other.next()).kind == "snapshot"
        await owner.send({"subscribe": above(3, 4)})
        assert [(await owner.next()).kind for _ in range(2)] == ["snapshot"] * 2
        async with feed_of(running, None) as other:
            await other.send({"subscribe": ["market"]})
            assert (await other.next()).kind == "snapshot"
