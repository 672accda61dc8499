# SPDX-License-Identifier: Apache-2.0
"""Disputes from opening to their end (trust.md M4, M5, M7, C1): bonds, deadlines, re-runs, arbiters, the fund."""

import asyncio
from collections.abc import Iterator
from uuid import UUID

import asyncpg
import pytest

from qubix_coordinator.accounts.rules import Principal, Scope
from qubix_coordinator.db.database import Database, Tx, execute
from qubix_coordinator.disputes import look, money
from qubix_coordinator.disputes import service as disputes
from qubix_coordinator.disputes.tables import Dispute
from qubix_coordinator.errors import Conflict, Forbidden, InvalidInput, LimitExceeded, NotEnoughBalance, NotFound
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.jobs.tables import Job
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.ledger.post import post
from qubix_coordinator.ledger.read import balance_qu
from qubix_coordinator.ledger.rules import FUND
from qubix_coordinator.outbox import events
from qubix_coordinator.outbox.rules import START
from qubix_protocol.disputes import DisputeState, DisputeView, Finding, Outcome, Side
from qubix_protocol.states import AttemptState, JobState, Reason
from tests.db.disputes_world import FOREIGN_HOLD, CheckedWorld, DisputesWorld
from tests.db.jobs_world import CAP, CREDIT, RATE, UNITS, Node
from tests.db.unchecked_world import OWED, RATES, WINDOW_S
from tests.support.own import unchecked

BOND = 25_000
"""Twice 1.25 times the forecast."""
FEE = OWED * 250 // 10_000


@pytest.fixture(autouse=True)
def with_orbit() -> Iterator[None]:
    with unchecked.registered():
        yield


async def consumer_qu(world: DisputesWorld | CheckedWorld) -> int:
    return await world.balance_qu(world.consumer.account_id)


async def to_judging(world: DisputesWorld, *, same: bool | None = None) -> tuple[DisputeView, Node]:
    """A disputed job whose units were run again elsewhere and compared; None: nobody could."""
    node = await world.node()
    job = await world.delivered(node, provider=node.peer)
    other = await world.node() if same is not None else None
    dispute = await world.opened(job)
    await world.answered(dispute, await world.provider(node))
    if other is None:
        await world.later(world.desk.settings.dispute_rerun_s)
    else:
        await world.later(1)
        await other.offer(rates=RATES)
        await world.later(1)
        await other.whole_job()
        await world.check()
        await world.later(1)
        await world.later(1)
        await world.look(bool(same))
    return await world.seen(dispute), node


@pytest.mark.asyncio
async def test_opening_posts_the_bond_and_holds_the_payment_up(db: Database) -> None:
    world = await DisputesWorld(db).open()
    node = await world.node()
    job = await world.delivered(node)
    dispute = await world.opened(job, digests=("ab" * 32,))
    assert (dispute.state, dispute.opened_by, dispute.you) == (DisputeState.OPENED, Side.CONSUMER, "consumer")
    assert (dispute.stake_qu, dispute.bond_qu) == (OWED, BOND)
    assert await consumer_qu(world) == CREDIT - CAP - BOND
    shown = await world.job(job.job_id)
    assert (shown.state, shown.reason, shown.accept_until_ms) == (JobState.DISPUTED, Reason.DISPUTE_OPENED, None)
    await world.clean()
    with pytest.raises(Conflict, match="nothing to accept"):
        await jobs.accept(world.desk, world.consumer, job.job_id)
    with pytest.raises(Conflict, match="already"):
        await world.opened(job)
    mine, theirs = await world.seen(dispute), await world.seen(dispute, await world.provider(node))
    assert theirs.you == "provider"
    assert mine.steps == theirs.steps
    assert [(one.by, one.what, one.digests) for one in mine.steps] == [("consumer", "opened", ("ab" * 32,))]
    assert mine.evidence == theirs.evidence
    assert [link.good for link in mine.evidence.links] == [True] * 4
    assert mine.evidence.report
    with pytest.raises(NotFound):
        await world.seen(dispute, Principal(UUID(int=9), frozenset({Scope.USER})))
    assert (await world.seen(dispute, world.arbiters[0])).you == "arbiter"


