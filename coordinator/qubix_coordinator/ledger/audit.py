# SPDX-License-Identifier: Apache-2.0
"""The audit: trust.md I1 to I11. The ledger's own checks stand here, recomputed from the entries alone; each capability
contributes those of its rows by a module `audit` with CHECKS.

A check that cannot be told (the chain was not read, the time is up) is *unknown*, which is not clean.
"""

import importlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from typing import NamedTuple, TypeVar

import asyncpg

from qubix_coordinator.db.database import Database, Tx, execute, rows, value

T = TypeVar("T")
VIOLATIONS_MAX = 1000
GRACE_MS = 300_000
"""What is later than this past its deadline was forgotten (I6): ticks, restarts and outages are shorter."""
CONTRIBUTORS = ("deposits", "withdrawals", "jobs", "rentals", "disputes", "spots", "earnings")
COUNTED = ("ledger_account", "transfer", "entry", "hold")
CHECK_S = 60.0
"""A check that takes longer is given up as unknown, so that an audit ends on a ledger of any size."""


class Outcome(StrEnum):
    """What a row of a check means."""

    VIOLATION = "violation"
    UNKNOWN = "unknown"


class Check(NamedTuple):
    """`sql` gives one row, with a text column `what`, for each violation; `:now_ms` stands in it for the coordinator's
    clock."""

    id: str
    claim: str
    sql: str
    outcome: Outcome = Outcome.VIOLATION


class Violation(NamedTuple):
    check: str
    what: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """`checked` counts the rows that were looked at, by table, where that took no longer than a check; `violations`
    and `unknown` hold at most VIOLATIONS_MAX a check."""

    checked: dict[str, int]
    violations: tuple[Violation, ...]
    checks: tuple[Check, ...]
    unknown: tuple[Violation, ...] = ()

    @property
    def clean(self) -> bool:
        return not self.violations and not self.unknown


CHECKS = (
    Check(
        "I1",
        "the entries of each transfer sum to zero",
        """SELECT format('transfer %s has %s entries that sum to %s QU',
             t.id, count(e.id), coalesce(sum(e.amount_qu), 0)) AS what
           FROM transfer t LEFT JOIN entry e ON e.transfer_id = t.id
           GROUP BY t.id HAVING count(e.id) < 2 OR coalesce(sum(e.amount_qu), 0) <> 0""",
    ),
    Check(
        "I2",
        "no balance is negative, but for the world's",
        """SELECT format('%s %s has %s QU', kind, owner, balance_qu) AS what
           FROM ledger_balance WHERE kind <> 'world' AND balance_qu < 0""",
    ),
    Check(
        "I3",
        "each balance is the sum of its entries",
        """SELECT format('%s %s shows %s QU, its entries say %s',
             b.kind, b.owner, b.balance_qu, coalesce(s.sum, 0)) AS what
           FROM ledger_balance b
           LEFT JOIN (SELECT account_id, sum(amount_qu) FROM entry GROUP BY 1) s ON s.account_id = b.id
           WHERE b.balance_qu <> coalesce(s.sum, 0)""",
    ),
    Check(
        "I4",
        "what is in escrow is what the open holds have left",
        """SELECT format('job %s: escrow %s QU, hold %s', coalesce(a.owner, h.job_id), coalesce(a.balance_qu, 0),
             coalesce(h.held_qu - h.paid_qu - h.fees_qu - h.returned_qu, 0)) AS what
           FROM (SELECT owner, balance_qu FROM ledger_account WHERE kind = 'hold') a
           FULL JOIN hold h ON h.job_id = a.owner
           WHERE coalesce(a.balance_qu, 0) <> coalesce(h.held_qu - h.paid_qu - h.fees_qu - h.returned_qu, 0)""",
    ),
    Check(
        "I5",
        "paid, fees and returned are what the entries say, never more than the hold, and equal to it once closed",
        """SELECT format('job %s: held %s, paid %s, fees %s, returned %s QU; the entries say %s, %s, %s, %s',
             h.job_id, h.held_qu, h.paid_qu, h.fees_qu, h.returned_qu, s.held, s.paid, s.fees, s.returned) AS what
           FROM hold h LEFT JOIN (
             SELECT t.job_id,
               coalesce(sum(e.amount_qu) FILTER (WHERE t.kind = 'hold' AND a.kind = 'hold'), 0) AS held,
               coalesce(sum(e.amount_qu) FILTER (WHERE t.kind = 'settle' AND a.kind = 'user'), 0) AS paid,
               coalesce(sum(e.amount_qu) FILTER (WHERE t.kind = 'settle' AND a.kind = 'fees'), 0) AS fees,
               coalesce(sum(e.amount_qu) FILTER (WHERE t.kind = 'return' AND a.kind = 'user'), 0) AS returned
             FROM transfer t JOIN entry e ON e.transfer_id = t.id JOIN ledger_account a ON a.id = e.account_id
             WHERE t.job_id IS NOT NULL GROUP BY t.job_id) s ON s.job_id = h.job_id
           WHERE (h.held_qu, h.paid_qu, h.fees_qu, h.returned_qu) IS DISTINCT FROM (s.held, s.paid, s.fees, s.returned)
              OR h.paid_qu + h.fees_qu + h.returned_qu > h.held_qu
              OR (h.closed_at IS NOT NULL) <> (h.paid_qu + h.fees_qu + h.returned_qu = h.held_qu)""",
    ),
    Check(
        "I5-once",
        "each cause settles once",
        """SELECT format('cause %s was posted %s times', cause, count(*)) AS what
           FROM transfer GROUP BY cause HAVING count(*) > 1""",
    ),
    Check(
        "I11",
        "every transfer is of the ledger's network, and there is no development credit on main",
        """SELECT format('transfer %s (%s) is of the network %s', id, kind, network) AS what FROM transfer
           WHERE network <> current_network() OR (kind = 'development_credit' AND network = 'main')""",
    ),
)


