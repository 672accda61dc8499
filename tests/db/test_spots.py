# SPDX-License-Identifier: Apache-2.0
"""Spot checks of work that no verifier can judge, and what a failed one takes (trust.md C5, M5; I1 to I6)."""

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from qubix_coordinator.accounts.rules import Principal
from qubix_coordinator.db.database import Database, execute, rows
from qubix_coordinator.errors import Conflict, NotEnoughBalance
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.jobs import spot
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.ledger.post import post
from qubix_coordinator.ledger.read import lock_account
from qubix_coordinator.spots.rules import OPEN, State
from qubix_coordinator.withdrawals import forfeits, limits
from qubix_coordinator.withdrawals.desk import Desk as WithdrawalDesk
from qubix_protocol.api import JobView
from qubix_protocol.messages import KernelRate
from qubix_protocol.states import AttemptState, JobState, Reason
from tests.db.jobs_world import FEE_BPS, FLOPS, FORECAST_MS, CannotNow, Node, World
from tests.db.spots_world import FUNDED, SpotsWorld
from tests.db.test_reputation import paid_out
from tests.db.unchecked_world import OWED
from tests.support.own import unchecked

pytestmark = pytest.mark.asyncio
PAID = OWED - OWED * FEE_BPS // 10_000
RERUN = 2_500
"""One link of four, at the same price."""


@pytest.fixture(autouse=True)
def with_orbit() -> Iterator[None]:
    with unchecked.registered():
        yield


async def market_of(db: Database, **settings: Any) -> tuple[SpotsWorld, Node]:
    world = await (await SpotsWorld(db).open(**settings)).fill_fund()
    node = await world.node()
    return world, node


async def delivered(world: SpotsWorld, node: Node, others: int = 3) -> JobView:
    """By this provider, before the others come."""
    job = await world.delivered(node)
    await world.with_others(others)
    return job


async def test_unproven_work_is_run_again_and_counts_as_checked_when_it_is_the_same(db: Database) -> None:
    world, node = await market_of(db)
    job = await delivered(world, node)
    check = await world.check_of(job)
    assert (check["state"], check["worth_qu"]) == ("waiting", OWED)
    assert (check["start"], check["stop"]) in [(0, 25), (25, 50), (50, 75), (75, 100)]
    drawn = await world.rerun(same=True)
    assert (await world.check_of(job))["state"] == State.PASSED
    assert await world.fund_qu() == FUNDED - RERUN
    assert await drawn.earned_qu() == RERUN - RERUN * FEE_BPS // 10_000
    listing = await world.listed(node)
    assert listing.reliability > 0.0
    assert listing.jobs_accepted == 1
    assert (await world.job(job.job_id)).state is JobState.DELIVERED, "the window goes on"
    await jobs.accept(world.desk, world.consumer, job.job_id)
    assert await node.earned_qu() == PAID
    await world.clean()


async def test_two_contrary_runs_end_in_nothing_paid_and_the_job_goes_on_elsewhere(db: Database) -> None:
    world, node = await market_of(db)
    earlier = await world.delivered(node)
    await jobs.accept(world.desk, world.consumer, earlier.job_id)
    await execute_all(world, "UPDATE spot_check SET state = 'not_done', due_ms = NULL, ended_ms = 0")
    assert await node.earned_qu() == PAID
    job = await delivered(world, node)
    first = await world.rerun(same=False)
    check = await world.check_of(job)
    assert (check["state"] in OPEN, check["against"]) == (True, 1), "one alone proves nothing"
    assert (await world.job(job.job_id)).state is JobState.DELIVERED
    second = await world.rerun(same=False)
    assert first.peer != second.peer
    check = await world.check_of(job)
    assert (check["state"], check["against"]) == (State.FAILED, 2)

    shown = await world.job(job.job_id)
    attempt = shown.attempts[0]
    assert (attempt.state, attempt.verdict, attempt.reason) == (
        AttemptState.REJECTED,
        "refuted",
        Reason.SPOT_CHECK_FAILED,
    )
    assert (attempt.paid_qu, attempt.units_accepted) == (0, 0)
    assert await node.earned_qu() == 0, "new earnings are forfeit"
    assert await world.fund_qu() == FUNDED - 2 * RERUN + PAID
    assert (await world.listed(node)).reliability == 0.0
    assert (await world.listed(node)).jobs_rejected == 1
    found = await world.limits(node)
    assert (found.balance_qu, found.withdrawable_qu, found.new_earnings_qu, found.forfeited_qu) == (0, 0, 0, PAID)
    assert f"{PAID} QU of new earnings are forfeit (spot_check_failed, attempt" in found.text
    await world.clean()

    assert shown.state in (JobState.QUEUED, JobState.ASSIGNED)
    await world.later(1)
    (other,) = [one for one in world.others if await has_open(world, one)]
    assert other.peer != node.peer
    await other.whole_job()
    await world.check()
    done = await jobs.accept(world.desk, world.consumer, job.job_id)
    assert (done.state, done.units_accepted, done.paid_qu) == (JobState.SETTLED, 100, PAID)
    assert await node.earned_qu() == 0
    await world.clean()


