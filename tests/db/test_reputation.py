# SPDX-License-Identifier: Apache-2.0
"""Records of providers by the real flow of jobs (trust.md C5): what counts, for whom, once, and how it is explained."""

import asyncio
import hashlib
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from tortoise.exceptions import BaseORMException

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database, execute, value
from qubix_coordinator.errors import NotFound
from qubix_coordinator.jobs import outcomes, outcomes_read
from qubix_coordinator.market import reputation as rep
from qubix_coordinator.market import service as market
from qubix_coordinator.market import standing
from qubix_coordinator.market.reputation import Outcome, What
from qubix_protocol.api import ListingView
from qubix_protocol.reputation import ReputationView
from tests.db.disputes_world import DisputesWorld
from tests.db.jobs_world import FEE_BPS, Node, World
from tests.db.unchecked_world import OWED
from tests.support import funds
from tests.support.own import unchecked

pytestmark = pytest.mark.asyncio


@pytest.fixture
def orbit() -> Iterator[None]:
    with unchecked.registered():
        yield


async def listed(world: World, node: Node) -> ListingView:
    (found,) = [one for one in await market.listings(world.db, now_ms=world.desk.now_ms()) if one.provider == node.peer]
    return found


async def explained(world: World, node: Node) -> ReputationView:
    """And the counts that it shows are kept as counting the evidence anew would have them."""
    key = market.listing_id(node.peer, "cpu-1")
    kept = await world.db.fetch("SELECT what, n FROM outcome_count WHERE listing_id = $1", key)
    evidence = await world.db.fetch("SELECT what, counts FROM work_outcome WHERE listing_id = $1", key)
    assert {one["what"]: one["n"] for one in kept} == Counter(
        one["what"] if one["counts"] else "related"
        for one in evidence
        if one["counts"] or one["what"] in ("finished", "right")
    )
    return await standing.view(world.db, key, now_ms=world.desk.now_ms())


async def numbers(world: World, node: Node) -> dict[str, float]:
    found = await explained(world, node)
    return {name: number for part in found.parts for name, number in part.numbers.items()}


async def job(world: World, node: Node, parts: list[bool] | None = None) -> None:
    await node.offer()
    await world.assigned()
    await node.whole_job()
    await world.check(parts)


async def owner(world: World, node: Node) -> UUID:
    return await world.db.run(lambda tx: accounts.account_of_node(tx, node.peer))


async def recomputed(world: World, node: Node) -> rep.Record:
    """From the evidence alone."""
    key = market.listing_id(node.peer, "cpu-1")
    found = await world.db.fetch("SELECT * FROM work_outcome WHERE listing_id = $1 ORDER BY no", key)
    kept = [
        Outcome(What(one["what"]), one["worth_qu"], one["at_ms"], one["counts"], one["run_ms"], one["forecast_ms"])
        for one in found
    ]
    return rep.of_outcomes(kept, world.desk.settings.reputation_unit_qu)


