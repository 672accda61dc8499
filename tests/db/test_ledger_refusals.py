# SPDX-License-Identifier: Apache-2.0
"""What the database refuses, whoever asks and in whatever SQL; and what `post` calls it."""

import uuid
from dataclasses import replace

import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database, Tx, execute, one, value
from qubix_coordinator.errors import (
    CauseReused,
    HoldOverspent,
    LedgerRefused,
    NotEnoughBalance,
    NotFound,
    WrongNetwork,
)
from qubix_coordinator.ledger import read, rules
from qubix_coordinator.ledger.audit import audit_now
from qubix_coordinator.ledger.post import post
from tests.support.funds import fund
from tests.support_pg import PgServer, connected

START_QU = 1000
HELD_QU = 400
HOLD_KINDS = (rules.TransferKind.HOLD, rules.TransferKind.SETTLE, rules.TransferKind.RETURN)
WAYS = {
    "development_credit": {("world", "user")},
    "deposit": {("world", "user")},
    "refund": {("user", "user"), ("fees", "user"), ("fund", "user")},
    "withdraw": {("user", "withdrawal")},
    "withdraw_sent": {("withdrawal", "world")},
    "withdraw_back": {("withdrawal", "user")},
    "bond": {("user", "bond")},
    "bond_end": {("bond", "user"), ("bond", "fund")},
    "fund": {("fees", "fund")},
    "spot": {("fund", "user")},
    "spot_back": {("user", "fund")},
    "forfeit": {("user", "fund")},
}


class World:
    """Alice has START_QU of which HELD_QU are held for a job; Bob has nothing."""

    def __init__(self, db: Database, alice: uuid.UUID, bob: uuid.UUID, job: uuid.UUID) -> None:
        self.db, self.alice, self.bob, self.job = db, alice, bob, job

    async def post(self, *transfers: rules.Transfer) -> int:
        return await self.db.run(lambda tx: post(tx, transfers))

    async def ledger_id(self, tx: Tx, kind: str, owner: uuid.UUID | None) -> int:
        sql = "SELECT id FROM ledger_account WHERE kind = $1 AND owner IS NOT DISTINCT FROM $2::uuid"
        return int(await value(tx, sql, kind, owner))


async def world_of(db: Database) -> World:
    async with db.transaction() as tx:
        alice, bob = await accounts.create_account(tx, "alice"), await accounts.create_account(tx, "bob")
    await fund(db, alice, START_QU)
    world = World(db, alice, bob, uuid.uuid4())
    await world.post(rules.hold(world.job, alice, HELD_QU))
    return world


async def insert_transfer(tx: Tx, kind: str = "refund", job: uuid.UUID | None = None) -> uuid.UUID:
    made = uuid.uuid4()
    await execute(
        tx,
        "INSERT INTO transfer (id, kind, cause, job_id, digest) VALUES ($1, $2, $3, $4, sha256('x'))",
        made,
        kind,
        str(made),
        job,
    )
    return made


INSERT_TWO = "INSERT INTO entry (transfer_id, account_id, amount_qu) VALUES ($1, $2, $3), ($1, $4, $5)"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE entry SET amount_qu = amount_qu * 2",
        "UPDATE entry SET amount_qu = 1 WHERE false",
        "DELETE FROM entry",
        "TRUNCATE entry CASCADE",
        "UPDATE transfer SET kind = 'refund'",
        "DELETE FROM transfer",
        "TRUNCATE transfer CASCADE",
        "UPDATE ledger_account SET balance_qu = balance_qu + 1",
        "DELETE FROM ledger_account",
        "TRUNCATE ledger_account CASCADE",
        "INSERT INTO ledger_account (kind, owner, balance_qu) SELECT 'user', id, 5 FROM account WHERE name = 'bob'",
        "UPDATE hold SET paid_qu = paid_qu + 1",
        "UPDATE hold SET held_qu = held_qu + 1",
        "INSERT INTO hold (job_id, account_id, held_qu) SELECT gen_random_uuid(), min(id), 9 FROM ledger_account",
        "DELETE FROM hold",
        "TRUNCATE hold",
        "INSERT INTO ledger_pending SELECT id, account_id, amount_qu FROM entry",
        "UPDATE ledger_pending SET amount_qu = 0",
        "TRUNCATE ledger_pending",
    ],
)
async def test_raw_changes_are_refused(db: Database, sql: str) -> None:
    await world_of(db)
    with pytest.raises(Exception, match=r"append-only|triggers alone|starts at zero"):
        await db.fetch(sql)
    assert (await audit_now(db)).clean


