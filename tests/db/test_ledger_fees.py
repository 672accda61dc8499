# SPDX-License-Identifier: Apache-2.0
"""What came in as fees is told by what is there and what has left, whatever is swept and whoever was refunded."""

import uuid

import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database, Tx
from qubix_coordinator.ledger import read, rules
from qubix_coordinator.ledger.post import post

pytestmark = pytest.mark.asyncio
CAME_SQL = (
    "SELECT coalesce(sum(e.amount_qu) FILTER (WHERE e.amount_qu > 0), 0)::bigint"
    " FROM entry e JOIN ledger_account a ON a.id = e.account_id WHERE a.kind = 'fees'"
)


async def test_fees_so_far_are_what_every_settlement_says(db: Database) -> None:
    assert await db.run(read.fees_so_far) == (0, 0)
    async with db.transaction() as tx:
        ann, bob = await accounts.create_account(tx, "ann"), await accounts.create_account(tx, "bob")
        await post(tx, [rules.deposit(ann, 10_000, network="devnet", tick=1, tx_id="a" * 60, output=0)])

    async def settled(paid_qu: int, fee_qu: int) -> None:
        job = uuid.uuid4()

        async def step(tx: Tx) -> None:
            await post(tx, [rules.hold(job, ann, paid_qu + fee_qu)])
            await post(tx, [rules.settle(job, uuid.uuid4(), bob, paid_qu, fee_qu)])

        await db.run(step)

    await settled(900, 100)
    await settled(500, 50)
    await db.run(read.sweep)
    await db.run(lambda tx: post(tx, [rules.fund(30, "30")]))
    await db.run(lambda tx: post(tx, [rules.refund(uuid.uuid4(), rules.FEES, ann, 20)]))
    await db.run(lambda tx: post(tx, [rules.refund(uuid.uuid4(), rules.user(bob), ann, 7)]))
    await settled(100, 10)
    await db.run(lambda tx: post(tx, [rules.refund(uuid.uuid4(), rules.FUND, bob, 5)]))
    assert await db.run(read.fees_so_far) == (160, 30)
    assert await db.fetch_value(CAME_SQL) == 160