async def test_checked_work_makes_a_listing_reliable_and_says_why(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    assert (await listed(world, node)).reliability == 0.0
    assert "No checked work" in (await explained(world, node)).text
    await job(world, node)
    once = (await listed(world, node)).reliability
    young = {part.name: part.text for part in (await explained(world, node)).parts}
    assert young["completion"].startswith("Finished 1 piece of work")
    assert young["correctness"].startswith("1 result passed")
    assert young["availability"].endswith(("hour.", "hours."))
    await job(world, node)
    twice = (await listed(world, node)).reliability
    assert 0.0 < once < twice < 1.0
    found = await explained(world, node)
    assert found.reliability == pytest.approx(twice)
    assert [part.name for part in found.parts] == [
        "completion",
        "correctness",
        "punctuality",
        "availability",
        "disputes",
        "standing",
    ]
    said = {part.name: part for part in found.parts}
    assert said["completion"].text.startswith("Finished 2 pieces of work for unrelated consumers and failed at 0")
    assert said["correctness"].numbers["right"] == 2
    assert said["punctuality"].numbers["times_forecast"] == pytest.approx(1.0, abs=0.1)
    assert all(part.text.endswith(".") and 0.0 <= part.value <= 1.0 for part in found.parts)
    assert await world.db.run(lambda tx: standing.record_of(tx, UUID(found.listing_id))) == await recomputed(
        world, node
    )


async def test_what_is_known_of_its_work_is_told_to_all_without_whose_it_was(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    key = market.listing_id(node.peer, "cpu-1")
    assert (await outcomes_read.outcomes(db, key)).outcomes == ()
    await job(world, node)
    await job(world, node, [False, False, False, False])
    found = (await outcomes_read.outcomes(db, key)).outcomes
    assert [one.what for one in found] == ["wrong", "finished", "right"]
    assert {one.kernel for one in found} == {"matmul"}
    settled = await db.fetch("SELECT settlement_raw FROM attempt ORDER BY created_ms, fence")
    digests = [hashlib.sha256(one["settlement_raw"]).hexdigest() for one in settled]
    assert {one.receipt for one in found} == set(digests)
    told = msgspec.json.encode(found).decode()
    assert str(world.consumer.account_id) not in told
    with pytest.raises(NotFound):
        await outcomes_read.outcomes(db, UUID(int=1))


async def test_a_wrong_result_and_a_failure_cost(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    for _ in range(3):
        await job(world, node)
    spotless = (await listed(world, node)).reliability
    silent = await world.assigned()
    await node.accept()
    await world.pass_time(11)
    await world.cancel(silent.job_id)
    failed = (await listed(world, node)).reliability
    assert 0.5 * spotless < failed < spotless, "one blip ends nothing"
    await world.pass_time(5)
    await job(world, node, [True, False, True, True])
    await node.offer()
    assert (await listed(world, node)).reliability < failed
    found = await numbers(world, node)
    assert (found["finished"], found["failed"], found["right"], found["wrong"]) == (3, 1, 3, 1)
    assert await world.db.run(
        lambda tx: standing.record_of(tx, market.listing_id(node.peer, "cpu-1"))
    ) == await recomputed(world, node)


async def test_what_is_told_twice_or_at_once_is_counted_once(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    await job(world, node)
    attempt, before = await node.attempt(), await listed(world, node)
    row = await world.row(attempt.job_id)

    async def again() -> None:
        await world.db.run(lambda tx: outcomes.tell(world.desk, tx, row, attempt, What.RIGHT, What.FINISHED))

    await asyncio.gather(*(again() for _ in range(8)))
    assert (await listed(world, node)).reliability == before.reliability
    assert (await numbers(world, node))["right"] == 1


async def test_a_provider_that_pays_itself_gains_nothing(db: Database) -> None:
    """The same account, whichever way round it was made."""
    world = await World(db).open()
    node = Node(world)
    await world.db.run(lambda tx: accounts.ensure_node(tx, node.peer))
    await world.db.run(
        lambda tx: execute(
            tx, "UPDATE node SET account_id = $1 WHERE peer_id = $2", world.consumer.account_id, node.peer
        )
    )
    for _ in range(5):
        await job(world, node)
    attempt = await node.attempt()
    row = await world.row(attempt.job_id)
    await world.db.run(lambda tx: outcomes.tell(world.desk, tx, row, attempt, What.DISPUTE_WON))
    assert (await listed(world, node)).reliability == 0.0
    said = {part.name: part for part in (await explained(world, node)).parts}
    assert said["correctness"].numbers["right"] == 0
    assert "10 for consumers related to the provider prove nothing" in said["correctness"].text


KEY = hashlib.sha256(b"a wallet").digest()


async def bound(tx: Any, account_id: UUID, *, ended: bool = False, proof: str = "signature") -> None:
    await execute(
        tx,
        "INSERT INTO wallet (id, account_id, public_key, proof, ended_at) VALUES ($1, $2, $3, $4, $5::timestamptz)",
        uuid.uuid4(),
        account_id,
        KEY,
        proof,
        None if not ended else await value(tx, "SELECT now()"),
    )


async def paid_out(tx: Any, account_id: UUID) -> None:
    await execute(
        tx,
        "INSERT INTO payout_address (id, account_id, public_key, label, added_ms, usable_ms, removed_ms)"
        " VALUES ($1, $2, $3, '', 0, 0, 1)",
        uuid.uuid4(),
        account_id,
        KEY,
    )


async def paid_in(tx: Any, account_id: UUID) -> None:
    await funds.deposit(tx, account_id, 1_000)
    last = await value(tx, "SELECT max(no) FROM deposit")
    await execute(tx, "ALTER TABLE deposit DISABLE TRIGGER deposit_kept")
    await execute(tx, "UPDATE deposit SET source = $1 WHERE no = $2", KEY, last)
    await execute(tx, "ALTER TABLE deposit ENABLE TRIGGER deposit_kept")


async def ended(tx: Any, account_id: UUID) -> None:
    await bound(tx, account_id, ended=True)


async def proved(tx: Any, account_id: UUID) -> None:
    await bound(tx, account_id, proof="payment")


@pytest.mark.parametrize(
    ("provider_has", "consumer_has"),
    [
        (ended, bound),
        (bound, proved),
        (paid_out, paid_in),
        (bound, paid_in),
        (paid_in, paid_in),
        (paid_out, paid_out),
        (paid_in, ended),
    ],
    ids=[
        "a wallet of both, at different times",
        "a wallet that signs for one and is paid for the other",
        "paid in out of the provider's withdrawals",
        "paid in from the provider's wallet",
        "one identity pays in for both",
        "both are paid out to one address",
        "the provider pays in from what was the consumer's wallet",
    ],
)
async def test_an_identity_that_has_to_do_with_both_makes_them_related(
    db: Database, provider_has: Any, consumer_has: Any
) -> None:
    world = await World(db).open()
    node = await world.node()
    provider = await owner(world, node)
    await world.db.run(lambda tx: provider_has(tx, provider))
    await job(world, node)
    assert (await listed(world, node)).reliability > 0.0, "nothing binds them yet"
    before = (await listed(world, node)).reliability
    await world.db.run(lambda tx: consumer_has(tx, world.consumer.account_id))
    assert await world.db.run(lambda tx: outcomes.related(tx, provider, world.consumer.account_id))
    await job(world, node)
    assert (await listed(world, node)).reliability <= before
    assert (await numbers(world, node))["right"] == 1


async def test_strangers_are_unrelated(db: Database) -> None:
    world = await World(db).open()
    others = [await world.db.run(lambda tx: accounts.create_account(tx, "somebody")) for _ in range(2)]
    for one in others:
        await world.db.run(lambda tx, one=one: paid_out(tx, one) if one == others[0] else bound(tx, others[1]))
    assert await world.db.run(lambda tx: outcomes.related(tx, others[0], others[1]))
    assert not await world.db.run(lambda tx: outcomes.related(tx, others[0], world.consumer.account_id))


async def test_a_lost_dispute_is_on_the_record_and_unchecked_work_is_not(db: Database, orbit: None) -> None:
    world = await DisputesWorld(db).open()
    node = await world.node()
    view = await world.delivered(node)
    assert (await numbers(world, node))["right"] == 0, "nobody has checked it"
    dispute = await world.opened(view)
    await world.answered(dispute, await world.provider(node), concede=True)
    found = await numbers(world, node)
    assert (found["wrong"], found["lost"], found["won"]) == (0, 1, 0)
    outcome = await world.db.fetch("SELECT what, worth_qu FROM work_outcome")
    assert [(one["what"], one["worth_qu"]) for one in outcome] == [("dispute_lost", OWED)]


async def test_records_fade_where_nothing_happens(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    for _ in range(3):
        await job(world, node)
    before = (await listed(world, node)).reliability
    world.clock.advance(60 * 86_400)
    assert await standing.refresh(world.db, world.desk.now_ms()) == 1
    await node.offer()
    assert 0.0 < (await listed(world, node)).reliability < before * 0.8


async def test_the_database_keeps_the_evidence(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    await job(world, node)
    for statement in (
        "UPDATE work_outcome SET worth_qu = 10",
        "DELETE FROM work_outcome",
        'UPDATE reputation SET "right" = -1',
        "INSERT INTO work_outcome SELECT attempt_id, 'won', listing_id, provider_id, consumer_id, true, 1, 0, 0, 0"
        " FROM work_outcome",
        "INSERT INTO work_outcome SELECT attempt_id, 'wrong', listing_id, provider_id, consumer_id, false, 1, 0, 0, 0"
        " FROM work_outcome LIMIT 1",
        "INSERT INTO work_outcome SELECT attempt_id, 'dispute_won', listing_id, provider_id, provider_id, true, 1, 0,"
        " 0, 0 FROM work_outcome LIMIT 1",
    ):
        with pytest.raises((BaseORMException, asyncpg.PostgresError)):
            await world.db.run(lambda tx, sql=statement: execute(tx, sql))  # type: ignore[misc]
    assert (await numbers(world, node))["right"] == 1


async def test_an_unknown_listing_has_no_reputation(db: Database) -> None:
    with pytest.raises(NotFound):
        await standing.view(db, uuid.uuid4(), now_ms=0)


async def test_what_was_charged_is_the_weight(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    await job(world, node)
    charged = 10_000
    assert FEE_BPS > 0
    worth = await world.db.fetch_value("SELECT worth_qu FROM work_outcome WHERE what = 'right'")
    assert worth == charged
