# SPDX-License-Identifier: Apache-2.0
"""M10 on the real ledger: the published total is all that is owed, and everybody is in it with all that is theirs."""

import uuid

import pytest

from qubix import reserves as checked
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database, Tx, value
from qubix_coordinator.deposits import reserves
from qubix_coordinator.errors import NotFound
from qubix_coordinator.ledger import rules
from qubix_coordinator.ledger.post import post
from qubix_protocol.keys import SigningKey

KEY = SigningKey.generate()
NOW_MS = 1_000_000
FRESH_MS = 60_000


async def people(db: Database) -> tuple[uuid.UUID, uuid.UUID]:
    """Alice has 1,000 QU: free, in a hold, in a withdrawal and in a bond; Bob earned 50 of them, 5 were fees."""

    async def step(tx: Tx) -> tuple[uuid.UUID, uuid.UUID]:
        alice, bob = [await accounts.create_account(tx, name) for name in ("alice", "bob")]
        job, dispute = uuid.uuid4(), uuid.uuid4()
        for transfer in (
            rules.deposit(alice, 1_000, network="devnet", tick=1, tx_id="a" * 60, output=0),
            rules.hold(job, alice, 100),
            rules.settle(job, uuid.uuid4(), bob, 50, 5),
            rules.withdraw(uuid.uuid4(), alice, 200),
            rules.bond(dispute, alice, 10),
            rules.bond(dispute, bob, 10),
        ):
            await post(tx, [transfer])
        return alice, bob

    return await db.run(step)


@pytest.mark.asyncio
async def test_everybody_is_counted_with_all_that_is_theirs(db: Database) -> None:
    alice, bob = await people(db)
    view = await reserves.published(db, KEY, "devnet", NOW_MS, fresh_ms=FRESH_MS)
    world = await db.run(lambda tx: value(tx, "SELECT -balance_qu FROM ledger_balance WHERE kind = 'world'"))
    assert view.owed_qu == world == 1_000
    assert view.leaves == 16
    for owner, amount in ((alice, 945), (bob, 50)):
        proof = await reserves.proof_of(db, owner)
        assert proof.amount_qu == amount
        said = checked.check(proof, KEY.public.hex(), "devnet")
        assert (said.owed_qu, said.at_ms) == (1_000, NOW_MS)


@pytest.mark.asyncio
async def test_one_is_made_when_the_newest_is_old_and_shows_what_is_new_then(db: Database) -> None:
    alice, _ = await people(db)
    with pytest.raises(NotFound):
        await reserves.proof_of(db, alice)
    first = await reserves.published(db, KEY, "devnet", NOW_MS, fresh_ms=FRESH_MS)
    late = await db.run(lambda tx: accounts.create_account(tx, "late"))
    await db.run(lambda tx: post(tx, [rules.deposit(late, 7, network="devnet", tick=2, tx_id="b" * 60, output=0)]))
    assert await reserves.published(db, KEY, "devnet", NOW_MS + FRESH_MS - 1, fresh_ms=FRESH_MS) == first
    with pytest.raises(NotFound, match="had nothing in it yet"):
        await reserves.proof_of(db, late)
    second = await reserves.published(db, KEY, "devnet", NOW_MS + FRESH_MS, fresh_ms=FRESH_MS)
    assert second.owed_qu == 1_007
    assert (await reserves.proof_of(db, late)).amount_qu == 7
    assert second.root != first.root