@cache
def all_checks() -> tuple[Check, ...]:
    """The ledger's and every capability's, in the order of their ids."""
    found = list(CHECKS)
    for capability in CONTRIBUTORS:
        found += importlib.import_module(f"qubix_coordinator.{capability}.audit").CHECKS
    return tuple(sorted(found, key=lambda check: (int(check.id.partition("-")[0][1:]), check.id)))


async def audit(tx: Tx) -> AuditReport:
    """The ledger alone, by its entries; for one view of a ledger that moves, `tx` must be repeatable read."""
    found: list[Violation] = []
    for check in CHECKS:
        found += await _ask(tx, check, 0)
    return AuditReport(await _counts(tx, COUNTED), tuple(found), CHECKS)


async def audit_all(tx: Tx, now_ms: int, *, check_s: float = CHECK_S) -> AuditReport:
    """Everything. Never longer than `check_s` for a check: what is not told by then is unknown."""
    violations, unknown = list[Violation](), list[Violation]()
    for check in all_checks():
        found = await _within(tx, check_s, partial(_ask, tx, check, now_ms))
        if found is None:
            unknown.append(Violation(check.id, f"not told: it took longer than {check_s:g} s"))
        else:
            (unknown if check.outcome is Outcome.UNKNOWN else violations).extend(found)
    counted = await _within(tx, check_s, partial(_counts, tx, (*COUNTED, "receipt_entry")))
    return AuditReport(counted or {}, tuple(violations), all_checks(), tuple(unknown))


async def _within(tx: Tx, check_s: float, answer: Callable[[], Awaitable[T]]) -> T | None:
    """None when a statement took longer. The time limit ends with the savepoint, whatever came of it."""
    await execute(tx, "SAVEPOINT audit_check")
    await execute(tx, f"SET LOCAL statement_timeout = {max(1, round(check_s * 1000))}")
    try:
        found = await answer()
    except asyncpg.QueryCanceledError:
        found = None
    await execute(tx, "ROLLBACK TO SAVEPOINT audit_check")
    return found


async def _ask(tx: Tx, check: Check, now_ms: int) -> list[Violation]:
    sql = check.sql.replace(":now_ms", str(int(now_ms)))
    bounded = f"SELECT what FROM ({sql}) AS found LIMIT {VIOLATIONS_MAX}"  # noqa: S608 - our own constants
    return [Violation(check.id, row["what"]) for row in await rows(tx, bounded)]


async def _counts(tx: Tx, tables: tuple[str, ...]) -> dict[str, int]:
    return {table: int(await value(tx, f"SELECT count(*) FROM {table}")) for table in tables}  # noqa: S608


async def audit_now(db: Database) -> AuditReport:
    """The ledger alone, in one consistent view, whatever is being posted meanwhile."""
    return await db.run(audit, "repeatable_read")


async def audit_all_now(db: Database, now_ms: int, *, check_s: float = CHECK_S) -> AuditReport:
    """Everything, in one consistent view."""
    return await db.run(lambda tx: audit_all(tx, now_ms, check_s=check_s), "repeatable_read")
