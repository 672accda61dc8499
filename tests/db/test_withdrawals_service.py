# SPDX-License-Identifier: Apache-2.0
"""Withdrawals up to the signature: reserving, limits, delays, operators, addresses, standing orders, deadlines."""

import asyncio
import dataclasses
import uuid
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from tortoise.exceptions import BaseORMException

from qubix_chain import identity
from qubix_coordinator.db.database import Database, execute, value
from qubix_coordinator.errors import (
    CauseReused,
    Conflict,
    Forbidden,
    InvalidInput,
    LimitExceeded,
    NotEnoughBalance,
    NotFound,
)
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.ledger.post import post
from qubix_coordinator.withdrawals import addresses, limits, payouts, service
from qubix_coordinator.withdrawals.tables import PayoutOrder, Withdrawal
from qubix_protocol.withdrawals import (
    AddressBody,
    PayoutBody,
    WithdrawalBody,
    WithdrawalReason,
    WithdrawalState,
)
from tests.support.withdrawal_world import RICH, Bank, key_of

pytestmark = pytest.mark.asyncio
REFUSED_BY_DATABASE = (BaseORMException, asyncpg.PostgresError)
DAY_S = 86_400


@pytest.fixture
def bank(db: Database) -> Bank:
    return Bank(db)


def with_settings(bank: Bank, **more: Any) -> Bank:
    return Bank(bank.db, bank.clock, dataclasses.replace(bank.settings, **more))


async def test_asking_sets_the_amount_aside_once(bank: Bank) -> None:
    person = await bank.person()
    first = await bank.ask(person, 400, "key")
    again = await bank.ask(person, 400, "key")
    assert first.withdrawal_id == again.withdrawal_id
    assert (first.state, first.amount_qu, first.destination) == (WithdrawalState.WAITING, 400, person.destination)
    assert await bank.balance(person.account_id) == RICH - 400
    with pytest.raises(CauseReused):
        await bank.ask(person, 401, "key")
    assert await bank.clean()


@pytest.mark.parametrize("qu", [0, -1, 10**15 + 1, 2**63, 2**64])
async def test_impossible_amounts_are_refused_with_a_reason(bank: Bank, qu: int) -> None:
    person = await bank.person()
    with pytest.raises(InvalidInput) as told:
        await bank.ask(person, qu)
    assert told.value.field == "amount_qu"
    assert await bank.balance(person.account_id) == RICH


async def test_more_than_there_is_is_refused_and_says_what_is(bank: Bank) -> None:
    person = await bank.person()
    with pytest.raises(NotEnoughBalance, match=f"{RICH} QU can be withdrawn now"):
        await bank.ask(person, RICH + 1)
    assert (await bank.ask(person, RICH)).amount_qu == RICH


async def test_64_at_once_take_a_balance_once(bank: Bank) -> None:
    for round_no in range(4):
        person = await bank.person(seed=100 + round_no, qu=1000)
        found = await asyncio.gather(*(bank.ask(person, 1000, f"{n}") for n in range(64)), return_exceptions=True)
        won = [one for one in found if not isinstance(one, BaseException)]
        assert len(won) == 1
        assert all(isinstance(one, NotEnoughBalance) for one in found if isinstance(one, BaseException))
        assert await bank.balance(person.account_id) == 0
    assert await bank.clean()


@pytest.mark.slow
async def test_64_at_once_take_a_balance_once_in_a_thousand_rounds(bank: Bank) -> None:
    """Issue 4: 64 concurrent withdrawals of one balance × 1,000 rounds, none doubled; half of them repeat one key."""
    for round_no in range(1000):
        person = await bank.person(seed=1000 + round_no, qu=1000)
        keys = [f"{n}" if n % 2 else "same" for n in range(64)]
        found = await asyncio.gather(*(bank.ask(person, 1000, key) for key in keys), return_exceptions=True)
        won = {one.withdrawal_id for one in found if not isinstance(one, BaseException)}
        assert len(won) == 1
        assert all(isinstance(one, NotEnoughBalance) for one in found if isinstance(one, BaseException))
        assert await bank.balance(person.account_id) == 0
    assert await bank.db.fetch_value("SELECT count(*) FROM withdrawal") == 1000
    assert await bank.clean()


