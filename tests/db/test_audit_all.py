# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - rows as they are planted
"""I5 to I11 beyond the ledger's entries: each check finds the damage it is for, planted behind the triggers' back."""

import asyncio
import uuid

import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database, Tx, execute, value
from qubix_coordinator.ledger import audit_log, rules
from qubix_coordinator.ledger.audit import all_checks, audit_all, audit_all_now
from qubix_coordinator.ledger.post import post
from tests.db.jobs_world import UNITS, World

KEY, OTHER = "\\x" + "11" * 32, "\\x" + "22" * 32
TX = "a" * 60


async def market(db: Database) -> World:
    """A settled job with its outputs, and one that runs."""
    world = await World(db).open()
    node = await world.node()
    await world.assigned()
    await node.whole_job()
    await world.check()
    await world.assigned()
    await node.accept()
    await node.work(0, UNITS // 2)
    return world


async def chain(db: Database, *, checked: str = "now()", balance_qu: int = 5_000) -> uuid.UUID:
    """A deposit that was credited, and the balances that the chain told of."""

    async def step(tx: Tx) -> uuid.UUID:
        owner = await accounts.create_account(tx, "depositor")
        await post(tx, [rules.deposit(owner, 5_000, network="devnet", tick=7, tx_id=TX, output=0)])
        for sql in (
            f"INSERT INTO treasury (public_key, role, derivation, balance_qu, tick, checked_at) VALUES ('{OTHER}', 'hot', 1,"
            f" 0, 9, {checked}), ('{KEY}', 'deposit', NULL, {balance_qu}, 9, {checked})",
            f"INSERT INTO deposit_identity (no, public_key, account_id, assigned_at) VALUES (1, '{KEY}', '{owner}', now())",
            "INSERT INTO deposit (id, tick, tx_id, output, identity_no, account_id, source, amount_qu, evidence, state,"
            f" reason, transfer_id, seen_ms) SELECT gen_random_uuid(), 7, '{TX}', 0, 1, '{owner}', '{OTHER}', 5000,"
            " 'event_log', 'credited', '', id, 1 FROM transfer WHERE kind = 'deposit'",
        ):
            await execute(tx, sql)
        return owner

    return await db.run(step)


async def plant(db: Database, *damage: str) -> None:
    async with db.transaction() as tx:
        await execute(tx, "SET LOCAL session_replication_role = 'replica'")
        for sql in damage:
            await execute(tx, sql)


async def found(db: Database, now_ms: int) -> tuple[set[str], set[str]]:
    report = await audit_all_now(db, now_ms)
    return {one.check for one in report.violations}, {one.check for one in report.unknown}


RENTAL = (
    "INSERT INTO rental (id, account_id, idempotency_key, body_digest, listing_id, peer_id, device_id, kind, model, backends,"
    " state, reason, detail, rate_qu_per_h, fee_bps, offer_digest, seconds, hold_qu, sent_ms, since_ms, created_ms, due_ms)"
    f" SELECT gen_random_uuid(), account_id, 'r', '{KEY}', (SELECT listing_id FROM attempt LIMIT 1),"
    f" (SELECT peer_id FROM attempt LIMIT 1), 'd', 'cpu', 'm', '{{cpu}}', 'requested', '', '', 1, 0, '{KEY}', 60, 10, 1, 1, 1,"
    " 9223372036854775807 FROM job LIMIT 1"
)
DISPUTE = (
    "INSERT INTO dispute (id, no, job_id, attempt_id, fence, peer_id, opened_by, consumer_id, provider_id, state, checked,"
    " in_window, ranges, stake_qu, bond_qu, opened_ms, due_ms, award_qu, from_provider_qu) SELECT gen_random_uuid(), 1, job_id,"
    " id, fence, peer_id, 'consumer', gen_random_uuid(), gen_random_uuid(), 'opened', true, false, '[]', 9, 9, 1, {due_ms},"
    " {award_qu}, {award_qu} FROM attempt LIMIT 1"
)
WITHDRAWAL = (
    "INSERT INTO withdrawal (id, no, account_id, idempotency_key, address_id, destination, amount_qu, automatic, state, reason,"
    f" detail, revision, created_ms, not_before_ms, late_ms, due_ms) SELECT gen_random_uuid(), 1, account_id, 'w',"
    f" gen_random_uuid(), '{KEY}', 10, false, 'broadcast', '', '', 1, 1, 1, 1, 1 FROM job LIMIT 1"
)
SIGNED = (
    "INSERT INTO withdrawal_tx (tx_id, withdrawal_id, no, hot_key, destination, amount_qu, signed_bytes, tick, epoch, outgoing_qu,"
    f" outgoing_count, known_tick, signed_ms) SELECT repeat('{{0}}', 60), id, {{1}}, '{KEY}', '{KEY}', 10,"
    " decode(repeat('00', 144), 'hex'), 5, 1, 0, 0, 1, 1 FROM withdrawal"
)
SWEEP = (
    "INSERT INTO sweep (id, identity_no, tx_id, raw, amount_qu, covers_tick, tick, outgoing_qu, outgoing_count, state, signed_ms)"
    " VALUES (gen_random_uuid(), 1, repeat('{0}', 60), decode(repeat('00', 144), 'hex'), 1, 1, 2, 0, 0, 'live', 1)"
)
SPOT = (
    "INSERT INTO spot_check (attempt_id, job_id, peer_id, provider_id, state, start, stop, worth_qu, drawn_ms, due_ms)"
    " SELECT id, job_id, peer_id, gen_random_uuid(), 'waiting', 0, 1, 1, 1, {due_ms} FROM attempt LIMIT 1"
)
FORFEIT = (
    "INSERT INTO forfeit (id, account_id, attempt_id, reason, new_qu, amount_qu, at_ms)"
    " SELECT gen_random_uuid(), gen_random_uuid(), id, 'r', {0}, {1}, 1 FROM attempt LIMIT 1"
)
DAMAGE = [
    ("I3-earnings", ["UPDATE earnings_part SET earned_qu = earned_qu + 1"]),
    (
        "I5-job",
        [
            "ALTER TABLE job DROP CONSTRAINT job_hold_spent_when_final",
            "UPDATE job SET fee_qu = fee_qu - 1 WHERE fee_qu > 0",
        ],
    ),
    (
        "I5-unit",
        [
            "ALTER TABLE link DROP CONSTRAINT link_unit_paid_once",
            "UPDATE link SET start = 0, paid = true, verdict = true WHERE start = 25",
        ],
    ),
    ("I6-job", ["UPDATE job SET deadline_ms = 1 WHERE ended_ms IS NULL"]),
    ("I6-job", ["UPDATE attempt SET due_ms = 1 WHERE state = 'running'"]),
    ("I6-job", ["UPDATE verdict SET applied = false, recorded_ms = 1"]),
    ("I7-job", ["DELETE FROM hold WHERE closed_at IS NULL"]),
    ("I7-job", ["DELETE FROM job WHERE ended_ms IS NULL"]),
    ("I7-job", ["DELETE FROM event WHERE id = (SELECT max(id) FROM event WHERE topic LIKE 'job:%')"]),
    ("I7-job", ["DELETE FROM receipt_entry WHERE entry = 'assigned'"]),
    ("I7-job", ["DELETE FROM receipt_entry WHERE entry = 'closed'"]),
    ("I7-job", ["UPDATE receipt_entry SET raw = raw || '\\x00' WHERE entry = 'linked'"]),
    ("I7-job", ["UPDATE attempt SET links = links + 1"]),
    ("I10", ["UPDATE artifact SET readable = true WHERE origin = 'attempt'"]),
    ("I10", ["UPDATE artifact SET readable = false"]),
    ("I10", ["UPDATE artifact_writer SET writer = gen_random_uuid()::text"]),
    ("I6-rental", [RENTAL, "UPDATE rental SET due_ms = 1"]),
    ("I7-rental", [RENTAL]),
    (
        "I7-rental-group",
        [
            "INSERT INTO rental_group (id, account_id, peer_id, devices, created_ms)"
            " SELECT gen_random_uuid(), account_id, (SELECT peer_id FROM attempt LIMIT 1), 2, 1 FROM job LIMIT 1"
        ],
    ),
    (
        "I5-rental",
        [RENTAL, "UPDATE rental SET settled_ms = 1, billed_ms = 1, started_ms = 1, ends_ms = 1, paid_qu = 5"],
    ),
    ("I4-bond", [DISPUTE.format(due_ms=2**62, award_qu=0)]),
    ("I5-award", [DISPUTE.format(due_ms=2**62, award_qu=5)]),
    ("I6-dispute", [DISPUTE.format(due_ms=1, award_qu=0)]),
    ("I5-forfeit", [FORFEIT.format(5, 5)]),
    ("I5-forfeit", [FORFEIT.format(5, 0)]),
    ("I6-spot", [SPOT.format(due_ms=1)]),
    (
        "I5-spot",
        [
            SPOT.format(due_ms=2**62),
            "INSERT INTO spot_rerun (job_id, attempt_id, peer_id, draw, lent_qu, lent_ms)"
            " SELECT job_id, attempt_id, peer_id, 1, 7, 1 FROM spot_check",
        ],
    ),
    ("I6-withdrawal", [WITHDRAWAL]),
    ("I7-withdrawal", [WITHDRAWAL]),
    (
        "I8-withdrawals",
        [WITHDRAWAL, "UPDATE withdrawal SET state = 'confirmed', ended_ms = 1, due_ms = NULL"],
    ),
    (
        "I9",
        [
            "DROP INDEX withdrawal_tx_one_live",
            "DROP INDEX withdrawal_tx_one_in_flight",
            WITHDRAWAL,
            SIGNED.format("a", 1),
            SIGNED.format("b", 2),
        ],
    ),
    ("I11-withdrawals", [WITHDRAWAL, "UPDATE network SET name = 'main'"]),
]


async def found_after(db: Database, now_ms: int, damage: list[str]) -> set[str]:
    """What the audit sees of it; afterwards the damage is undone."""
    async with db.transaction() as tx:
        await execute(tx, "SAVEPOINT whole")
        await execute(tx, "SET LOCAL session_replication_role = 'replica'")
        for sql in damage:
            await execute(tx, sql)
        seen = {one.check for one in (await audit_all(tx, now_ms)).violations}
        await execute(tx, "ROLLBACK TO SAVEPOINT whole")
    return seen


@pytest.mark.asyncio
async def test_damage_is_found(db: Database) -> None:
    world = await market(db)
    for check, damage in DAMAGE:
        assert check in await found_after(db, world.desk.now_ms(), damage), (check, damage)
    assert (await found(db, world.desk.now_ms()))[0] == set()


CHAIN_DAMAGE = [
    ("I8-deposits", ["UPDATE deposit SET amount_qu = 4999"]),
    (
        "I8-deposits",
        [
            "DELETE FROM transfer WHERE kind = 'hold'",
            "INSERT INTO transfer (id, kind, cause, digest, xid)"
            f" VALUES (gen_random_uuid(), 'deposit', 'deposit:x', '{KEY}', '3')",
        ],
    ),
    ("I8", ["UPDATE treasury SET balance_qu = balance_qu - 1 WHERE role = 'deposit'"]),
    ("I9-sweeps", ["DROP INDEX sweep_one_live", SWEEP.format("a"), SWEEP.format("b")]),
    ("I11-deposits", ["UPDATE network SET name = 'main'"]),
]


@pytest.mark.asyncio
async def test_damage_of_the_chains_rows_is_found(db: Database) -> None:
    await chain(db)
    for check, damage in CHAIN_DAMAGE:
        assert check in await found_after(db, 1, damage), (check, damage)
    assert await found(db, 1) == (set(), set())


@pytest.mark.asyncio
@pytest.mark.parametrize("checked", ["NULL", "now() - interval '1 hour'"])
async def test_a_chain_that_was_not_read_is_unknown_and_not_clean(db: Database, checked: str) -> None:
    """I8."""
    await chain(db, checked=checked, balance_qu=0)
    report = await audit_all_now(db, 1)
    assert not report.clean
    assert report.violations == ()
    (unknown,) = report.unknown
    assert unknown.check == "I8-read"
    assert "unknown: the chain has" in unknown.what


@pytest.mark.asyncio
async def test_what_is_on_its_way_between_two_readings_is_unknown_and_no_theft(db: Database) -> None:
    await chain(db)
    await plant(
        db, SWEEP.format("a"), "UPDATE sweep SET amount_qu = 5000, tick = 9", "UPDATE treasury SET balance_qu = 0"
    )
    assert await found(db, 1) == (set(), {"I8-read"})
    await plant(db, "UPDATE sweep SET amount_qu = 4999")
    assert await found(db, 1) == ({"I8"}, set())


@pytest.mark.asyncio
async def test_a_payment_is_not_missed_before_its_identity_was_read_again(db: Database) -> None:
    await chain(db, balance_qu=0)
    assert (await found(db, 1))[0] == {"I8"}
    await plant(db, "UPDATE treasury SET tick = 6")
    assert await found(db, 1) == (set(), set())


@pytest.mark.asyncio
async def test_a_check_that_takes_too_long_is_unknown(db: Database) -> None:
    """However large the ledger is, the audit ends; what it did not get to is not called clean."""
    await market(db)
    async with db.transaction() as holder, db.transaction("repeatable_read") as tx:
        await execute(holder, "LOCK TABLE dispute IN ACCESS EXCLUSIVE MODE")
        limits = [await value(tx, "SHOW statement_timeout")]
        report = await audit_all(tx, 1, check_s=0.5)
        limits.append(await value(tx, "SHOW statement_timeout"))
    assert limits[0] == limits[1]
    assert report.checks == all_checks()
    assert not report.clean
    late = {one.check for one in report.unknown if "took longer" in one.what}
    assert {"I4-bond", "I5-award", "I6-dispute"} <= late < {one.id for one in all_checks()}
    assert report.checked["hold"] == 2


def test_every_invariant_is_asked() -> None:
    assert {check.id.partition("-")[0] for check in all_checks()} == {f"I{n}" for n in range(1, 12)}
    planted = {check for check, _ in (*DAMAGE, *CHAIN_DAMAGE)}
    assert {check.id for check in all_checks() if check.id not in {"I1", "I2", "I3", "I4", "I5", "I5-once", "I11"}} == (
        planted | {"I8-read"}
    )


@pytest.mark.asyncio
async def test_no_transaction_idles_while_the_nightly_audit_takes_its_time(db: Database) -> None:
    """PostgreSQL ends transactions that idle for a minute, and their locks."""
    async with db.transaction() as holder:
        await execute(holder, "LOCK TABLE dispute IN ACCESS EXCLUSIVE MODE")
        audit = asyncio.create_task(audit_log.nightly(db, 10**12))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        while not await db.fetch_value(waiting):  # noqa: ASYNC110 - the database has no event for it
            await asyncio.sleep(0.01)
        idle = await db.fetch_value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
            " AND query NOT LIKE 'LOCK TABLE%'"
        )
        assert idle == 0
    assert await audit is not None


@pytest.mark.asyncio
async def test_an_audit_is_made_every_night_by_one_replica_and_kept(db: Database) -> None:
    world = await market(db)
    night_ms = world.desk.now_ms()
    first, second = await asyncio.gather(audit_log.nightly(db, night_ms), audit_log.nightly(db, night_ms))
    assert (first is None) + (second is None) >= 1
    assert first or second
    assert await audit_log.nightly(db, night_ms + 3_600_000) is None
    await plant(db, "UPDATE artifact SET readable = true WHERE origin = 'attempt'")
    assert await audit_log.nightly(db, night_ms + 24 * 3_600_000) is not None
    run = await db.run(audit_log.last)
    assert run is not None
    assert run.at_ms == night_ms + 24 * 3_600_000
    assert run.violations["I10"] > 0
    assert run.violations["I1"] == 0
    assert run.violations.keys() == run.unknown.keys() == {check.id for check in all_checks()}
