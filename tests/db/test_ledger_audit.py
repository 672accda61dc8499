# SPDX-License-Identifier: Apache-2.0
"""The audit finds each kind of damage, planted behind the triggers' back; the command says so by its exit status."""

import json
import subprocess
import sys
import uuid

import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database, Tx, execute
from qubix_coordinator.ledger import rules
from qubix_coordinator.ledger.audit import all_checks, audit_now
from qubix_coordinator.ledger.post import post
from tests.support.funds import fund
from tests.support_pg import clean_environment


async def some_history(db: Database) -> None:
    async with db.transaction() as tx:
        alice, bob = await accounts.create_account(tx, "alice"), await accounts.create_account(tx, "bob")
    await fund(db, alice, 1000)
    jobs = [uuid.uuid4() for _ in range(2)]
    await db.run(lambda tx: post(tx, [rules.hold(job, alice, 100) for job in jobs]))
    await db.run(lambda tx: post(tx, [rules.settle(jobs[0], uuid.uuid4(), bob, 50, 5)]))
    await db.run(lambda tx: post(tx, [rules.give_back(jobs[0], alice, 45)]))


async def plant(db: Database, *damage: str) -> None:
    """As somebody with the rights to switch the triggers off."""

    async def step(tx: Tx) -> None:
        await execute(tx, "SET LOCAL session_replication_role = 'replica'")
        for sql in damage:
            await execute(tx, sql)

    await db.run(step)


USER_ENTRY = "(SELECT e.ctid FROM entry e JOIN ledger_account a ON a.id = e.account_id WHERE a.kind = 'user' LIMIT 1)"
DROP_CHECKS = "ALTER TABLE {} DROP CONSTRAINT {}"
DAMAGE = [
    ("I1", [f"UPDATE entry SET amount_qu = amount_qu + 1 WHERE ctid = {USER_ENTRY}"]),
    (
        "I1",
        [
            "INSERT INTO transfer (id, kind, cause, digest, xid)"
            " VALUES (gen_random_uuid(), 'refund', 'c', sha256('x'), '3')"
        ],
    ),
    (
        "I2",
        [
            DROP_CHECKS.format("ledger_account", "ledger_account_user_not_negative"),
            "UPDATE ledger_account SET balance_qu = -5 WHERE kind = 'user'",
        ],
    ),
    ("I3", ["UPDATE ledger_account SET balance_qu = balance_qu + 1 WHERE kind = 'user'"]),
    ("I3", ["DELETE FROM ledger_pending"]),
    ("I4", ["UPDATE hold SET held_qu = held_qu + 1 WHERE closed_at IS NULL"]),
    ("I4", ["DELETE FROM hold WHERE closed_at IS NULL"]),
    ("I5", ["UPDATE hold SET paid_qu = paid_qu + 1, returned_qu = returned_qu - 1 WHERE closed_at IS NOT NULL"]),
    (
        "I5-once",
        [
            DROP_CHECKS.format("transfer", "transfer_cause_once"),
            "UPDATE transfer SET cause = (SELECT max(cause) FROM transfer)",
        ],
    ),
    (
        "I11",
        [
            "UPDATE network SET name = 'main'",
        ],
    ),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("check", "damage"), DAMAGE, ids=lambda part: part if isinstance(part, str) else "")
async def test_damage_is_found(db: Database, check: str, damage: list[str]) -> None:
    await some_history(db)
    assert (await audit_now(db)).clean
    await plant(db, *damage)
    report = await audit_now(db)
    assert check in {found.check for found in report.violations}


@pytest.mark.asyncio
async def test_the_command_prints_and_exits_by_what_it_finds(db: Database) -> None:
    await some_history(db)
    unread = audit_command(db)
    assert (unread.returncode, "the chain has never been read" in unread.stdout) == (1, True)
    await plant(
        db,
        "INSERT INTO treasury (public_key, role, derivation, balance_qu, tick, checked_at)"
        " VALUES (sha256('hot'), 'hot', 1, 1000, 9, now())",
    )
    text = audit_command(db)
    assert text.returncode == 0, text.stderr
    assert "ledger clean" in text.stdout
    checks, columns = [line for line in text.stdout.splitlines() if line.startswith("ok ")], set[int]()
    for check, line in zip(all_checks(), checks, strict=True):
        columns.add(line.index(check.claim))
    assert len(columns) == 1, "the claims stand in one column"
    clean = audit_command(db, "--json")
    counts = {"ledger_account": 6, "transfer": 5, "entry": 11, "hold": 2, "receipt_entry": 0}
    assert json.loads(clean.stdout) == {"clean": True, "checked": counts, "violations": [], "unknown": []}
    await plant(db, "UPDATE ledger_account SET balance_qu = balance_qu + 1 WHERE kind = 'user'")
    bad = audit_command(db, "--json")
    assert bad.returncode == 1
    assert [found["check"] for found in json.loads(bad.stdout)["violations"]] == ["I3", "I3"]
    assert "BAD  I3" in audit_command(db).stdout
    assert audit_command(db, "--nonsense").returncode == 2
    assert audit_command(db, QUBIX_NETWORK="mars").returncode == 2


def audit_command(db: Database, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "qubix_coordinator.ledger.audit_command", *arguments],
        env=clean_environment(DATABASE_URL=db.dsn, **env),
        capture_output=True,
        text=True,
        timeout=60,
    )