async def test_the_same_key_at_once_is_one_withdrawal(bank: Bank) -> None:
    person = await bank.person()
    found = await asyncio.gather(*(bank.ask(person, 10, "key") for _ in range(16)))
    assert len({one.withdrawal_id for one in found}) == 1
    assert await bank.balance(person.account_id) == RICH - 10


async def test_minimum_most_and_a_days_limit(bank: Bank) -> None:
    bank = with_settings(bank, withdrawal_min_qu=10, withdrawal_max_qu=100, withdrawal_day_max_qu=150)
    person = await bank.person()
    for qu, said in ((9, "least amount is 10"), (101, "at most 100")):
        with pytest.raises(LimitExceeded, match=said):
            await bank.ask(person, qu)
    first = await bank.ask(person, 100)
    with pytest.raises(LimitExceeded, match="50 QU are left"):
        await bank.ask(person, 51)
    await service.cancel(bank.desk, person.who, UUID(first.withdrawal_id))
    await bank.ask(person, 51)
    with pytest.raises(LimitExceeded):
        await bank.ask(person, 100)
    bank.clock.advance(DAY_S + 1)
    await bank.ask(person, 100)


async def test_cancelling_gives_back_once_and_only_ones_own(bank: Bank) -> None:
    person, other = await bank.person(), await bank.person(seed=2)
    asked = await bank.ask(person, 400)
    for _ in range(2):
        view = await service.cancel(bank.desk, person.who, UUID(asked.withdrawal_id))
        assert (view.state, view.reason) == (WithdrawalState.CANCELLED, WithdrawalReason.BY_OWNER)
    assert await bank.balance(person.account_id) == RICH
    with pytest.raises(NotFound):
        await service.cancel(bank.desk, other.who, UUID(asked.withdrawal_id))
    with pytest.raises(NotFound):
        await service.get(bank.desk, other.who, UUID(asked.withdrawal_id))
    assert await bank.clean()


async def test_cancelling_and_asking_at_once_moves_no_qu_twice(bank: Bank) -> None:
    person = await bank.person(qu=1000)
    asked = await bank.ask(person, 1000)
    calls = [service.cancel(bank.desk, person.who, UUID(asked.withdrawal_id)) for _ in range(8)]
    await asyncio.gather(*calls, *(bank.ask(person, 1000, f"{n}") for n in range(8)), return_exceptions=True)
    live = await bank.db.fetch_value("SELECT count(*) FROM withdrawal WHERE state = 'waiting'")
    assert await bank.balance(person.account_id) == 1000 * (1 - live)
    assert await bank.clean()


async def test_an_address_must_be_ones_own_wallet_on_ones_list(bank: Bank) -> None:
    person, other = await bank.person(listed=False), await bank.person(seed=2)
    with pytest.raises(Forbidden, match="not on your list"):
        await bank.ask(person, 10)
    with pytest.raises(NotFound, match="none of your account's wallets"):
        await addresses.add(bank.desk, person.account_id, AddressBody(identity=other.destination))
    wrong = person.destination[:-1] + ("A" if person.destination[-1] != "A" else "B")
    with pytest.raises(InvalidInput, match="checksum"):
        await addresses.add(bank.desk, person.account_id, AddressBody(identity=wrong))


async def test_nobody_contracts_and_ourselves_are_never_paid(bank: Bank) -> None:
    person, hot = await bank.person(), key_of(7)
    pooled = key_of(8)
    await bank.db.run(
        lambda tx: execute(tx, "INSERT INTO treasury (public_key, role, derivation) VALUES ($1, 'hot', 1)", hot)
    )
    await bank.db.run(lambda tx: execute(tx, "INSERT INTO deposit_identity (no, public_key) VALUES (0, $1)", pooled))
    for key in (bytes(32), (1).to_bytes(8, "little") + bytes(24), hot, pooled):
        body = AddressBody(identity=identity.encode(key))
        with pytest.raises(Forbidden, match="never sent there"):
            await addresses.add(bank.desk, person.account_id, body)
        order = WithdrawalBody(destination=identity.encode(key), amount_qu=10)
        with pytest.raises(Forbidden, match="never sent there"):
            await service.request(bank.desk, person.who, order, "key")