@pytest.mark.asyncio
async def test_nobody_answers_and_the_opener_gets_everything_back(db: Database) -> None:
    """trust.md M5."""
    world = await DisputesWorld(db).open()
    node = await world.node()
    dispute = await world.opened(await world.delivered(node))
    await world.later(world.desk.settings.dispute_answer_s - 1)
    assert (await world.seen(dispute)).state is DisputeState.OPENED
    await world.later(2)
    done = await world.seen(dispute)
    assert (done.outcome, done.award_qu, done.awarded_from) == (Outcome.DEFAULTED, OWED, {"hold": OWED})
    job = await world.job(dispute.job_id)
    assert (job.state, job.reason) == (JobState.RESOLVED, Reason.DISPUTE_DECIDED)
    assert (job.paid_qu, job.returned_qu, job.attempts[0].state) == (0, CAP, AttemptState.REJECTED)
    assert await consumer_qu(world) == CREDIT
    assert await node.earned_qu() == 0
    await world.clean()


@pytest.mark.asyncio
async def test_conceding_gives_everything_back_at_once(db: Database) -> None:
    world = await DisputesWorld(db).open()
    node = await world.node()
    dispute = await world.opened(await world.delivered(node))
    done = await world.answered(dispute, await world.provider(node), concede=True)
    assert (done.outcome, done.award_qu) == (Outcome.CONCEDED, OWED)
    assert await consumer_qu(world) == CREDIT
    await world.clean()
    with pytest.raises(Conflict, match="resolved"):
        await world.answered(dispute, await world.provider(node))


@pytest.mark.asyncio
async def test_withdrawing_early_costs_nothing_and_late_the_bond(db: Database) -> None:
    world = await DisputesWorld(db).open()
    node = await world.node()
    dispute = await world.opened(await world.delivered(node))
    with pytest.raises(Forbidden):
        await world.withdrawn(dispute, await world.provider(node))
    done = await world.withdrawn(dispute)
    assert (done.outcome, done.award_qu) == (Outcome.WITHDRAWN, 0)
    assert (await world.job(dispute.job_id)).paid_qu == OWED - FEE
    assert await consumer_qu(world) == CREDIT - OWED
    assert (await world.withdrawn(dispute)).revision == done.revision
    await world.clean()
    second, judged = await to_judging(world)
    await world.withdrawn(second)
    assert await judged.earned_qu() == OWED - FEE + BOND
    await world.clean()


@pytest.mark.asyncio
@pytest.mark.parametrize("same", [True, False])
async def test_an_unrelated_provider_runs_it_again_and_the_comparison_decides(db: Database, same: bool) -> None:
    world = await DisputesWorld(db).open()
    dispute, node = await to_judging(world, same=same)
    assert (dispute.state, dispute.finding) == (DisputeState.JUDGING, Finding.UPHELD if same else Finding.REFUTED)
    assert dispute.rerun_cost_qu == OWED
    await world.clean()
    await world.later(world.desk.settings.dispute_judge_s)
    done = await world.seen(dispute)
    assert done.outcome is (Outcome.UPHELD if same else Outcome.REFUTED)
    assert [one.what for one in done.steps] == [
        "opened",
        "answered",
        "rerunning",
        "drawn",
        "ran_again",
        "judging",
        done.outcome.value,
    ]
    earned, spent = await node.earned_qu(), CREDIT - await consumer_qu(world)
    if same:
        assert (earned, spent) == (OWED - FEE + BOND - OWED, OWED + BOND)
    else:
        assert (earned, spent) == (0, OWED), "the re-run was paid, all else came back"
    rerunner = next(one for one in await world.db.fetch("SELECT rerun_peer_id FROM dispute"))["rerun_peer_id"]
    assert rerunner != node.peer
    await world.clean()


@pytest.mark.asyncio
async def test_what_was_run_again_is_nobodys_to_read_or_stop(db: Database) -> None:
    world = await DisputesWorld(db).open()
    await to_judging(world, same=True)
    found = await jobs.list_jobs(world.desk, world.consumer)
    assert len(found.jobs) == 1
    (rerun,) = await db.fetch("SELECT id FROM job WHERE data_account_id IS NOT NULL")
    with pytest.raises(NotFound):
        await world.cancel(str(rerun["id"]))
    unreadable = await db.fetch(
        "SELECT a.readable FROM link l JOIN job j ON j.no = l.job_no JOIN artifact a ON a.digest = l.output_digest"
        " WHERE j.data_account_id IS NOT NULL"
    )
    assert [row["readable"] for row in unreadable] == [False] * 4


