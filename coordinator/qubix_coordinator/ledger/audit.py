# SPDX-License-Identifier: Apache-2.0
"""The ledger's check of itself: trust.md I1 to I5 and I11, recomputed from the entries alone."""

from dataclasses import dataclass
from typing import NamedTuple

from qubix_coordinator.db.database import Database, Tx, rows, value

VIOLATIONS_MAX = 1000


class Check(NamedTuple):
    """`sql` gives one row, with a text column `what`, for each violation."""

    id: str
    claim: str
    sql: str


class Violation(NamedTuple):
    check: str
    what: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """`checked` counts the rows that were looked at, by table; `violations` holds at most VIOLATIONS_MAX a check."""

    checked: dict[str, int]
    violations: tuple[Violation, ...]
    checks: tuple[Check, ...]

    @property
    def clean(self) -> bool:
        return not self.violations


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


async def audit(tx: Tx) -> AuditReport:
    """Reads everything; for one view of a ledger that moves, `tx` must be repeatable read (see `audit_now`)."""
    found: list[Violation] = []
    for check in CHECKS:
        bounded = f"SELECT what FROM ({check.sql}) AS found LIMIT {VIOLATIONS_MAX}"  # noqa: S608 - our own constants
        found += [Violation(check.id, row["what"]) for row in await rows(tx, bounded)]
    return AuditReport(await _counts(tx), tuple(found), CHECKS)


async def _counts(tx: Tx) -> dict[str, int]:
    tables = ("ledger_account", "transfer", "entry", "hold")
    return {table: int(await value(tx, f"SELECT count(*) FROM {table}")) for table in tables}  # noqa: S608


async def audit_now(db: Database) -> AuditReport:
    """One consistent view, whatever is being posted meanwhile."""
    return await db.run(audit, "repeatable_read")