async def test_a_new_address_waits_and_a_removed_one_takes_effect_at_once(bank: Bank) -> None:
    bank = with_settings(bank, withdrawal_address_delay_s=DAY_S)
    person = await bank.person()
    asked = await bank.ask(person, 10)
    assert (asked.reason, asked.not_before_ms) == (WithdrawalReason.DELAY, asked.created_ms + DAY_S * 1000)
    bank.clock.advance(DAY_S)
    await bank.engine.tick()
    assert (await bank.see(person, asked)).reason is not WithdrawalReason.DELAY
    left = await addresses.remove(bank.desk, person.account_id, person.destination)
    assert left.addresses == ()
    ended = await bank.see(person, asked)
    assert (ended.state, ended.detail) == (WithdrawalState.CANCELLED, "its address was taken off the list")
    assert await bank.balance(person.account_id) == RICH
    with pytest.raises(Forbidden):
        await bank.ask(person, 10)
    listed = await addresses.add(bank.desk, person.account_id, AddressBody(identity=person.destination))
    assert listed.usable_ms == listed.added_ms + DAY_S * 1000


async def test_listing_an_address_again_does_not_start_its_delay_anew(bank: Bank) -> None:
    bank = with_settings(bank, withdrawal_address_delay_s=DAY_S)
    person = await bank.person()
    first = (await addresses.listed(bank.desk, person.account_id)).addresses[0]
    bank.clock.advance(60)
    again = await addresses.add(bank.desk, person.account_id, AddressBody(identity=person.destination))
    assert again == first


async def test_above_the_threshold_an_operator_decides(bank: Bank) -> None:
    bank = with_settings(bank, withdrawal_approval_above_qu=100)
    person, operator = await bank.person(), await bank.operator()
    small, large, refused = [await bank.ask(person, qu) for qu in (100, 101, 102)]
    assert [one.reason for one in (small, large, refused)] == [
        WithdrawalReason.CHAIN_DOWN,
        WithdrawalReason.APPROVAL,
        WithdrawalReason.APPROVAL,
    ]
    page = await service.list_withdrawals(bank.desk, None, reason=WithdrawalReason.APPROVAL)
    assert [one.withdrawal_id for one in page.withdrawals] == [refused.withdrawal_id, large.withdrawal_id]
    for _ in range(2):
        view = await service.approve(bank.desk, operator, UUID(large.withdrawal_id))
        assert view.reason is WithdrawalReason.CHAIN_DOWN
    view = await service.refuse(bank.desk, operator, UUID(refused.withdrawal_id), "not this week")
    assert (view.state, view.detail) == (WithdrawalState.REFUSED, "not this week")
    assert await bank.balance(person.account_id) == RICH - 201
    with pytest.raises(Conflict):
        await service.approve(bank.desk, operator, UUID(refused.withdrawal_id))


async def test_m5_what_nobody_decides_or_sends_goes_back(bank: Bank) -> None:
    bank = with_settings(bank, withdrawal_approval_above_qu=100, withdrawal_wait_s=3600)
    person = await bank.person()
    small, large = await bank.ask(person, 100), await bank.ask(person, 101)
    bank.clock.advance(3599)
    await bank.engine.tick()
    assert await bank.balance(person.account_id) == RICH - 201
    bank.clock.advance(1)
    await bank.engine.tick()
    ends = [await bank.see(person, one) for one in (small, large)]
    assert [(one.state, one.reason) for one in ends] == [
        (WithdrawalState.FAILED, WithdrawalReason.OVERDUE),
        (WithdrawalState.REFUSED, WithdrawalReason.NOT_DECIDED),
    ]
    assert await bank.balance(person.account_id) == RICH
    assert await bank.clean()