@pytest.mark.asyncio
async def test_undecidable_is_refunded_less_the_bond(db: Database) -> None:
    """trust.md M7: there is nobody unrelated to run it again, and no arbiter says anything."""
    world = await DisputesWorld(db).open()
    dispute, node = await to_judging(world)
    assert dispute.finding is Finding.UNDECIDABLE
    await world.later(world.desk.settings.dispute_judge_s)
    done = await world.seen(dispute)
    assert (done.outcome, done.award_qu) == (Outcome.UNDECIDABLE, OWED)
    assert CREDIT - await consumer_qu(world) == BOND
    assert await node.earned_qu() == BOND
    await world.clean()


@pytest.mark.asyncio
async def test_an_arbiter_splits_and_the_ledger_follows(db: Database) -> None:
    world = await DisputesWorld(db).open()
    dispute, node = await to_judging(world, same=False)
    with pytest.raises(InvalidInput, match="at stake"):
        await world.decided(dispute, OWED + 1)
    done = await world.decided(dispute, 4_000)
    assert (done.outcome, done.award_qu, done.awarded_from) == (Outcome.DECIDED, 4_000, {"hold": 4_000})
    job = await world.job(done.job_id)
    assert (job.state, job.paid_qu + job.fee_qu, job.returned_qu) == (JobState.RESOLVED, 6_000, CAP - 6_000)
    assert job.attempts[0].state is AttemptState.ACCEPTED
    assert await node.earned_qu() == job.paid_qu + BOND - OWED, "less than half: the opener loses the bond"
    assert done.steps[-2].by == "arbiter"
    with pytest.raises(Conflict, match="resolved"):
        await world.decided(dispute, 4_001)
    assert (await world.decided(dispute, 4_000)).revision == done.revision, "the same word again is no second one"
    with pytest.raises(Conflict, match="resolved"):
        await world.decided(dispute, 4_000, 1)
    await world.clean()


@pytest.mark.asyncio
async def test_an_arbiter_is_no_party_and_has_patience(db: Database) -> None:
    """trust.md M7."""
    world = await DisputesWorld(db).open()
    node = await world.node()
    dispute = await world.opened(await world.delivered(node))
    with pytest.raises(Conflict, match="other side"):
        await world.decided(dispute, 1)
    judged, maker = await to_judging(world)
    for party in (world.consumer, await world.provider(maker)):
        world.arbiters.append(Principal(party.account_id, frozenset({Scope.USER, Scope.ARBITER})))
        with pytest.raises(Forbidden, match="party"):
            await world.decided(judged, 1, arbiter=-1)
    mine = await world.provider(maker)
    with pytest.raises(asyncpg.PostgresError, match="cannot judge"):
        await db.run(
            lambda tx: execute(
                tx,
                "INSERT INTO dispute_vote (dispute_id, arbiter_id, award_qu, reason, at_ms) SELECT id, $1, 1, '', 1"
                " FROM dispute WHERE provider_id = $1",
                mine.account_id,
            )
        )


@pytest.mark.asyncio
async def test_an_arbiter_who_shares_a_wallet_with_a_party_is_one(db: Database) -> None:
    world = await DisputesWorld(db).open()
    dispute, _ = await to_judging(world)
    for account in (world.consumer.account_id, world.arbiters[0].account_id):
        await bind_wallet(db, account, b"w" * 32, ended=account == world.consumer.account_id)
    with pytest.raises(Forbidden, match="party"):
        await world.decided(dispute, 1)
    assert (await world.decided(dispute, 1, arbiter=1)).outcome is Outcome.DECIDED


async def bind_wallet(db: Database, account: UUID, key: bytes, *, ended: bool = False) -> None:
    await db.run(
        lambda tx: execute(
            tx,
            "INSERT INTO wallet (id, account_id, public_key, proof, ended_at) VALUES"
            " (gen_random_uuid(), $1, $2, 'signature', CASE WHEN $3 THEN now() END)",
            account,
            key,
            ended,
        )
    )