@pytest.mark.asyncio
async def test_sweeping_by_raw_delete_moves_no_money(db: Database) -> None:
    await world_of(db)
    before = await db.fetch("SELECT * FROM ledger_balance ORDER BY id")
    await db.fetch("DELETE FROM ledger_pending")
    assert await db.fetch("SELECT * FROM ledger_balance ORDER BY id") == before
    assert await db.fetch_value("SELECT balance_qu FROM ledger_account WHERE kind = 'world'") == -START_QU
    assert (await audit_now(db)).clean


@pytest.mark.asyncio
async def test_a_transfer_without_entries_is_refused_at_commit(db: Database) -> None:
    with pytest.raises(Exception, match="has 0 entries"):
        await db.run(insert_transfer)


@pytest.mark.asyncio
async def test_unbalanced_entries_are_refused(db: Database) -> None:
    world = await world_of(db)

    async def step(tx: Tx) -> None:
        one_id, two_id = await world.ledger_id(tx, "user", world.alice), await world.ledger_id(tx, "world", None)
        await execute(tx, INSERT_TWO, await insert_transfer(tx), one_id, 5, two_id, -4)

    with pytest.raises(Exception, match="do not sum to zero"):
        await db.run(step)
    assert (await audit_now(db)).clean


@pytest.mark.asyncio
async def test_a_balanced_raw_insert_keeps_every_invariant(db: Database) -> None:
    world = await world_of(db)
    await world.post(rules.refund(uuid.uuid4(), rules.user(world.alice), world.bob, 1))

    async def step(tx: Tx) -> None:
        one_id, two_id = await world.ledger_id(tx, "user", world.alice), await world.ledger_id(tx, "user", world.bob)
        await execute(tx, INSERT_TWO, await insert_transfer(tx), one_id, -5, two_id, 5)

    await db.run(step)
    async with db.transaction() as tx:
        assert await read.balance(tx, world.alice) == read.Balance(START_QU - HELD_QU - 6, HELD_QU)
    assert (await audit_now(db)).clean


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [kind for kind in rules.TransferKind if kind not in HOLD_KINDS])
async def test_each_kind_of_transfer_goes_its_own_way_alone(db: Database, kind: rules.TransferKind) -> None:
    """From every kind of account to every kind: exactly what the word means is possible, by raw SQL too."""
    world = await world_of(db)
    withdrawal, dispute = uuid.uuid4(), uuid.uuid4()
    await world.post(
        rules.refund(uuid.uuid4(), rules.user(world.alice), world.bob, 1),
        rules.settle(world.job, uuid.uuid4(), world.bob, 1, 50),
        rules.withdraw(withdrawal, world.alice, 50),
        rules.bond(dispute, world.alice, 50),
    )
    await db.run(read.sweep)
    await world.post(rules.fund(20, "start"))
    owners = {"user": world.alice, "hold": world.job, "withdrawal": withdrawal, "bond": dispute}
    possible = set()
    for payer in rules.AccountKind:
        for payee in rules.AccountKind:

            async def step(tx: Tx, payer: str = payer.value, payee: str = payee.value) -> None:
                to = world.bob if payee == "user" else owners.get(payee)
                from_id, to_id = (
                    await world.ledger_id(tx, payer, owners.get(payer)),
                    await world.ledger_id(tx, payee, to),
                )
                await execute(tx, INSERT_TWO, await insert_transfer(tx, kind.value), from_id, -1, to_id, 1)

            try:
                await db.run(step)
            except Exception as refused:
                assert "a way that its kind does not" in str(refused) or payer is payee, refused  # noqa: PT017
            else:
                possible.add((payer.value, payee.value))
    assert possible == WAYS[kind.value]
    assert (await audit_now(db)).clean


