# SPDX-License-Identifier: Apache-2.0
"""Many at once: nothing is posted twice, no hold is overspent, nobody waits for ever."""

import asyncio
import uuid

import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import HoldOverspent, NotEnoughBalance
from qubix_coordinator.ledger import read, rules
from qubix_coordinator.ledger.audit import audit_now
from qubix_coordinator.ledger.post import post
from tests.support.funds import fund

TASKS = 20


async def two_users(db: Database, amount_qu: int) -> tuple[uuid.UUID, uuid.UUID]:
    async with db.transaction() as tx:
        alice, bob = await accounts.create_account(tx, "alice"), await accounts.create_account(tx, "bob")
    await fund(db, alice, amount_qu)
    return alice, bob


async def outcomes(db: Database, transfers: list[list[rules.Transfer]]) -> list[object]:
    posts = (db.run(lambda tx, batch=batch: post(tx, batch)) for batch in transfers)  # type: ignore[misc]
    return list(await asyncio.wait_for(asyncio.gather(*posts, return_exceptions=True), 60))


@pytest.mark.asyncio
async def test_the_same_transfer_by_many_at_once_is_posted_once(db: Database) -> None:
    alice, _ = await two_users(db, 1000)
    hold = rules.hold(uuid.uuid4(), alice, 100)
    assert sorted(map(str, await outcomes(db, [[hold]] * TASKS))) == ["0"] * (TASKS - 1) + ["1"]
    async with db.transaction() as tx:
        assert await read.balance(tx, alice) == read.Balance(900, 100)


@pytest.mark.asyncio
async def test_settlements_that_race_never_overspend(db: Database) -> None:
    alice, bob = await two_users(db, 1000)
    job = uuid.uuid4()
    await db.run(lambda tx: post(tx, [rules.hold(job, alice, 100)]))
    done = await outcomes(db, [[rules.settle(job, uuid.uuid4(), bob, 29, 1)] for _ in range(TASKS)])
    assert [type(found) for found in done].count(int) == 3
    assert sum(isinstance(found, HoldOverspent) for found in done) == TASKS - 3
    async with db.transaction() as tx:
        assert await read.balance_qu(tx, rules.user(bob)) == 3 * 29
    assert (await audit_now(db)).clean


@pytest.mark.asyncio
async def test_holds_that_race_never_overdraw(db: Database) -> None:
    alice, _ = await two_users(db, 100)
    done = await outcomes(db, [[rules.hold(uuid.uuid4(), alice, 30)] for _ in range(TASKS)])
    assert done.count(1) == 3
    assert sum(isinstance(found, NotEnoughBalance) for found in done) == TASKS - 3


@pytest.mark.asyncio
async def test_transfers_both_ways_do_not_deadlock(db: Database) -> None:
    alice, bob = await two_users(db, 1000)
    await fund(db, bob, 1000)
    pairs = [(alice, bob), (bob, alice)] * (TASKS // 2)
    moves = [[rules.refund(uuid.uuid4(), rules.user(a), b, n + 1)] for n, (a, b) in enumerate(pairs)]
    assert await outcomes(db, moves) == [1] * TASKS
    async with db.transaction() as tx:
        assert await read.balance_qu(tx, rules.user(alice)) + await read.balance_qu(tx, rules.user(bob)) == 2000


@pytest.mark.asyncio
async def test_sweeping_while_settling_loses_nothing(db: Database) -> None:
    alice, bob = await two_users(db, 10_000)
    jobs = [uuid.uuid4() for _ in range(TASKS)]
    await db.run(lambda tx: post(tx, [rules.hold(job, alice, 100) for job in jobs]))
    sweeps = asyncio.gather(*(db.run(lambda tx: read.sweep(tx, 3)) for _ in range(TASKS)))
    assert await outcomes(db, [[rules.settle(job, uuid.uuid4(), bob, 90, 10)] for job in jobs]) == [1] * TASKS
    await sweeps
    while await db.run(read.sweep):
        pass
    assert await db.fetch_value("SELECT balance_qu FROM ledger_account WHERE kind = 'fees'") == 10 * TASKS
    report = await audit_now(db)
    assert report.clean, report.violations