@pytest.mark.asyncio
async def test_a_large_one_needs_two_arbiters_who_agree(db: Database) -> None:
    """trust.md M7."""
    world = await DisputesWorld(db).open(dispute_two_above_qu=OWED - 1)
    dispute, _ = await to_judging(world)
    assert dispute.arbiters_needed == 2
    for award, arbiter in ((4_000, 0), (4_000, 0), (5_000, 1), (6_000, 1)):
        assert (await world.decided(dispute, award, arbiter)).state is DisputeState.JUDGING
    done = await world.decided(dispute, 6_000, 2)
    assert (done.outcome, done.award_qu) == (Outcome.DECIDED, 6_000)
    await world.clean()


@pytest.mark.asyncio
async def test_two_arbiters_at_once_decide_once(db: Database) -> None:
    world = await DisputesWorld(db).open()
    dispute, _ = await to_judging(world)
    results = await asyncio.gather(
        *[world.decided(dispute, 1_000 * (1 + n), n % 3) for n in range(6)],
        world.withdrawn(dispute),
        return_exceptions=True,
    )
    assert sum(not isinstance(one, BaseException) for one in results) == 1
    assert all(isinstance(one, Conflict) for one in results if isinstance(one, BaseException))
    await world.clean()


@pytest.mark.asyncio
async def test_accepting_disputing_and_the_windows_end_exclude_each_other(db: Database) -> None:
    """trust.md M4."""
    world = await DisputesWorld(db).open()
    for delay_s in (WINDOW_S - 1, WINDOW_S):
        node = await world.node()
        job = await world.delivered(node)
        world.clock.advance(delay_s)
        outcomes = await asyncio.gather(
            world.opened(job),
            jobs.accept(world.desk, world.consumer, job.job_id),
            jobs.settle_due(world.desk, UUID(job.job_id)),
            return_exceptions=True,
        )
        assert all(not isinstance(one, BaseException) or isinstance(one, Conflict) for one in outcomes), outcomes
        shown = await world.job(job.job_id)
        assert shown.state in (JobState.SETTLED, JobState.DISPUTED)
        await world.clean()


@pytest.mark.asyncio
async def test_a_settled_job_is_refunded_by_the_provider_and_then_the_fund(db: Database) -> None:
    world = await CheckedWorld(db).open(fund_bps=10_000)
    node = await world.node()
    view = await world.assigned()
    await node.whole_job()
    await world.check()
    await earlier_fees(world)
    dispute = await world.opened(view.job_id)
    assert (dispute.stake_qu, dispute.bond_qu) == (OWED, 100)
    assert (await world.job(view.job_id)).state is JobState.SETTLED
    await world.later(world.desk.settings.dispute_answer_s)
    assert (await world.seen(dispute)).state is DisputeState.RERUNNING, "the verdict answers"
    await spend(world, node, OWED - FEE - 300)
    await world.later(1)
    claim = await world.look(False)
    assert claim.others == ()
    assert len(claim.outputs) == 4
    await world.later(world.desk.settings.dispute_judge_s)
    done = await world.seen(dispute)
    assert done.outcome is Outcome.REFUTED
    rest = OWED - 300
    assert sum(done.awarded_from.values()) == OWED
    assert done.awarded_from["provider"] == 300
    assert done.awarded_from["fund"] + done.awarded_from.get("fees", 0) == rest
    assert await consumer_qu(world) == CREDIT
    assert (await world.job(view.job_id)).state is JobState.SETTLED
    await world.clean()


async def earlier_fees(world: DisputesWorld | CheckedWorld, amount_qu: int = 400_000) -> None:
    """Fees that others have paid, and the fund's part of them."""
    rich = await world.node(rate_qu_per_h=RATE * 20)
    payer = await world.provider(rich)
    other = UUID(int=77)
    await world.db.run(
        lambda tx: execute(tx, "INSERT INTO account (id, kind, name) VALUES ($1, 'user', 'somebody')", other)
    )
    await world.fund_account(other, amount_qu)

    job = FOREIGN_HOLD
    await world.db.run(
        lambda tx: post(
            tx,
            [ledger.hold(job, other, amount_qu), ledger.settle(job, UUID(int=79), payer.account_id, 0, amount_qu)],
        )
    )
    await rich.offer(rate_qu_per_h=10**12)
    moved = await world.db.run(lambda tx: money.feed_fund(world.desk, tx))
    assert moved == await world.db.run(lambda tx: balance_qu(tx, FUND)) > 0
    assert await world.db.run(lambda tx: money.feed_fund(world.desk, tx)) == 0