async def test_new_earnings_wait(bank: Bank) -> None:
    """C5: what the award of a dispute may still take back cannot be withdrawn."""
    bank = with_settings(bank, withdrawal_earnings_delay_s=3600)
    person = await bank.person(qu=100)
    await bank.earn(person.account_id, 50)
    found = await limits.view(bank.desk, person.account_id)
    assert (found.balance_qu, found.withdrawable_qu, found.new_earnings_qu) == (150, 100, 50)
    with pytest.raises(NotEnoughBalance, match="50 QU were earned so lately"):
        await bank.ask(person, 101)
    at_once = with_settings(bank, withdrawal_earnings_delay_s=0)
    assert (await limits.view(at_once.desk, person.account_id)).withdrawable_qu == 150


async def test_pages_show_everything_once_newest_first(bank: Bank) -> None:
    person = await bank.person()
    asked = [(await bank.ask(person, qu)).withdrawal_id for qu in (1, 2, 3)]
    page = await service.list_withdrawals(bank.desk, person.who, limit=2)
    rest = await service.list_withdrawals(bank.desk, person.who, limit=2, after=page.next)
    assert [one.withdrawal_id for one in (*page.withdrawals, *rest.withdrawals)] == asked[::-1]
    assert rest.next is None


async def test_a_standing_order_pays_out_once_and_leaves_the_rest(bank: Bank) -> None:
    person = await bank.person(qu=1000)
    body = PayoutBody(destination=person.destination, keep_qu=300, least_qu=50)
    view = await payouts.set_order(bank.desk, person.account_id, body)
    assert (view.keep_qu, view.least_qu, view.made) == (300, 50, 0)
    await asyncio.gather(*(bank.engine.tick() for _ in range(4)))
    page = await service.list_withdrawals(bank.desk, person.who)
    assert [(one.amount_qu, one.automatic) for one in page.withdrawals] == [(700, True)]
    await bank.deposit(person.account_id, 500)
    bank.clock.advance(120)
    await bank.engine.tick()
    assert await bank.balance(person.account_id) == 800, "one at a time"
    await service.cancel(bank.desk, person.who, UUID(page.withdrawals[0].withdrawal_id))
    bank.clock.advance(120)
    await bank.engine.tick()
    assert await bank.balance(person.account_id) == 300
    assert (await payouts.get_order(bank.desk, person.account_id)).made == 2
    await payouts.stop_order(bank.desk, person.account_id)
    assert (await payouts.get_order(bank.desk, person.account_id)).destination is None
    assert await bank.clean()


async def test_a_standing_order_pays_out_nothing_below_its_least(bank: Bank) -> None:
    person = await bank.person(qu=349)
    body = PayoutBody(destination=person.destination, keep_qu=300, least_qu=50)
    await payouts.set_order(bank.desk, person.account_id, body)
    await bank.engine.tick()
    assert await bank.balance(person.account_id) == 349
    await bank.deposit(person.account_id, 1)
    bank.clock.advance(120)
    await bank.engine.tick()
    assert await bank.balance(person.account_id) == 300


async def test_a_standing_order_to_a_removed_address_says_so(bank: Bank) -> None:
    person = await bank.person()
    await payouts.set_order(bank.desk, person.account_id, PayoutBody(destination=person.destination, keep_qu=0))
    await addresses.remove(bank.desk, person.account_id, person.destination)
    await bank.engine.tick()
    assert "taken off the list" in (await payouts.get_order(bank.desk, person.account_id)).text
    assert await bank.balance(person.account_id) == RICH


async def test_nobody_else_uses_a_standing_orders_keys(bank: Bank) -> None:
    person = await bank.person()
    with pytest.raises(InvalidInput, match="payout:"):
        await bank.ask(person, 1, "payout:x:0")