async def has_open(world: SpotsWorld, node: Node) -> bool:
    try:
        return (await node.attempt()).state == AttemptState.OFFERED.value
    except CannotNow:
        return False


async def execute_all(world: SpotsWorld, sql: str) -> None:
    await world.db.run(lambda tx: execute(tx, sql))


async def test_the_one_who_made_something_else_than_two_others_is_to_blame(db: Database) -> None:
    world, node = await market_of(db)
    job = await delivered(world, node)
    liar = await world.rerun(same=False)
    honest = await world.rerun(same=True)
    assert (await world.check_of(job))["state"] == State.PASSED
    assert (await world.listed(liar)).jobs_rejected == 1
    assert (await world.listed(honest)).jobs_rejected == (await world.listed(node)).jobs_rejected == 0
    assert (await world.job(job.job_id)).state is JobState.DELIVERED
    await world.clean()


async def test_nobody_to_run_it_again_ends_by_itself_before_the_window_does(db: Database) -> None:
    """trust.md M5."""
    world, node = await market_of(db)
    job = await delivered(world, node, others=0)
    await world.later(world.desk.settings.accept_s * 0.95)
    assert (await world.check_of(job))["state"] == State.NOT_DONE
    assert (await world.job(job.job_id)).state is JobState.DELIVERED
    await world.later(world.desk.settings.accept_s * 0.06)
    assert (await world.job(job.job_id)).state is JobState.SETTLED
    assert await node.earned_qu() == PAID
    await world.clean()


async def test_one_contrary_run_and_nobody_else_is_unpaid_and_without_blame(db: Database) -> None:
    world, node = await market_of(db)
    job = await delivered(world, node, others=1)
    await world.rerun(same=False)
    await world.later(world.desk.settings.accept_s * 0.95)
    assert (await world.check_of(job))["state"] == State.UNDECIDED
    shown = await world.job(job.job_id)
    assert (shown.attempts[0].reason, shown.attempts[0].paid_qu) == (Reason.SPOT_CHECK_UNDECIDED, 0)
    assert await world.db.fetch("SELECT * FROM listing WHERE jobs_rejected > 0") == []
    assert await world.db.fetch("SELECT * FROM forfeit") == []
    await world.clean()


async def test_an_empty_fund_pays_for_nothing(db: Database) -> None:
    world = await SpotsWorld(db).open()
    node = await world.node()
    job = await delivered(world, node)
    await world.later(30)
    assert (await world.check_of(job))["state"] == State.WAITING
    assert await world.db.fetch("SELECT * FROM spot_rerun") == []


async def test_the_day_has_a_limit(db: Database) -> None:
    world, node = await market_of(db, spot_day_max_qu=2 * RERUN + 1)
    job = await delivered(world, node)
    await world.rerun(same=False)
    await world.later(60)
    assert (await world.check_of(job))["state"] == State.WAITING, "a second one is twice the price at first"
    await world.later(86_400 - 200)
    await world.clean()


async def test_relations_run_nothing_again(db: Database) -> None:
    """Neither the provider's own, nor the consumer's, nor somebody with a wallet of theirs."""
    world, node = await market_of(db)
    job = await delivered(world, node, others=3)
    owner = (await world.provider(node)).account_id
    mine, theirs, tied = world.others
    for peer, account in ((mine, owner), (theirs, world.consumer.account_id)):
        await world.db.run(
            lambda tx, peer=peer, account=account: execute(
                tx, "UPDATE node SET account_id = $1 WHERE peer_id = $2", account, peer.peer
            )
        )
    for account in (owner, (await world.provider(tied)).account_id):
        await world.db.run(
            lambda tx, account=account: execute(
                tx,
                "INSERT INTO payout_address (id, account_id, public_key, label, added_ms, usable_ms)"
                " VALUES (gen_random_uuid(), $1, sha256('w'), '', 0, 0)",
                account,
            )
        )
    await world.later(10)
    assert (await world.check_of(job))["state"] == State.WAITING
    assert await world.db.fetch("SELECT * FROM spot_rerun") == []


async def test_a_dispute_takes_over(db: Database) -> None:
    world, node = await market_of(db)
    job = await delivered(world, node)
    await world.later(1)
    dispute = await world.opened(job)
    await world.later(1)
    assert (await world.check_of(job))["state"] == State.NOT_DONE
    await world.withdrawn(dispute)
    for _ in range(3):
        await world.later(10)
    await world.clean()


