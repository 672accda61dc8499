# SPDX-License-Identifier: Apache-2.0
"""Signing, sending, and learning what became of it, against a network in memory: each thing that goes wrong."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import asyncpg
import pytest
from tortoise.exceptions import BaseORMException

from qubix_coordinator.db.database import Database, execute, rows
from qubix_coordinator.errors import Conflict
from qubix_coordinator.withdrawals import addresses, service
from qubix_coordinator.withdrawals.sender import Sender
from qubix_coordinator.withdrawals.tables import WithdrawalTx
from qubix_protocol.withdrawals import TxOutcome, WithdrawalReason, WithdrawalState, WithdrawalView
from tests.db.test_withdrawals_service import with_settings
from tests.support.fake_network import FakeNetwork, FakeSigner, FakeSource
from tests.support.withdrawal_world import RICH, Bank, Person

pytestmark = pytest.mark.asyncio
HOT_QU = 10 * RICH
REFUSED_BY_DATABASE = (BaseORMException, asyncpg.PostgresError)
S, R = WithdrawalState, WithdrawalReason


class Paying:
    """A bank with a chain process, on a network that moves when told to."""

    def __init__(self, bank: Bank, sources: int = 1) -> None:
        self.bank = bank
        self.network = FakeNetwork()
        self.signer = FakeSigner(7)
        self.network.fund(self.signer.hot_public_key, HOT_QU)
        self.sources = [FakeSource(self.network) for _ in range(sources)]
        self.sender = Sender(bank.desk, self.sources, self.signer)

    def restart(self) -> None:
        self.sender = Sender(self.bank.desk, self.sources, self.signer)

    async def run(self, ticks: int = 1) -> None:
        for _ in range(ticks):
            await self.sender.tick()
            await self.bank.engine.tick()
            self.network.step()
            self.bank.clock.advance(1)

    async def until(self, person: Person, asked: WithdrawalView, *states: S, ticks: int = 200) -> WithdrawalView:
        for _ in range(ticks):
            view = await self.bank.see(person, asked)
            if view.state in states:
                return view
            await self.run()
        raise AssertionError(f"{view} is not {states} after {ticks} ticks")

    async def attempts(self) -> list[WithdrawalTx]:
        return await self.bank.db.run(lambda tx: WithdrawalTx.all().using_db(tx).order_by("tick"))

    def paid(self, person: Person) -> int:
        return self.network.paid(person.wallet)


@pytest.fixture
def paying(db: Database) -> Paying:
    return Paying(Bank(db))


async def test_a_withdrawal_is_signed_sent_watched_and_paid(paying: Paying) -> None:
    person = await paying.bank.person()
    asked = await paying.bank.ask(person, 400)
    assert asked.reason is R.CHAIN_DOWN, "no chain process has been heard of"
    await paying.run()
    sent = await paying.bank.see(person, asked)
    assert (sent.state, sent.reason) == (S.BROADCAST, R.UNDER_WAY)
    assert sent.tx_id == sent.transactions[0].tx_id
    with pytest.raises(Conflict, match="cannot be called back"):
        await service.cancel(paying.bank.desk, person.who, UUID(asked.withdrawal_id))
    paid = await paying.until(person, asked, S.CONFIRMED)
    assert (paid.reason, paid.tx_id, paid.transactions[0].outcome) == (R.PAID, sent.tx_id, TxOutcome.PAID)
    assert paying.paid(person) == 400
    assert await paying.bank.balance(person.account_id) == RICH - 400
    assert await paying.bank.clean()


async def test_one_payment_at_a_time_by_age(paying: Paying) -> None:
    person = await paying.bank.person()
    asked = [await paying.bank.ask(person, qu) for qu in (10, 20, 30)]
    await paying.run(2)
    views = [await paying.bank.see(person, one) for one in asked]
    assert [view.state for view in views] == [S.BROADCAST, S.WAITING, S.WAITING]
    assert views[1].reason is R.IN_LINE
    for one in asked:
        await paying.until(person, one, S.CONFIRMED)
    assert [row.amount_qu for row in await paying.attempts()] == [10, 20, 30]
    assert paying.paid(person) == 60


async def test_a_dropped_transaction_is_signed_again_only_after_its_tick(paying: Paying) -> None:
    person = await paying.bank.person()
    asked = await paying.bank.ask(person, 400)
    await paying.sender.tick()
    first = (await paying.attempts())[0]
    paying.network.pool.clear()
    while paying.network.tick < first.tick:
        paying.network.pool.clear()
        await paying.run()
        assert len(await paying.attempts()) == 1
    await paying.until(person, asked, S.CONFIRMED)
    outcomes = [row.outcome for row in await paying.attempts()]
    assert outcomes == ["expired", "paid"]
    assert paying.paid(person) == 400
    view = await paying.bank.see(person, asked)
    assert len({one.tx_id for one in view.transactions}) == 2


async def test_an_empty_tick_is_proof_and_a_lagging_archive_is_none(paying: Paying) -> None:
    person = await paying.bank.person()
    asked = await paying.bank.ask(person, 400)
    await paying.run()
    first = (await paying.attempts())[0]
    paying.sources[0].lag = 50
    while paying.network.tick < first.tick + 40:
        paying.network.empty_next = paying.network.tick + 1 == first.tick
        await paying.run()
    behind = await paying.bank.see(person, asked)
    assert (behind.state, behind.reason, len(behind.transactions)) == (S.BROADCAST, R.ARCHIVE_BEHIND, 1)
    paying.sources[0].lag = 0
    await paying.until(person, asked, S.CONFIRMED)
    assert paying.paid(person) == 400
    assert [row.outcome for row in await paying.attempts()] == ["expired", "paid"]


@pytest.mark.parametrize("lie", ["hides", "half"])
async def test_an_archive_that_hides_a_payment_makes_it_wait(paying: Paying, lie: str) -> None:
    person = await paying.bank.person()
    asked = await paying.bank.ask(person, 400)
    await paying.run()
    paying.sources[0].lies = lie
    await paying.run(40)
    doubted = await paying.bank.see(person, asked)
    assert (doubted.state, doubted.reason, len(doubted.transactions)) == (S.BROADCAST, R.DOUBT, 1)
    assert paying.paid(person) == 400
    paying.sources[0].lies = ""
    await paying.until(person, asked, S.CONFIRMED)
    assert paying.paid(person) == 400


async def test_an_archive_that_invents_a_payment_is_not_believed(paying: Paying) -> None:
    person = await paying.bank.person()
    asked = await paying.bank.ask(person, 400)
    await paying.run()
    paying.network.pool.clear()
    paying.sources[0].lies = "invents"
    for _ in range(40):
        paying.network.pool.clear()
        await paying.run()
    assert (await paying.bank.see(person, asked)).reason is R.DOUBT
    paying.sources[0].lies = ""
    await paying.until(person, asked, S.CONFIRMED)
    assert paying.paid(person) == 400


async def test_an_archive_that_invents_what_was_proven_dead_stops_the_next_signature(paying: Paying) -> None:
    person = await paying.bank.person()
    other, asked = await paying.bank.ask(person, 50), await paying.bank.ask(person, 400)
    await paying.until(person, other, S.CONFIRMED)
    while (await paying.bank.see(person, asked)).state is not S.BROADCAST:
        await paying.run()
    paying.network.epoch_end_tick = paying.network.tick
    paying.network.pool.clear()
    for _ in range(30):
        paying.network.pool.clear()
        await paying.run()
    paying.sources[0].lies, paying.network.epoch_end_tick = "invents", None
    await paying.run(30)
    waits = await paying.bank.see(person, asked)
    assert (waits.state, [one.outcome for one in waits.transactions]) == (S.WAITING, [TxOutcome.EXPIRED])
    paying.sources[0].lies = ""
    await paying.until(person, asked, S.CONFIRMED)
    assert paying.paid(person) == 450


async def test_what_was_taken_for_dead_and_ran_after_all_is_paid_and_not_signed_again(paying: Paying) -> None:
    """As if archive and totals had lied together: the last look before another signature finds it."""
    person = await paying.bank.person()
    asked = await paying.bank.ask(person, 400)
    await paying.run()
    source, honest = paying.sources[0], paying.network.entities
    source.lies = "hides"
    source.freeze()
    paying.network.epoch_end_tick = paying.network.tick
    await paying.run(30)
    assert (await paying.bank.see(person, asked)).state is S.WAITING
    assert honest[person.wallet].balance_qu == 400
    source.lies, source.frozen, paying.network.epoch_end_tick = "", None, None
    view = await paying.until(person, asked, S.CONFIRMED)
    assert (len(view.transactions), view.transactions[0].outcome) == (1, TxOutcome.PAID)
    assert paying.paid(person) == 400
    assert await paying.bank.clean()


async def test_of_two_sources_one_that_lies_or_is_down_makes_it_wait(db: Database) -> None:
    paying = Paying(Bank(db), sources=2)
    person = await paying.bank.person()
    asked = await paying.bank.ask(person, 400)
    await paying.run()
    for fault in ("hides", "down", "invents"):
        paying.sources[1].lies, paying.sources[1].down = fault.replace("down", ""), fault == "down"
        await paying.run(20)
        assert (await paying.bank.see(person, asked)).state is not S.WAITING
        assert len(await paying.attempts()) == 1
        if (await paying.bank.see(person, asked)).state is S.CONFIRMED:
            break
    paying.sources[1].lies, paying.sources[1].down = "", False
    await paying.until(person, asked, S.CONFIRMED)
    assert paying.paid(person) == 400


async def test_sources_of_different_networks_sign_nothing(db: Database) -> None:
    paying = Paying(Bank(db), sources=2)
    other = FakeNetwork(tick=5000)
    other.fund(paying.signer.hot_public_key, HOT_QU)
    paying.sources[1].network = other
    person = await paying.bank.person()
    asked = await paying.bank.ask(person, 400)
    await paying.run(5)
    assert (await paying.bank.see(person, asked)).reason is R.CHAIN_DOWN
    assert await paying.attempts() == []


async def test_after_so_many_expired_tries_it_fails_and_the_amount_is_back(db: Database) -> None:
    paying = Paying(with_settings(Bank(db), withdrawal_tries_max=3))
    person = await paying.bank.person()
    asked = await paying.bank.ask(person, 400)
    for _ in range(200):
        paying.network.pool.clear()
        await paying.run()
    view = await paying.bank.see(person, asked)
    assert (view.state, view.reason, len(view.transactions)) == (S.FAILED, R.TRIES, 3)
    assert [row.outcome for row in await paying.attempts()] == ["expired"] * 3
    assert await paying.bank.balance(person.account_id) == RICH
    assert paying.paid(person) == 0
    assert await paying.bank.clean()


async def test_what_the_wallet_could_not_cover_in_its_tick_is_signed_again_later(paying: Paying) -> None:
    person = await paying.bank.person()
    asked = await paying.bank.ask(person, 400)
    await paying.run()
    entity = paying.network.entities[paying.signer.hot_public_key]
    entity.incoming_qu -= HOT_QU - 100
    while len(await paying.attempts()) == 1 and (await paying.attempts())[0].outcome is None:
        await paying.run()
    assert (await paying.attempts())[0].outcome == "moved_nothing"
    await paying.run(3)
    assert (await paying.bank.see(person, asked)).reason is R.NOT_SWEPT
    entity.incoming_qu += HOT_QU
    await paying.until(person, asked, S.CONFIRMED)
    assert paying.paid(person) == 400


async def test_chain_down_says_so_and_goes_on_by_itself(paying: Paying) -> None:
    person = await paying.bank.person()
    await paying.run()
    paying.sources[0].down = True
    asked = await paying.bank.ask(person, 400)
    await paying.run(3)
    waits = await paying.bank.see(person, asked)
    assert (waits.state, waits.reason) == (S.WAITING, R.CHAIN_DOWN)
    assert "cannot be reached" in waits.text
    assert await paying.bank.balance(person.account_id) == RICH - 400, "balances go on"
    await service.cancel(paying.bank.desk, person.who, UUID((await paying.bank.ask(person, 10)).withdrawal_id))
    paying.sources[0].down = False
    await paying.until(person, asked, S.CONFIRMED)


async def test_the_silence_of_the_chain_process_is_the_chain_being_down(paying: Paying) -> None:
    person = await paying.bank.person()
    await paying.run()
    paying.bank.clock.advance(31)
    assert (await paying.bank.ask(person, 400)).reason is R.CHAIN_DOWN


async def test_never_aims_across_the_end_of_an_epoch(paying: Paying) -> None:
    person = await paying.bank.person()
    paying.network.epoch_end_tick = paying.network.tick + 10
    asked = await paying.bank.ask(person, 400)
    await paying.run(5)
    waits = await paying.bank.see(person, asked)
    assert (waits.state, waits.reason) == (S.WAITING, R.EPOCH_END)
    paying.network.jump(500)
    paying.network.epoch_end_tick = None
    await paying.until(person, asked, S.CONFIRMED)


async def test_an_epoch_that_jumps_over_the_target_is_proof(paying: Paying) -> None:
    person = await paying.bank.person()
    asked = await paying.bank.ask(person, 400)
    await paying.run()
    paying.network.jump(500)
    await paying.until(person, asked, S.CONFIRMED)
    assert [row.outcome for row in await paying.attempts()] == ["expired", "paid"]
    assert paying.paid(person) == 400


async def test_above_the_hot_limit_it_waits_for_the_operator_and_others_do_not(db: Database) -> None:
    paying = Paying(with_settings(Bank(db), withdrawal_hot_limit_qu=500))
    person, operator = await paying.bank.person(), await paying.bank.operator()
    large, first, second = [await paying.bank.ask(person, qu) for qu in (501, 300, 300)]
    await paying.until(person, first, S.CONFIRMED)
    await paying.run(30)
    for one in (large, second):
        waits = await paying.bank.see(person, one)
        assert (waits.state, waits.reason) == (S.WAITING, R.HOT_LIMIT)
    await service.approve(paying.bank.desk, operator, UUID(large.withdrawal_id))
    await paying.until(person, large, S.CONFIRMED)
    paying.bank.clock.advance(86_400)
    await paying.until(person, second, S.CONFIRMED)
    assert paying.paid(person) == 1101


async def test_what_waits_for_sweeps_holds_up_nobody(paying: Paying) -> None:
    person = await paying.bank.person(qu=3 * HOT_QU)
    large, small = await paying.bank.ask(person, HOT_QU + 1), await paying.bank.ask(person, 10)
    await paying.until(person, small, S.CONFIRMED)
    assert (await paying.bank.see(person, large)).reason is R.NOT_SWEPT
    paying.network.fund(paying.signer.hot_public_key, HOT_QU)
    await paying.until(person, large, S.CONFIRMED)


async def test_a_removed_address_gets_no_second_signature(paying: Paying) -> None:
    person = await paying.bank.person()
    asked = await paying.bank.ask(person, 400)
    await paying.run()
    paying.network.pool.clear()
    paying.sources[0].lag = 100
    await addresses.remove(paying.bank.desk, person.account_id, person.destination)
    assert (await paying.bank.see(person, asked)).state is S.BROADCAST, "it may run"
    for _ in range(20):
        paying.network.pool.clear()
        await paying.run()
    paying.sources[0].lag = 0
    await paying.until(person, asked, S.CANCELLED)
    assert len(await paying.attempts()) == 1
    assert await paying.bank.balance(person.account_id) == RICH


async def test_m5_a_sent_one_whose_end_stays_unknown_calls_an_operator_and_is_never_given_back(
    paying: Paying, caplog: pytest.LogCaptureFixture
) -> None:
    person = await paying.bank.person()
    asked = await paying.bank.ask(person, 400)
    await paying.run()
    paying.sources[0].lag = 10_000
    paying.bank.clock.advance(3601)
    caplog.clear()
    await paying.run(2)
    assert [record.levelname for record in caplog.records if record.message == "withdrawal.look"] == ["ERROR"]
    view = await paying.bank.see(person, asked)
    assert view.state is S.BROADCAST
    assert view.due_ms is not None
    assert view.due_ms > round(paying.bank.clock.now().timestamp() * 1000)
    assert await paying.bank.balance(person.account_id) == RICH - 400


async def test_two_chain_processes_pay_nothing_twice(paying: Paying) -> None:
    """Without any lock between them: the database alone keeps one transaction in flight."""
    person = await paying.bank.person()
    asked = [await paying.bank.ask(person, 10 + n) for n in range(4)]
    other = Sender(paying.bank.desk, [FakeSource(paying.network)], paying.signer)
    for _ in range(150):
        await asyncio.gather(paying.sender.tick(), other.tick(), return_exceptions=True)
        await paying.run()
    assert paying.paid(person) == sum(one.amount_qu for one in asked)
    assert all([(await paying.bank.see(person, one)).state is S.CONFIRMED for one in asked])
    assert await paying.bank.clean()


async def test_event_logs_tell_of_a_payment_where_money_flew_does_not(paying: Paying) -> None:
    paying.network.logs = True
    person = await paying.bank.person()
    asked = await paying.bank.ask(person, 400)
    source = paying.sources[0]
    honest = source.transaction_by_hash

    async def without_money_flew(tx_id: str) -> object:
        found = await honest(tx_id)
        return found and type(found)(**{**{f: getattr(found, f) for f in found.__slots__}, "money_flew": False})

    source.transaction_by_hash = without_money_flew  # type: ignore[method-assign, assignment]
    await paying.until(person, asked, S.CONFIRMED)
    assert paying.paid(person) == 400


@pytest.mark.parametrize(
    ("sql", "by"),
    [
        ("UPDATE withdrawal_tx SET tick = tick + 1", "."),
        ("UPDATE withdrawal_tx SET signed_bytes = signed_bytes || '\\x00'::bytea", "."),
        ("UPDATE withdrawal_tx SET outcome = 'expired', decided_ms = 1, evidence = '[]'", "."),
        ("DELETE FROM withdrawal_tx", "."),
        (
            "INSERT INTO withdrawal_tx SELECT repeat('a', 60), withdrawal_id, no + 1, sha256('other'), destination,"
            " amount_qu, signed_bytes, tick, epoch, outgoing_qu, outgoing_count, known_tick, signed_ms"
            " FROM withdrawal_tx",
            "is not what withdrawal .* orders now",
        ),
        (
            "INSERT INTO withdrawal_tx SELECT repeat('a', 60), w.id, 1, hot_key, w.destination, w.amount_qu,"
            " signed_bytes, tick, epoch, outgoing_qu, outgoing_count, known_tick, signed_ms"
            " FROM withdrawal_tx, withdrawal w WHERE w.state = 'waiting'",
            "withdrawal_tx_one_in_flight",
        ),
    ],
)
async def test_i9_the_database_holds_one_live_transaction(paying: Paying, sql: str, by: str) -> None:
    """Of a reservation, and of the hot identity; what is signed never changes."""
    person = await paying.bank.person()
    await paying.bank.ask(person, 400)
    await paying.bank.ask(person, 400)
    await paying.run()
    with pytest.raises(REFUSED_BY_DATABASE, match=by):
        await paying.bank.db.run(lambda tx: execute(tx, sql))


async def live_transactions(db: Database) -> Sequence[dict[str, object]]:
    """Reservations that more than one transaction may pay: I9 says none."""
    return await db.run(
        lambda tx: rows(
            tx,
            "SELECT withdrawal_id, count(*) FROM withdrawal_tx WHERE outcome IS NULL OR outcome = 'paid'"
            " GROUP BY 1 HAVING count(*) > 1",
        )
    )
