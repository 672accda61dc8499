# SPDX-License-Identifier: Apache-2.0
"""Visitors look at the market at nobody's expense: whoever has an account is served beside any number of them."""

import asyncio
from pathlib import Path

import pytest

from qubix_coordinator.db.database import Database, execute
from tests.db.support_http import assembled, make_person

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