async def spend(world: DisputesWorld | CheckedWorld, node: Node, amount_qu: int) -> None:
    """The provider's money goes into a job of its own."""

    owner = await world.provider(node)
    await world.db.run(lambda tx: post(tx, [ledger.withdraw(UUID(int=81), owner.account_id, amount_qu)]))


@pytest.mark.asyncio
async def test_the_fund_keeps_its_caps_and_pays_no_word_alone(db: Database) -> None:
    """trust.md M7."""
    world = await CheckedWorld(db).open(fund_bps=10_000, fund_account_day_max_qu=4_000, fund_day_max_qu=5_000)
    node = await world.node()
    await earlier_fees(world)
    outcomes = []
    for _ in range(2):
        view = await world.assigned()
        await node.whole_job()
        await world.check()
        dispute = await world.opened(view.job_id)
        await world.answered(dispute, await world.provider(node))
        balance = await node.earned_qu()
        if balance:
            owner, key = await world.provider(node), UUID(dispute.dispute_id)
            await world.db.run(lambda tx, o=owner, b=balance, k=key: post(tx, [ledger.withdraw(k, o.account_id, b)]))  # type: ignore[misc]
        await world.later(1)
        await world.look(False)
        outcomes.append(await world.decided(dispute, OWED))
    first, second = outcomes
    assert first.awarded_from["fund"] == 4_000
    assert "fund" not in second.awarded_from, "this account has had its share of the day"
    assert second.awarded_from["unpaid"] > 0
    await world.clean()
    view = await world.assigned()
    await node.whole_job()
    await world.check()
    await world.later(86_401)
    third = await world.opened(view.job_id)
    owner, left = await world.provider(node), await node.earned_qu()

    await world.db.run(lambda tx: post(tx, [ledger.withdraw(UUID(int=99), owner.account_id, left)]))
    conceded = await world.answered(third, owner, concede=True)
    assert "fund" not in conceded.awarded_from, "two sides who agree cannot empty the fund"
    await world.clean()


@pytest.mark.asyncio
@pytest.mark.parametrize("right", [True, False])
async def test_a_provider_disputes_a_verdict(db: Database, right: bool) -> None:
    world = await CheckedWorld(db).open(fund_bps=10_000)
    await earlier_fees(world)
    node = await world.node()
    view = await world.assigned()
    await node.whole_job()
    await world.check([False] * 4)
    await world.cancel(view.job_id)
    owner = await world.provider(node)
    with pytest.raises(NotEnoughBalance, match="bond"):
        await world.opened(view.job_id, owner)
    await world.fund_account(owner.account_id, 100)
    dispute = await world.opened(view.job_id, owner)
    assert (dispute.opened_by, dispute.stake_qu) == (Side.PROVIDER, 12_500)
    with pytest.raises(Conflict, match="check is disputed"):
        await world.answered(dispute, world.consumer, concede=True)
    await world.later(world.desk.settings.dispute_answer_s)
    await world.later(1)
    await world.look(right)
    await world.later(world.desk.settings.dispute_judge_s)
    done = await world.seen(dispute)
    assert done.outcome is (Outcome.UPHELD if right else Outcome.REFUTED)
    assert done.awarded_from == ({"fund": 12_500} if right else {})
    assert await node.earned_qu() == (12_600 if right else 0)
    assert await consumer_qu(world) == CREDIT + (0 if right else 100)
    await world.clean()


