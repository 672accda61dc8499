# SPDX-License-Identifier: Apache-2.0
"""B3: a job's receipt grows in the transactions that cause it, cannot be changed, and says what the ledger says."""

import uuid
from typing import Any

import asyncpg
import pytest
from tortoise.exceptions import IntegrityError, OperationalError

from qubix import receipts
from qubix_coordinator.db.database import Database, Tx, execute
from qubix_coordinator.errors import Conflict, NotFound
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.receipts import service as chains
from qubix_protocol import chain, digests
from qubix_protocol.chain import Chain, Place
from qubix_protocol.job_receipt import JobClosed
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Order
from qubix_protocol.states import JobState, Outcome, Reason
from tests.db.jobs_world import CAP, UNITS, World

REFUSED = (asyncpg.PostgresError, IntegrityError, OperationalError)


async def ordered(world: World, key: SigningKey) -> str:
    """A job with a signed order, as the SDK sends it."""
    body = world.body()
    order = Order(
        idempotency_key="ordered",
        kernel=body.kernel,
        params_digest=digests.of_params(body.params),
        inputs_digest=digests.of_inputs(_refs(body.inputs)),
        cap_qu=body.cap_qu,
        rate_qu_per_h_max=None,
    )
    signed = world.body(order=world.seal(key, order).hex())
    return (await jobs.submit(world.desk, world.consumer, signed, "ordered")).job_id


def _refs(inputs: Any) -> Any:
    from qubix_coordinator.jobs.submit import input_refs

    return input_refs(inputs)


@pytest.mark.asyncio
async def test_a_whole_job_with_its_order(db: Database) -> None:
    """M6, M3, M1: consumer, node and coordinator each signed their part; the sums are the ledger's."""
    world, consumer = await World(db).open(), SigningKey.generate()
    node = await world.node()
    job_id = await ordered(world, consumer)
    await world.engine.tick()
    await node.whole_job()
    await world.check()
    receipt = receipts.verify(await world.receipt(job_id), world.key.public, order_key=consumer.public)
    proof, view = receipt.proof, await world.job(job_id)
    assert [one.terms.provider for one in proof.attempts] == [node.peer]
    assert [p.link.output_digest for p in proof.paid_parts()] == [one.output_digest for one in node.links]
    assert proof.closed is not None
    assert (proof.closed.paid_qu, proof.closed.fee_qu, proof.closed.returned_qu) == (
        view.paid_qu,
        view.fee_qu,
        view.returned_qu,
    )
    assert proof.attempts[0].report is not None
    names = [row["entry"] for row in await db.fetch("SELECT entry FROM receipt_entry ORDER BY index")]
    assert names == ["opened", "assigned", *["linked"] * 4, "reported", "ended", "checked", "settled", "closed"]
    await world.check_money()