async def test_a_database_that_dies_at_the_order_s_commit_makes_no_second_withdrawal(bank: Bank) -> None:
    """The key counts with the order: the same count is the same key, which the database holds once."""
    person = await bank.person(qu=1000)
    await payouts.set_order(bank.desk, person.account_id, PayoutBody(destination=person.destination, keep_qu=0))
    await bank.engine.tick()
    order = await bank.db.run(lambda tx: PayoutOrder.filter(account_id=person.account_id).using_db(tx).get())
    row = await bank.db.run(lambda tx: Withdrawal.filter(account_id=person.account_id).using_db(tx).get())
    assert row.idempotency_key == f"payout:{order.id}:0"
    assert order.made == 1


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE withdrawal SET amount_qu = amount_qu + 1",
        "UPDATE withdrawal SET destination = decode(repeat('ab', 32), 'hex')",
        "UPDATE withdrawal SET state = 'signed'",
        "UPDATE withdrawal SET state = 'confirmed', due_ms = NULL, ended_ms = 1",
        "UPDATE withdrawal SET state = 'cancelled', due_ms = NULL, ended_ms = 1",
        "UPDATE withdrawal SET due_ms = NULL",
        "DELETE FROM withdrawal",
        "UPDATE payout_address SET public_key = decode(repeat('00', 32), 'hex')",
    ],
)
async def test_the_database_refuses_what_must_never_be(bank: Bank, sql: str) -> None:
    await bank.ask(await bank.person(), 10)
    with pytest.raises(REFUSED_BY_DATABASE):
        await bank.db.run(lambda tx: execute(tx, sql))


async def test_a_row_without_its_reservation_is_refused(bank: Bank) -> None:
    person = await bank.person()
    address = await bank.db.fetch_value("SELECT id FROM payout_address")
    sql = (
        "INSERT INTO withdrawal (id, no, account_id, idempotency_key, address_id, destination, amount_qu, automatic,"
        " state, reason, detail, revision, created_ms, not_before_ms, late_ms, due_ms)"
        " VALUES ($1, 1, $2, 'k', $3, $4, $5, false, 'waiting', 'in_line', '', 1, $6, $6, $6, $6)"
    )
    later = 4 * 10**12

    async def insert(qu: int, destination: bytes) -> Any:
        row = (uuid.uuid4(), person.account_id, address, destination, qu, later)
        return await bank.db.run(lambda tx: value(tx, sql, *row))

    for qu, destination, said in (
        (10, person.wallet, "0 QU set aside"),
        (0, person.wallet, "withdrawal_amount_bounded"),
        (-1, person.wallet, "withdrawal_amount_bounded"),
        (10**15 + 1, person.wallet, "withdrawal_amount_bounded"),
        (10, key_of(55), "no address of its account"),
    ):
        with pytest.raises(REFUSED_BY_DATABASE, match=said):
            await insert(qu, destination)


async def test_q1_deposits_are_withdrawable_once_swept(bank: Bank) -> None:
    person = await bank.person(qu=0)

    async def deposit(tx: Any) -> None:
        await execute(tx, "INSERT INTO deposit_identity (no, public_key) VALUES (0, $1)", key_of(8))
        await execute(
            tx, "UPDATE deposit_identity SET account_id = $1, assigned_at = now() WHERE no = 0", person.account_id
        )
        transfer = ledger.deposit(person.account_id, 700, network="devnet", tick=5, tx_id="a" * 60, output=0)
        await post(tx, [transfer])
        await execute(
            tx,
            "INSERT INTO deposit (id, tick, tx_id, output, identity_no, account_id, source, amount_qu, evidence, state,"
            " reason, transfer_id, seen_ms) VALUES ($1, 5, $2, 0, 0, $3, $4, 700, 'money_flew', 'credited', '', $5, 1)",
            uuid.uuid4(),
            "a" * 60,
            person.account_id,
            key_of(9),
            transfer.id,
        )

    await bank.db.run(deposit)
    await bank.deposit(person.account_id, 100)
    found = await limits.view(bank.desk, person.account_id)
    assert (found.balance_qu, found.withdrawable_qu, found.unswept_qu) == (800, 100, 700)
    with pytest.raises(NotEnoughBalance, match="700 QU of deposits have not reached"):
        await bank.ask(person, 101)