@pytest.mark.asyncio
async def test_providers_together_stake_no_more_than_the_hold(db: Database) -> None:
    """M7: of awards, too, the sum is within the hold, however many attempts were rejected."""
    world = await CheckedWorld(db).open()
    sides = []
    view = await world.submit(cap_qu=20_000)
    for _ in range(2):
        node = await world.node()
        await world.pass_time(10)
        await node.whole_job()
        await world.check([False] * 4)
        sides.append(await world.provider(node))
    await world.cancel(view.job_id)
    for owner in sides:
        await world.fund_account(owner.account_id, 100)
    assert [(await world.opened(view.job_id, owner)).stake_qu for owner in sides] == [12_500, 7_500]
    with pytest.raises(Conflict, match="disputed already"):
        await world.opened(view.job_id, sides[0])
    await world.clean()


@pytest.mark.asyncio
async def test_what_cannot_be_disputed(db: Database) -> None:
    world = await CheckedWorld(db).open()
    node = await world.node()
    view = await world.assigned()
    with pytest.raises(Conflict, match="nothing is owed"):
        await world.opened(view.job_id)
    await node.whole_job()
    await world.check()
    with pytest.raises(NotFound):
        await world.opened(view.job_id, world.arbiters[0])
    with pytest.raises(NotFound):
        await world.opened("nonsense")
    with pytest.raises(Conflict, match="attempt 7"):
        await world.opened(view.job_id, attempt=7)
    with pytest.raises(Conflict, match="rejected"):
        await world.opened(view.job_id, await world.provider(node))
    await world.later(world.desk.settings.dispute_s + 1)
    with pytest.raises(Conflict, match="ended more than"):
        await world.opened(view.job_id)


@pytest.mark.asyncio
async def test_statements_are_bounded_and_end_with_the_dispute(db: Database) -> None:
    world = await DisputesWorld(db).open()
    node = await world.node()
    dispute = await world.opened(await world.delivered(node))
    for _ in range(disputes.STATEMENTS_MAX - 1):
        await world.stated(dispute, world.consumer)
    with pytest.raises(LimitExceeded):
        await world.stated(dispute, world.consumer)
    assert (await world.stated(dispute, await world.provider(node))).steps[-1].by == "provider"
    await world.withdrawn(dispute)
    with pytest.raises(Conflict):
        await world.stated(dispute, await world.provider(node))


@pytest.mark.asyncio
async def test_both_sides_stake_and_the_winner_takes_the_pot(db: Database) -> None:
    world = await DisputesWorld(db).open()
    node = await world.node()
    job = await world.delivered(node)
    owner = await world.provider(node)
    await world.fund_account(owner.account_id, BOND)
    dispute = await world.opened(job)
    answered = await world.answered(dispute, owner, bond=True)
    assert answered.answer_bond_qu == BOND
    await world.clean()
    await world.later(world.desk.settings.dispute_rerun_s)
    await world.decided(dispute, OWED)
    assert await consumer_qu(world) == CREDIT + BOND
    assert await node.earned_qu() == 0
    await world.clean()


@pytest.mark.asyncio
async def test_a_re_runner_who_vanishes_is_followed_by_another(db: Database) -> None:
    """Three draws at most; then it is undecidable."""
    world = await DisputesWorld(db).open()
    node = await world.node()
    job = await world.delivered(node)
    crowd = [await world.node() for _ in range(4)]
    dispute = await world.opened(job)
    await world.answered(dispute, await world.provider(node))
    asked = []
    for _ in range(3):
        for one in crowd:
            await one.offer(rates=RATES)
        await world.later(6)
        asked.append((await world.seen(dispute)).evidence.rerun_by)
        await world.later(world.desk.settings.dispute_rerun_s / 4)
        await world.clean()
    assert len(set(asked)) == len(asked) == 3
    assert node.peer not in asked
    await world.later(10)
    seen = await world.seen(dispute)
    assert (seen.state, seen.finding, seen.rerun_cost_qu) == (DisputeState.JUDGING, Finding.UNDECIDABLE, 0)