@pytest.mark.asyncio
async def test_a_negative_balance_is_refused_by_raw_sql(db: Database) -> None:
    world = await world_of(db)

    async def step(tx: Tx) -> None:
        one_id, two_id = await world.ledger_id(tx, "user", world.alice), await world.ledger_id(tx, "world", None)
        await execute(tx, INSERT_TWO, await insert_transfer(tx), one_id, -START_QU, two_id, START_QU)

    with pytest.raises(Exception, match="ledger_account_user_not_negative"):
        await db.run(step)


@pytest.mark.asyncio
async def test_entries_cannot_join_a_finished_transfer(db: Database) -> None:
    world = await world_of(db)

    async def step(tx: Tx) -> None:
        old = await value(tx, "SELECT id FROM transfer WHERE kind = 'hold'")
        await execute(tx, "INSERT INTO account (id, kind, name) VALUES ($1, 'user', 'eve')", world.job)
        await execute(
            tx, "INSERT INTO ledger_account (kind, owner) VALUES ('user', $1), ('user', $2)", world.job, world.bob
        )
        eve, bob = await world.ledger_id(tx, "user", world.job), await world.ledger_id(tx, "user", world.bob)
        await execute(tx, INSERT_TWO, old, eve, 5, bob, -5)

    with pytest.raises(Exception, match="is finished"):
        await db.run(step)


@pytest.mark.asyncio
@pytest.mark.parametrize("amount_qu", [0, 10**15 + 1, -(10**15) - 1])
async def test_amounts_are_bounded_by_the_database(db: Database, amount_qu: int) -> None:
    world = await world_of(db)

    async def step(tx: Tx) -> None:
        one_id, two_id = await world.ledger_id(tx, "user", world.alice), await world.ledger_id(tx, "world", None)
        await execute(tx, INSERT_TWO, await insert_transfer(tx), one_id, amount_qu, two_id, -amount_qu)

    with pytest.raises(Exception, match="entry_amount"):
        await db.run(step)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["refund", "development_credit", "settle", "return", "hold"])
async def test_a_hold_is_not_reached_by_the_wrong_kind_or_job(db: Database, kind: str) -> None:
    """Raw SQL that would move Alice's escrow to Bob: as another kind, for another job, or to another than the payer."""
    world = await world_of(db)

    async def step(tx: Tx) -> None:
        await execute(tx, "INSERT INTO ledger_account (kind, owner) VALUES ('user', $1)", world.bob)
        escrow, bob = await world.ledger_id(tx, "hold", world.job), await world.ledger_id(tx, "user", world.bob)
        job = world.job if kind == "return" else uuid.uuid4()
        await execute(tx, INSERT_TWO, await insert_transfer(tx, kind, job), escrow, -5, bob, 5)

    with pytest.raises(Exception, match=r"a way that its kind does not|does not move the hold|returned to the user"):
        await db.run(step)
    assert (await audit_now(db)).clean


@pytest.mark.asyncio
async def test_a_settlement_cannot_take_from_users(db: Database) -> None:
    world = await world_of(db)

    async def step(tx: Tx) -> None:
        await execute(tx, "INSERT INTO ledger_account (kind, owner) VALUES ('user', $1)", world.bob)
        ids = [
            await world.ledger_id(tx, "hold", world.job),
            await world.ledger_id(tx, "user", world.alice),
            await world.ledger_id(tx, "user", world.bob),
        ]
        made = await insert_transfer(tx, "settle", world.job)
        await execute(
            tx,
            "INSERT INTO entry (transfer_id, account_id, amount_qu) VALUES ($1, $2, -5), ($1, $3, -5), ($1, $4, 10)",
            made,
            *ids,
        )

    with pytest.raises(Exception, match="takes from others"):
        await db.run(step)