async def test_work_for_a_related_consumer_is_not_run_again_at_the_fund_s_expense(db: Database) -> None:
    world, node = await market_of(db)
    owner = (await world.provider(node)).account_id
    for account_id in (owner, world.consumer.account_id):
        await db.run(lambda tx, one=account_id: paid_out(tx, one))  # type: ignore[misc]
    await delivered(world, node)
    assert await db.fetch_value("SELECT count(*) FROM attempt WHERE owed_qu > 0") == 1
    assert await db.fetch_value("SELECT count(*) FROM spot_check") == 0


async def test_work_that_was_accepted_meanwhile_stays_paid_but_new_earnings_go(db: Database) -> None:
    """trust.md M6: the consumer's word pays."""
    world, node = await market_of(db)
    job = await delivered(world, node)
    await jobs.accept(world.desk, world.consumer, job.job_id)
    assert await node.earned_qu() == PAID
    await world.rerun(same=False)
    await world.rerun(same=False)
    assert (await world.check_of(job))["state"] == State.FAILED
    shown = await world.job(job.job_id)
    assert (shown.state, shown.paid_qu, shown.attempts[0].verdict) == (JobState.SETTLED, PAID, "accepted")
    assert await node.earned_qu() == 0
    await world.clean()


async def test_checked_work_for_strangers_makes_checks_rare(db: Database) -> None:
    """Drawn by the operating system's randomness: here by every draw there is."""
    world, node = await market_of(db)
    owner = (await world.provider(node)).account_id
    assert await world.db.run(lambda tx: spot.proven_qu(tx, owner)) == 0
    job = await delivered(world, node)
    await world.rerun(same=True)
    assert await world.db.run(lambda tx: spot.proven_qu(tx, owner)) == OWED
    assert await world.db.run(lambda tx: spot.at_stake_qu(tx, owner)) == OWED
    await jobs.accept(world.desk, world.consumer, job.job_id)
    assert await world.db.run(lambda tx: spot.at_stake_qu(tx, owner)) == 0
    await execute_all(
        world,
        "INSERT INTO work_outcome (attempt_id, what, listing_id, provider_id, consumer_id, counts, worth_qu, run_ms,"
        " forecast_ms, at_ms) SELECT attempt_id, 'dispute_lost', listing_id, provider_id, consumer_id, true, 1, 0, 0, 0"
        " FROM work_outcome WHERE what = 'right'",
    )
    assert await world.db.run(lambda tx: spot.proven_qu(tx, owner)) == 0, "after an error back to certain"


@pytest.mark.parametrize(
    ("proven", "drawn", "checked"), [(0, 999_999, True), (20, 499_999, True), (20, 500_000, False)]
)
async def test_the_draw(db: Database, proven: int, drawn: int, checked: bool) -> None:
    world, node = await market_of(db)
    job = await delivered(world, node)
    await execute_all(world, "DELETE FROM spot_check")
    attempt, row = await node.attempt(), await world.row(UUID(job.job_id))
    owner = (await world.provider(node)).account_id
    if proven:
        await world.db.run(
            lambda tx: execute(
                tx,
                "INSERT INTO work_outcome (attempt_id, what, listing_id, provider_id, consumer_id, counts, worth_qu,"
                " run_ms, forecast_ms, at_ms) VALUES ($1, 'right', $2, $3, $4, true, $5, 0, 0, 0)",
                attempt.id,
                attempt.listing_id,
                owner,
                world.consumer.account_id,
                proven * OWED // 10,
            )
        )
    links = await world.links(attempt.id)

    def below(limit: int) -> int:
        return drawn if limit == spot.OF else 2

    found = await world.db.run(lambda tx: spot.consider(world.desk, tx, row, attempt, owner, links, below))
    assert found is checked
    if checked:
        assert ((await world.check_of(job))["start"], (await world.check_of(job))["stop"]) == (50, 75)


# Forfeits and withdrawals ---------------------------------------------------------------------------------------------


async def test_a_wrong_result_takes_new_earnings_that_nobody_checked(db: Database) -> None:
    """And leaves those that a verifier judged before they were paid."""
    world, node = await market_of(db)
    job = await world.delivered(node)
    await jobs.accept(world.desk, world.consumer, job.job_id)
    await node.offer(rates=CHECKED)
    await World.assigned(world, **matmul(world))
    await node.whole_job()
    await world.check()
    assert await node.earned_qu() == 2 * PAID
    await node.offer(rates=CHECKED)
    await World.assigned(world, **matmul(world))
    await node.whole_job()
    await world.check([True, False, True, True])
    assert await node.earned_qu() == PAID + PAID // 4 + 1
    (row,) = await world.db.fetch("SELECT * FROM forfeit")
    assert (row["amount_qu"], row["reason"]) == (PAID, "wrong_result")
    assert "wrong_result" in (await world.limits(node)).text
    await world.clean()