@pytest.mark.asyncio
async def test_a_receipt_is_the_owners_and_grows_with_the_job(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    view = await world.submit()
    lengths = []

    async def look() -> None:
        proof = await world.proof(view.job_id)
        assert proof.closed is None
        assert proof.order_key is None
        lengths.append(proof.entries)

    await look()
    await world.engine.tick()
    await look()
    await node.accept()
    await node.work(0, 50)
    await look()
    await node.report(Outcome.FAILED)
    await look()
    assert lengths == [1, 2, 3, 5]
    other = type(world.consumer)(uuid.uuid4(), world.consumer.scopes)
    with pytest.raises(NotFound):
        await jobs.receipt(world.desk, other, view.job_id)


@pytest.mark.asyncio
async def test_rejected_relieved_cancelled_and_silent_attempts_stand_in_it(db: Database) -> None:
    world = await World(db).open()
    liar = await world.node()
    view = await world.assigned()
    await liar.accept()
    await liar.work(0, 50)
    await liar.work(50, UNITS)
    await liar.report()
    await world.node()
    await world.check([True, False])
    await world.engine.tick()
    await world.cancel(view.job_id)
    await world.engine.tick()
    proof = await world.proof(view.job_id)
    assert [one.settlement.verdict if one.settlement else None for one in proof.attempts] == ["rejected", None]
    assert [one.ended.reason for one in proof.attempts if one.ended] == [
        Reason.COMPLETED,
        Reason.CANCELLED_BY_CONSUMER,
    ]
    assert proof.closed is not None
    assert (proof.closed.state, proof.closed.units_accepted) == (JobState.CANCELLED, 50)
    await world.check_money()


@pytest.mark.asyncio
async def test_a_check_that_could_not_be_carried_out_pays_nothing_and_says_so(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    await node.whole_job()
    await world.check(carried_out=False)
    (attempt, *_) = (await world.proof(view.job_id)).attempts
    assert attempt.settlement is not None
    assert (attempt.settlement.verdict, attempt.settlement.paid_qu) == ("unchecked", 0)
    assert not any(part.paid for part in attempt.parts)


@pytest.mark.asyncio
async def test_the_database_refuses_what_does_not_follow(db: Database) -> None:
    world = await World(db).open()
    view = await world.submit()
    await world.cancel(view.job_id)
    length = (await world.proof(view.job_id)).entries
    lies = (
        "UPDATE receipt_entry SET at_ms = at_ms + 1",
        "UPDATE receipt_entry SET raw = '\\x00'",
        "DELETE FROM receipt_entry",
        "TRUNCATE receipt_entry",
    )
    for lie in lies:
        with pytest.raises(REFUSED):
            await db.run(lambda tx, lie=lie: execute(tx, lie))  # type: ignore[misc]
    of = Chain("devnet", "job", view.job_id)
    digest = bytes((await db.fetch("SELECT digest FROM receipt_entry ORDER BY index DESC LIMIT 1"))[0]["digest"])
    closed = JobClosed(
        state=JobState.FAILED,
        reason=Reason.EXPIRED,
        detail="",
        units_accepted=0,
        attempts=0,
        hold_qu=CAP,
        paid_qu=0,
        fee_qu=0,
        returned_qu=CAP,
    )
    for wrong in (Place(length - 1, digest), Place(length + 1, digest), Place(length, bytes(32)), Place(0, bytes(32))):
        with pytest.raises(REFUSED):
            await db.run(lambda tx, at=wrong: chains._store(tx, of, at, closed, world.key, 1))  # type: ignore[misc]
    with pytest.raises(REFUSED):
        await db.run(
            lambda tx: chains._store(
                tx, Chain("devnet", "rental", view.job_id), Place(length, digest), closed, world.key, 1
            )
        )
    assert (await world.proof(view.job_id)).entries == length


@pytest.mark.asyncio
async def test_what_is_rolled_back_leaves_no_entry(db: Database) -> None:
    """The entry and what it tells are one transaction."""
    world = await World(db).open()
    view = await world.submit()
    of = Chain("devnet", "job", view.job_id)

    class Crash(Exception):
        pass

    async def step(tx: Tx) -> None:
        proof = JobClosed(
            state=JobState.FAILED,
            reason=Reason.EXPIRED,
            detail="",
            units_accepted=0,
            attempts=0,
            hold_qu=CAP,
            paid_qu=0,
            fee_qu=0,
            returned_qu=CAP,
        )
        assert await chains.append(tx, of, proof, world.key, at_ms=1)
        raise Crash

    with pytest.raises(Crash):
        await db.run(step)
    assert (await world.proof(view.job_id)).entries == 1


@pytest.mark.asyncio
async def test_a_job_from_before_receipts_has_none_and_goes_on(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    view = await world.submit()
    async with db.transaction() as tx:
        await execute(tx, "ALTER TABLE receipt_entry DISABLE TRIGGER ALL")
        await execute(tx, "DELETE FROM receipt_entry")
        await execute(tx, "ALTER TABLE receipt_entry ENABLE TRIGGER ALL")
    await world.engine.tick()
    await node.whole_job()
    await world.check()
    assert (await world.job(view.job_id)).state is JobState.SETTLED
    assert await db.fetch("SELECT 1 FROM receipt_entry") == []
    with pytest.raises(Conflict, match="before whole receipts"):
        await world.receipt(view.job_id)
    assert len((await jobs.receipts(world.desk, world.consumer, view.job_id)).receipts) == 1


def test_the_file_names_its_chain_by_content() -> None:
    assert chain.digest_of(b"x") == digests.of_bytes(b"x")