@pytest.mark.asyncio
async def test_relatives_and_those_who_worked_on_it_are_not_drawn(db: Database) -> None:
    """trust.md M7, through the database: same account, same wallet, or the same job."""
    world = await DisputesWorld(db).open()
    node = await world.node()
    job = await world.delivered(node)
    sibling, wallet_mate, stranger = [await world.node() for _ in range(3)]
    owner = await world.provider(node)
    await db.run(
        lambda tx: execute(tx, "UPDATE node SET account_id = $1 WHERE peer_id = $2", owner.account_id, sibling.peer)
    )
    for one in (node, wallet_mate):
        await bind_wallet(db, (await world.provider(one)).account_id, b"k" * 32, ended=one is node)
    dispute = await world.opened(job)
    await world.answered(dispute, owner)

    async def step(tx: Tx) -> list[str]:

        row = await Dispute.filter(id=UUID(dispute.dispute_id)).using_db(tx).get()
        first = await Job.filter(id=row.job_id).using_db(tx).get()
        return [one.peer_id for one in await look.eligible(world.desk, tx, first, row, BOND)]

    assert await db.run(step) == [stranger.peer]


@pytest.mark.asyncio
async def test_a_dispute_that_ends_stops_its_re_run_and_the_rest_of_the_bond_follows(db: Database) -> None:
    world = await DisputesWorld(db).open()
    node = await world.node()
    job = await world.delivered(node)
    other = await world.node()
    dispute = await world.opened(job)
    await world.answered(dispute, await world.provider(node))
    await world.later(1)
    await other.offer(rates=RATES)
    await world.later(1)
    await other.accept()
    await other.work(0, 25, 2_500, took_s=2.5)
    assert (await world.counted())[str(money.COURT)] == BOND, "the re-run was lent the bond, which is not counted twice"
    done = await world.answered(dispute, await world.provider(node), concede=True)
    assert done.outcome is Outcome.CONCEDED
    await world.check()
    await world.later(1)
    await world.later(1)
    assert (await world.seen(dispute)).rerun_cost_qu == OWED // 4
    assert await consumer_qu(world) == CREDIT - OWED // 4
    assert await other.earned_qu() > 0
    await world.clean()


@pytest.mark.asyncio
async def test_each_step_is_told_live(db: Database) -> None:
    world = await DisputesWorld(db).open()
    node = await world.node()
    dispute = await world.opened(await world.delivered(node))
    await world.withdrawn(dispute)
    heard = await events.read(db, START, [f"dispute:{dispute.dispute_id}"])
    assert [one.payload["state"] for one in heard] == ["opened", "resolved"]
    revisions = [one.payload["revision"] for one in heard]
    assert revisions == sorted(revisions)
    assert heard[-1].payload["you"] == ""


@pytest.mark.asyncio
async def test_two_attempts_are_disputed_each_by_itself(db: Database) -> None:
    world = await DisputesWorld(db).open()
    one, two = await world.node(), await world.node()
    view = await world.assigned(spread=2)
    attempts = [await one.accept(), await two.accept()]
    for part in (0, 25):
        for node, attempt in zip((one, two), attempts, strict=True):
            start = attempt.ranges[0][0] + part
            await node.work(start, start + 25, 2_500, took_s=2.5)
    for node in (one, two):
        await node.report()
        await world.check()
    with pytest.raises(InvalidInput, match="2 attempts"):
        await world.opened(view.job_id)
    first = await world.opened(view.job_id, attempt=1)
    second = await world.opened(view.job_id, attempt=2)
    maker = one if first.provider == one.peer else two
    await world.answered(first, await world.provider(maker), concede=True)
    assert (await world.job(view.job_id)).state is JobState.DISPUTED
    await world.clean()
    await world.withdrawn(second)
    job = await world.job(view.job_id)
    assert job.state is JobState.RESOLVED
    assert [each.paid_qu + each.fee_qu for each in job.attempts] == [0, OWED // 2]
    assert [each.units_accepted for each in job.attempts] == [0, UNITS // 2]
    await world.clean()


@pytest.mark.asyncio
async def test_anybody_may_have_a_due_dispute_settled(db: Database) -> None:
    world = await DisputesWorld(db).open()
    node = await world.node()
    dispute = await world.opened(await world.delivered(node))
    key = UUID(dispute.job_id)
    assert await disputes.settle_due(world.desk, key) == dispute.due_ms
    world.clock.advance(world.desk.settings.dispute_answer_s)
    assert await disputes.settle_due(world.desk, key) is None
    assert (await world.seen(dispute)).outcome is Outcome.DEFAULTED
    assert await jobs.settle_due(world.desk, key) is None