@pytest.mark.asyncio
async def test_a_hold_is_never_overspent(db: Database) -> None:
    world = await world_of(db)
    attempts = [uuid.uuid4() for _ in range(3)]
    await world.post(rules.settle(world.job, attempts[0], world.bob, 300, 7))
    with pytest.raises(HoldOverspent):
        await world.post(rules.settle(world.job, attempts[1], world.bob, 90, 4))
    with pytest.raises(HoldOverspent):
        await world.post(rules.give_back(world.job, world.alice, 94))
    await world.post(
        rules.settle(world.job, attempts[1], world.bob, 80, 3), rules.give_back(world.job, world.alice, 10)
    )
    async with db.transaction() as tx:
        found = await read.hold_of(tx, world.job)
        assert found is not None
        assert (found.held_qu, found.paid_qu, found.fees_qu, found.returned_qu, found.left_qu) == (400, 380, 10, 10, 0)
        assert found.closed_at is not None
        assert await read.payer_of(tx, world.job) == world.alice
        assert await read.balance_qu(tx, rules.FEES) == 10
    with pytest.raises(HoldOverspent):
        await world.post(rules.settle(world.job, attempts[2], world.bob, 1, 0))
    with pytest.raises(LedgerRefused, match="closed"):
        await world.post(rules.hold(world.job, world.alice, 5, part=1))
    assert (await audit_now(db)).clean


@pytest.mark.asyncio
async def test_an_open_hold_can_grow_by_its_payer_alone(db: Database) -> None:
    world = await world_of(db)
    await world.post(rules.hold(world.job, world.alice, 100, part=1))
    await fund(db, world.bob, 100)
    with pytest.raises(LedgerRefused, match="another user"):
        await world.post(rules.hold(world.job, world.bob, 50, part=2))
    async with db.transaction() as tx:
        found = await read.hold_for_update(tx, world.job)
        assert found is not None
        assert found.held_qu == HELD_QU + 100


@pytest.mark.asyncio
async def test_the_same_cause_is_posted_once(db: Database) -> None:
    world = await world_of(db)
    attempt = uuid.uuid4()
    settlement = rules.settle(world.job, attempt, world.bob, 100, 2)
    assert await world.post(settlement) == 1
    assert await world.post(settlement, settlement) == 0
    for other in (
        rules.settle(world.job, attempt, world.bob, 101, 2),
        rules.settle(world.job, attempt, world.alice, 100, 2),
        rules.settle(world.job, attempt, world.bob, 100, 0),
    ):
        with pytest.raises(CauseReused):
            await world.post(other)
    fresh = rules.settle(world.job, uuid.uuid4(), world.bob, 1, 0)
    assert await world.post(settlement, fresh, fresh) == 1
    async with db.transaction() as tx:
        assert await read.balance_qu(tx, rules.user(world.bob)) == 101


@pytest.mark.asyncio
async def test_post_names_what_is_wrong_and_posts_all_or_nothing(db: Database) -> None:
    world = await world_of(db)
    good = rules.hold(uuid.uuid4(), world.alice, 1)
    with pytest.raises(NotEnoughBalance) as refused:
        await world.post(good, rules.hold(uuid.uuid4(), world.alice, START_QU))
    assert refused.value.remedy
    with pytest.raises(NotFound):
        await world.post(good, rules.refund(uuid.uuid4(), rules.user(world.alice), uuid.uuid4(), 1))
    with pytest.raises(NotEnoughBalance):
        await world.post(good, rules.refund(uuid.uuid4(), rules.FEES, world.alice, 1))
    async with db.transaction() as tx:
        assert await read.balance(tx, world.alice) == read.Balance(START_QU - HELD_QU, HELD_QU)
    assert await db.run(lambda tx: post(tx, [])) == 0