CHECKED = (KernelRate(kernel="matmul", backend="cpu", flops_per_s=FLOPS / FORECAST_MS * 1000, bytes_per_s=1e12),)


def matmul(world: SpotsWorld) -> dict[str, Any]:
    body = World.body(world)
    return {"kernel": "matmul", "inputs": body.inputs, "params": {}}


async def test_what_was_spent_cannot_be_taken_and_is_new_no_more(db: Database) -> None:
    world, node = await market_of(db)
    owner = await world.provider(node)
    job = await world.delivered(node)
    await jobs.accept(world.desk, world.consumer, job.job_id)
    spend = ledger.hold(UUID(int=91), owner.account_id, PAID - 100)
    await world.db.run(lambda tx: post(tx, [spend]))
    assert await take(world, node, job) == 100
    assert await take(world, node, job) == 0, "once for each cause"
    found = await world.limits(node)
    assert (found.balance_qu, found.new_earnings_qu, found.forfeited_qu) == (0, 0, 100)
    await world.db.run(lambda tx: post(tx, [ledger.give_back(UUID(int=91), owner.account_id, PAID - 100)]))
    assert (await world.limits(node)).withdrawable_qu == PAID - 100
    again = await world.delivered(node)
    await jobs.accept(world.desk, world.consumer, again.job_id)
    found = await world.limits(node)
    assert (found.new_earnings_qu, found.withdrawable_qu) == (PAID, PAID - 100), "newer earnings are new again"


async def take(world: SpotsWorld, node: Node, job: JobView) -> int:
    owner, attempt = await world.provider(node), await node.attempt()

    async def step(tx: Any) -> int:
        return await forfeits.take(
            tx,
            UUID(int=attempt.id.int ^ 1),
            owner.account_id,
            attempt_id=attempt.id,
            job_id=UUID(job.job_id),
            reason=Reason.SPOT_CHECK_FAILED,
            delay_s=world.desk.settings.withdrawal_earnings_delay_s,
            now_ms=world.desk.now_ms(),
        )

    return await world.db.run(step)


async def test_old_earnings_are_not_taken(db: Database) -> None:
    world, node = await market_of(db, withdrawal_earnings_delay_s=0)
    job = await world.delivered(node)
    await jobs.accept(world.desk, world.consumer, job.job_id)
    assert await take(world, node, job) == 0
    assert (await world.limits(node)).withdrawable_qu == PAID


@pytest.mark.parametrize("old_qu", [0, 5_000])
async def test_withdrawals_and_a_forfeit_at_once(db: Database, old_qu: int) -> None:
    """Whoever comes first: what is old can be withdrawn once, what is new is forfeit, nothing is left or doubled."""
    world, node = await market_of(db, spot_day_max_qu=0)
    for _ in range(4):
        owner = await world.provider(node)
        if old_qu:
            await world.fund_account(owner.account_id, old_qu)
        job = await world.delivered(node, provider=node.peer)
        await jobs.accept(world.desk, world.consumer, job.job_id)
        asked = [withdraw(world, owner, qu) for qu in (PAID, PAID + old_qu, 1_000, 5_000, 5_000)]
        taken, *found = await asyncio.gather(take(world, node, job), *asked, return_exceptions=True)
        assert taken == PAID
        gone = sum(one for one in found if isinstance(one, int))
        assert gone <= old_qu
        assert all(isinstance(one, int | NotEnoughBalance | Conflict) for one in found), found
        assert await world.balance_qu(owner.account_id) == old_qu - gone
        left = await world.limits(node)
        assert (left.withdrawable_qu, left.new_earnings_qu) == (old_qu - gone, 0)
        node = await world.node()
    assert await world.fund_qu() == FUNDED + 4 * PAID


async def withdraw(world: SpotsWorld, owner: Principal, amount_qu: int) -> int:
    """As a withdrawal does it, without an address."""
    desk = WithdrawalDesk(world.db, dataclasses.replace(world.desk.settings, withdrawal_min_qu=1), world.desk.clock)
    key = UUID(int=next(world.numbers))

    async def step(tx: Any) -> int:
        await lock_account(tx, owner.account_id)
        await limits.check_amount(desk, tx, owner.account_id, amount_qu)
        await post(tx, [ledger.withdraw(key, owner.account_id, amount_qu)])
        return amount_qu

    return await world.db.run(step)


async def test_what_is_proven_is_found_by_indexes_however_much_a_provider_has_done(db: Database) -> None:
    async with db.transaction() as tx:
        await execute(tx, "SET LOCAL enable_seqscan = off")
        plan = await rows(tx, f"EXPLAIN {spot.PROVEN}", UUID(int=1), spot.PROVEN_LAST)
    lines = "\n".join(line["QUERY PLAN"] for line in plan)
    assert all(f"using work_outcome_{name}" in lines for name in ("right", "wrong")), lines
