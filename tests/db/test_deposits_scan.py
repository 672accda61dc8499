# SPDX-License-Identifier: Apache-2.0
"""Q1: each payment is verified, credited once, and never while what is told contradicts itself."""

import asyncio
import dataclasses
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from qubix_chain.rpc import Agreed
from qubix_chain.rpc.errors import ChainError, Disagreement, Untrusted
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts import wallets
from qubix_coordinator.db.database import Database
from qubix_coordinator.deposits import pool, scan, sweep
from qubix_coordinator.deposits.desk import TurnLost
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.ledger.audit import audit_now
from tests.db.deposits_world import World
from tests.support.fake_chain import FakeChain, key_of

pytestmark = pytest.mark.asyncio


async def test_a_payment_is_credited_once_with_its_transaction(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    tx_id = world.chain.pay(world.keys[account], 5_000)
    await world.settle(4)
    assert await world.balance(account) == 5_000
    (found,) = await world.deposits(account)
    assert (found.tx_id, found.tick, found.output, found.amount_qu) == (tx_id, 1001, 0, 5_000)
    assert (found.state, found.evidence, found.source) == ("credited", "event_log", world.chain.faucet)
    await world.again()
    await world.settle(4)
    assert await world.balance(account) == 5_000
    assert (await audit_now(db)).clean


async def test_the_archive_is_waited_for(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    world.chain.pay(world.keys[account], 5_000)
    await world.settle(2)
    assert await world.balance(account) == 0
    await world.settle(1)
    assert await world.balance(account) == 5_000


async def test_small_payments_are_shown_and_not_credited(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    world.chain.pay(world.keys[account], 99)
    world.chain.advance()
    world.chain.pay(world.keys[account], 100)
    await world.settle(4)
    assert await world.balance(account) == 100
    assert [(one.amount_qu, one.state, one.reason) for one in await world.deposits(account)] == [
        (100, "credited", ""),
        (99, "seen", "below_minimum"),
    ]


@pytest.mark.parametrize("keeps_logs", [True, False])
async def test_each_output_of_a_send_many_is_credited_by_itself(db: Database, *, keeps_logs: bool) -> None:
    world = await World.make(db)
    world.chain.keeps_logs = keeps_logs
    one, other = await world.account(), await world.account()
    mine, theirs = world.keys[one], world.keys[other]
    world.chain.pay_many([(mine, 300), (theirs, 400), (mine, 300), (key_of("z" * 55), 9)])
    world.chain.advance()
    world.chain.pay_many([(mine, 7_000)], short_qu=1)
    await world.settle(5)
    assert (await world.balance(one), await world.balance(other)) == (600, 400)
    assert sorted((d.output, d.amount_qu) for d in await world.deposits(one)) == [(0, 300), (2, 300)]
    assert {d.evidence for d in await world.deposits(one)} == {"event_log" if keeps_logs else "money_flew"}


async def test_money_that_did_not_move_is_not_credited(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    for keeps_logs in (True, False):
        world.chain.keeps_logs = keeps_logs
        world.chain.balances[key_of("p" * 55)] = 10
        world.chain.pay(world.keys[account], 5_000, seed="p" * 55)
        await world.settle(5)
    assert await world.balance(account) == 0
    assert await world.deposits(account) == []


async def test_logs_and_money_flew_never_credit_one_payment_twice(db: Database) -> None:
    """Half of the ticks are read by logs, then the source stops keeping them, then has them again."""
    world = await World.make(db)
    account = await world.account()
    for keeps_logs in (True, False, True):
        world.chain.keeps_logs = keeps_logs
        world.chain.pay(world.keys[account], 1_000)
        await world.settle(4)
    assert await world.balance(account) == 3_000
    assert {one.evidence for one in await world.deposits(account)} == {"event_log", "money_flew"}


async def test_lagging_logs_are_waited_for_a_while(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    world.chain.log_lag = 50
    world.chain.pay(world.keys[account], 1_000)
    await world.settle(20)
    assert await world.balance(account) == 0
    await world.settle(40)
    assert await world.balance(account) == 1_000
    world.chain.log_lag = 5_000
    world.chain.pay(world.keys[account], 1_000)
    await world.settle(6_000)
    assert await world.balance(account) == 2_000


async def test_a_transaction_that_nobody_signed_credits_nothing(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    world.chain.pay(world.keys[account], 1_000)
    world.chain.advance(3)
    true = world.chain.txs[1001][0]
    for lie in (
        replace(true, amount_qu=900_000),
        replace(true, source=key_of("q" * 55)),
        replace(true, tx_id="a" * 60),
        replace(true, signature=bytes(64)),
    ):
        world.chain.txs[1001] = [lie]
        world.chain.keeps_logs = False
        with pytest.raises(Untrusted):
            await world.settle(1)
    assert await world.balance(account) == 0
    world.chain.txs[1001] = [true]
    await world.settle(1)
    assert await world.balance(account) == 1_000


async def test_what_contradicts_itself_waits(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    tx_id = world.chain.pay(world.keys[account], 1_000)
    world.chain.misstated.add(tx_id)
    world.chain.advance(3)
    with pytest.raises(Untrusted, match="event logs"):
        await world.read_all()
    world.chain.misstated.clear()

    async def one_list_lies(tick: int) -> list[object]:
        return []

    honest = world.chain.transactions_for_tick
    world.chain.transactions_for_tick = one_list_lies  # type: ignore[assignment, method-assign]
    with pytest.raises(Disagreement, match="are not the same"):
        await world.read_all()
    assert await world.balance(account) == 0
    world.chain.transactions_for_tick = honest  # type: ignore[method-assign]
    await world.read_all()
    assert await world.balance(account) == 1_000


async def test_two_sources_must_agree(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    other = FakeChain()
    tx_id = world.chain.pay(world.keys[account], 1_000)
    other.pool = list(world.chain.pool)
    world.chain.advance(4)
    other.advance(4)
    world.desk = replace(world.desk, chain=Agreed(world.chain, other))
    for lie in (other.hidden, other.misstated):
        lie.add(tx_id)
        with pytest.raises(ChainError):
            await world.read_all()
        assert await world.balance(account) == 0
        lie.clear()
    await world.read_all()
    assert await world.balance(account) == 1_000


async def test_skipped_and_empty_ticks_are_passed(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    world.chain.pay(world.keys[account], 1_000)
    world.chain.advance(3)
    world.chain.jump(70)
    world.chain.pay(world.keys[account], 2_000)
    await world.settle(10)
    assert await world.balance(account) == 3_000


async def test_a_tick_that_was_made_cannot_be_said_to_be_skipped(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    world.chain.pay(world.keys[account], 1_000)
    world.chain.advance(4)
    intervals = await world.chain.processed_intervals()
    world.chain.skipped = [range(1001, 1002)]

    async def true_intervals() -> object:
        return intervals

    world.chain.processed_intervals = true_intervals  # type: ignore[assignment, method-assign]
    with pytest.raises(Disagreement, match="skipped"):
        await world.read_all()
    world.chain.skipped = []
    await world.read_all()
    assert await world.balance(account) == 1_000


async def test_days_of_downtime_are_caught_up_in_bounded_parts(db: Database) -> None:
    world = await World.make(db)
    accounts_ = [await world.account() for _ in range(3)]
    for day in range(3):
        for account in accounts_:
            world.chain.pay(world.keys[account], 1_000 + day)
        world.chain.advance(9_000)
    world.chain.pay_many([(world.keys[accounts_[0]], 5_000)])
    world.chain.advance()
    world.chain.jump(500)
    world.chain.advance(15_000)
    asked, steps = world.chain.asked, 0
    while (await scan.step(world.desk)).behind:
        steps += 1
    assert 1 <= steps <= 10
    assert world.chain.asked - asked < 400, "far behind, identities are asked for and not every tick"
    assert [await world.balance(one) for one in accounts_] == [8_003, 3_003, 3_003]
    assert (await audit_now(db)).clean


async def test_an_archive_that_has_forgotten_is_not_believed(db: Database) -> None:
    world = await World.make(db)
    await world.account()
    world.chain.advance(5_000)
    world.chain.first = 3_000
    with pytest.raises(Untrusted, match="does not keep"):
        await world.read_all()


async def test_an_archive_that_falls_back_moves_nothing(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    world.chain.pay(world.keys[account], 1_000)
    await world.settle(6)
    world.chain.lag = 100
    await world.read_all()
    world.chain.lag = 2
    await world.settle(3)
    assert await world.balance(account) == 1_000


async def test_two_at_once_credit_once_and_the_one_whose_turn_is_over_stops(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    world.chain.pay(world.keys[account], 1_000)
    world.chain.advance(4)
    await asyncio.gather(*(scan.step(world.desk) for _ in range(4)))
    assert await world.balance(account) == 1_000
    before = world.desk
    await world.again()
    world.chain.advance(4)
    with pytest.raises(TurnLost):
        await scan.step(before)
    await world.read_all()


async def test_an_account_has_one_identity_for_ever_and_an_empty_pool_says_so(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    assert await db.run(lambda tx: pool.assign(tx, account)) == world.keys[account]
    others = [await world.account() for _ in range(7)]
    assert len(set(world.keys.values())) == 8
    assert others
    with pytest.raises(Unavailable, match="no deposit identity is free"):
        await world.account()
    await world.desk.run(lambda tx: pool.fill(tx, world.desk.signer, 2))
    await world.account()


async def test_accounts_that_ask_at_once_get_different_identities(db: Database) -> None:
    await World.make(db)

    async def one() -> bytes:
        account_id = await db.run(lambda tx: accounts.create_account(tx, "somebody"))
        found = await asyncio.gather(*(db.run(lambda tx: pool.assign(tx, account_id)) for _ in range(3)))
        assert len(set(found)) == 1
        return found[0]

    assert len(set(await asyncio.gather(*(one() for _ in range(6))))) == 6


async def test_a_credited_deposit_is_swept_to_the_hot_identity(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    hot = world.desk.signer.hot_public_key
    world.chain.pay(world.keys[account], 5_000)
    await world.settle(4)
    assert await world.unswept(account) == 5_000
    await world.sweep()
    (live,) = await db.fetch("SELECT tx_id, tick FROM sweep WHERE state = 'live'")
    await world.sweep()
    await world.settle(20)
    await world.sweep()
    assert world.chain.balances[hot] == 5_000
    assert await world.unswept(account) == 0
    assert await world.balance(account) == 5_000, "a sweep moves nobody's money"
    (found,) = await world.deposits(account)
    assert (found.state, found.sweep_tx_id) == ("swept", live["tx_id"])
    assert await db.fetch_value("SELECT count(*) FROM sweep") == 1


async def test_a_missed_sweep_is_signed_again_only_when_it_is_proven_dead(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    world.chain.pay(world.keys[account], 5_000)
    await world.settle(4)
    await world.sweep()
    world.chain.pool.clear()
    target = await db.fetch_value("SELECT tick FROM sweep")
    while world.chain.archived < target:
        await world.sweep()
        assert await db.fetch_value("SELECT count(*) FROM sweep") == 1
        await world.settle(1)
    await world.sweep()
    assert [row["state"] for row in await db.fetch("SELECT state FROM sweep ORDER BY tick")] == ["dead", "live"]
    await world.settle(20)
    await world.sweep()
    assert world.chain.balances[world.desk.signer.hot_public_key] == 5_000
    assert await world.unswept(account) == 0


async def test_an_answer_to_a_sweep_that_makes_no_sense_holds_up_no_other(db: Database) -> None:
    world = await World.make(db)
    for account in (await world.account(), await world.account()):
        world.chain.pay(world.keys[account], 5_000)
    await world.settle(4)
    world.chain.garbled = True
    await world.sweep()
    assert await db.fetch_value("SELECT count(*) FROM sweep WHERE sent_ms IS NULL") == 2
    await world.settle(30)
    await world.sweep()
    assert world.chain.balances[world.desk.signer.hot_public_key] == 10_000


async def test_a_sweep_that_ran_and_is_hidden_is_never_signed_again(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    world.chain.pay(world.keys[account], 5_000)
    await world.settle(4)
    await world.sweep()
    tx_id = await db.fetch_value("SELECT tx_id FROM sweep")
    world.chain.hidden.add(tx_id)
    world.chain.pay(world.keys[account], 7_000)
    await world.settle(30)
    for _ in range(3):
        await world.sweep()
        await world.settle(20)
    assert await db.fetch_value("SELECT count(*) FROM sweep") == 1
    assert "does not fit together" in await db.fetch_value("SELECT problem FROM sweep")
    world.chain.hidden.clear()
    for _ in range(2):
        await world.sweep()
        await world.settle(20)
    await world.sweep()
    assert world.chain.balances[world.desk.signer.hot_public_key] == 12_000
    assert await world.unswept(account) == 0


async def test_the_treasury_remembers_what_is_where(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    world.chain.pay(world.keys[account], 5_000)
    await world.settle(4)
    await world.sweep()
    (row,) = await db.fetch("SELECT role, balance_qu FROM treasury")
    assert (row["role"], row["balance_qu"]) == ("deposit", 5_000)
    await world.settle(30)
    await sweep.look_at_holdings(world.desk)
    assert await db.fetch_value("SELECT balance_qu FROM treasury WHERE role = 'deposit'") == 0
    assert dataclasses.asdict(await world.chain.balance(world.keys[account]))["outgoing_count"] == 1


async def test_a_deposit_of_the_asked_amount_proves_its_wallet(db: Database) -> None:
    """A3: in the transaction that credits it; another amount proves nothing."""
    world = await World.make(db)
    account = await world.account()
    source = world.chain.faucet
    now = datetime.now(UTC)
    proof = await db.run(lambda tx: wallets.ask_payment(tx, account, source, least_qu=100, now=now))
    world.chain.pay(world.keys[account], proof.amount_qu + 1)
    await world.settle(4)
    assert await db.run(lambda tx: wallets.wallets_of(tx, account)) == []
    world.chain.pay(world.keys[account], proof.amount_qu)
    await world.settle(4)
    (found,) = await db.run(lambda tx: wallets.wallets_of(tx, account))
    assert found.public_key == source
    assert await world.balance(account) == 2 * proof.amount_qu + 1


@pytest.mark.parametrize(("days_ago", "proves"), [(3, False), (5, True)])
async def test_a_payment_proves_by_when_it_was_paid_and_not_when_it_is_read(
    db: Database, days_ago: int, proves: bool
) -> None:
    """Asked for six days ago and open for two: the chain process was away, and the payment came in time or did not."""
    world = await World.make(db)
    account = await world.account()
    now = datetime.fromtimestamp(world.desk.now_ms() / 1000, UTC)
    asked = now - timedelta(days=6)
    source = world.chain.faucet
    proof = await db.run(lambda tx: wallets.ask_payment(tx, account, source, least_qu=100, now=asked))
    await db.fetch("UPDATE payment_proof SET expires_at = issued_at + interval '2 days'")
    world.chain.told_ms = round((now - timedelta(days=days_ago)).timestamp() * 1000)
    world.chain.pay(world.keys[account], proof.amount_qu)
    await world.settle(4)
    assert bool(await db.run(lambda tx: wallets.wallets_of(tx, account))) is proves
    assert await world.balance(account) == proof.amount_qu