@pytest.mark.asyncio
async def test_refunds_come_from_the_provider_or_from_swept_fees(db: Database) -> None:
    world = await world_of(db)
    await world.post(rules.settle(world.job, uuid.uuid4(), world.bob, 100, 20))
    decision = uuid.uuid4()
    with pytest.raises(NotEnoughBalance):
        await world.post(rules.refund(decision, rules.FEES, world.alice, 5))
    assert await db.run(read.sweep) == 2
    await world.post(
        rules.refund(decision, rules.FEES, world.alice, 5),
        rules.refund(decision, rules.user(world.bob), world.alice, 60),
    )
    async with db.transaction() as tx:
        assert await read.balance_qu(tx, rules.FEES) == 15
        assert await read.balance_qu(tx, rules.user(world.bob)) == 40
    assert (await audit_now(db)).clean


@pytest.mark.asyncio
async def test_statement_pages_newest_first(db: Database) -> None:
    world = await world_of(db)
    for n in range(5):
        await world.post(rules.hold(uuid.uuid4(), world.alice, n + 1))
    async with db.transaction() as tx:
        first = await read.statement(tx, world.alice, limit=4)
        rest = await read.statement(tx, world.alice, before=first[-1].id, limit=4)
    assert [line.amount_qu for line in first + rest] == [-5, -4, -3, -2, -1, -HELD_QU, START_QU]
    assert (rest[-1].kind, rest[-1].job_id) == ("deposit", None)


@pytest.mark.asyncio
async def test_a_deposit_is_credited_once_and_never_as_another(db: Database) -> None:
    world = await world_of(db)
    paid = {"network": "devnet", "tick": 7, "tx_id": "a" * 60, "output": 0}
    assert await world.post(rules.deposit(world.bob, 50, **paid)) == 1
    assert await world.post(rules.deposit(world.bob, 50, **paid)) == 0
    with pytest.raises(CauseReused):
        await world.post(rules.deposit(world.bob, 51, **paid))
    with pytest.raises(CauseReused):
        await world.post(rules.deposit(world.alice, 50, **paid))
    assert await world.post(rules.deposit(world.bob, 50, **{**paid, "output": 1})) == 1
    async with db.transaction() as tx:
        assert await read.balance_qu(tx, rules.user(world.bob)) == 100


@pytest.mark.asyncio
async def test_development_credit_cannot_exist_on_main(pg_server: PgServer) -> None:
    async with connected(pg_server, "main") as db:
        alice = await db.run(lambda tx: accounts.create_account(tx, "alice"))
        play_money = rules.Transfer(
            rules.TransferKind.DEVELOPMENT_CREDIT,
            "development_credit:k",
            (rules.Leg(rules.WORLD, -1), rules.Leg(rules.user(alice), 1)),
        )
        with pytest.raises(WrongNetwork):
            await db.run(lambda tx: post(tx, [play_money]))

        async def pretend(tx: Tx) -> None:
            await one(
                tx,
                "INSERT INTO transfer (id, kind, cause, digest, network)"
                " VALUES (gen_random_uuid(), 'development_credit', 'c', sha256('x'), 'devnet') RETURNING id",
            )

        with pytest.raises(Exception, match="transfer_network_fk"):
            await db.run(pretend)


def test_transfers_are_sound_before_they_reach_the_database() -> None:
    good = rules.hold(uuid.UUID(int=1), uuid.UUID(int=2), 5)
    assert good.id == rules.hold(uuid.UUID(int=1), uuid.UUID(int=2), 6).id, "the id comes from the cause alone"
    for legs in (
        good.legs[:1],
        (good.legs[0], rules.Leg(rules.FEES, 4)),
        (good.legs[0], good.legs[0]),
        (rules.Leg(rules.FEES, 0), rules.Leg(rules.WORLD, 0)),
    ):
        with pytest.raises(ValueError):
            replace(good, legs=legs)
    with pytest.raises(ValueError):
        rules.settle(uuid.UUID(int=1), uuid.UUID(int=2), uuid.UUID(int=3), -1, 5)
    with pytest.raises(ValueError):
        rules.refund(uuid.UUID(int=1), rules.escrow(uuid.UUID(int=2)), uuid.UUID(int=3), 5)
