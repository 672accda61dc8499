# SPDX-License-Identifier: Apache-2.0
"""Balances, statements and holds as the caller's transaction sees them."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from qubix_coordinator.db.database import Tx, execute, one, rows, value
from qubix_coordinator.ledger.rules import AccountRef
from qubix_coordinator.ledger.tables import HoldRow

PAGE_MAX = 500
SWEEP_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Hold:
    job_id: UUID
    held_qu: int
    paid_qu: int
    fees_qu: int
    returned_qu: int
    closed_at: datetime | None

    @property
    def left_qu(self) -> int:
        return self.held_qu - self.paid_qu - self.fees_qu - self.returned_qu


@dataclass(frozen=True, slots=True)
class Line:
    """One entry of a statement; `amount_qu` is positive when the account gained."""

    id: int
    amount_qu: int
    kind: str
    cause: str
    job_id: UUID | None
    posted_at: datetime


@dataclass(frozen=True, slots=True)
class Balance:
    """`held_qu` is what the account's open holds still keep; it is not part of `available_qu`."""

    available_qu: int
    held_qu: int


async def balance_qu(tx: Tx, ref: AccountRef) -> int:
    """0 for an account that has never had an entry."""
    found = await value(
        tx,
        "SELECT balance_qu FROM ledger_balance WHERE kind = $1 AND owner IS NOT DISTINCT FROM $2::uuid",
        ref.kind.value,
        ref.owner,
    )
    return int(found or 0)


async def balance(tx: Tx, account_id: UUID) -> Balance:
    found = await one(
        tx,
        "SELECT (SELECT balance_qu FROM ledger_balance WHERE kind = 'user' AND owner = $1) AS available_qu,"
        " (SELECT sum(held_qu - paid_qu - fees_qu - returned_qu)::bigint FROM hold h JOIN ledger_account a"
        " ON a.id = h.account_id WHERE a.kind = 'user' AND a.owner = $1 AND h.closed_at IS NULL) AS held_qu",
        account_id,
    )
    assert found is not None, "a row whoever the account is"
    return Balance(found["available_qu"] or 0, found["held_qu"] or 0)


class Fees(NamedTuple):
    """Since the beginning: all that came in as fees, and what of it went to the fund."""

    came_qu: int
    to_fund_qu: int


async def fees_so_far(tx: Tx) -> Fees:
    """In one statement, so that nothing moves in between; it reads what left the fees, not every settlement."""
    found = await one(
        tx,
        "SELECT coalesce(sum(left_qu), 0)::bigint AS left_qu,"
        " coalesce(sum(left_qu) FILTER (WHERE kind = 'fund'), 0)::bigint AS to_fund_qu,"
        " coalesce((SELECT balance_qu FROM ledger_balance WHERE kind = 'fees'), 0)::bigint AS there_qu"
        " FROM (SELECT t.kind, -e.amount_qu AS left_qu FROM transfer t JOIN entry e ON e.transfer_id = t.id"
        " JOIN ledger_account a ON a.id = e.account_id"
        " WHERE t.kind IN ('fund', 'refund') AND a.kind = 'fees') AS gone",
    )
    assert found is not None
    return Fees(found["there_qu"] + found["left_qu"], found["to_fund_qu"])


async def statement(tx: Tx, account_id: UUID, *, before: int | None = None, limit: int = 50) -> list[Line]:
    """Newest first; the next page starts `before` the last id of this one."""
    found = await rows(
        tx,
        "SELECT e.id, e.amount_qu, t.kind, t.cause, t.job_id, t.posted_at"
        " FROM entry e JOIN transfer t ON t.id = e.transfer_id"
        " WHERE e.account_id = (SELECT id FROM ledger_account WHERE kind = 'user' AND owner = $1)"
        " AND e.id < $2 ORDER BY e.id DESC LIMIT $3",
        account_id,
        before if before is not None else 2**63 - 1,
        max(1, min(limit, PAGE_MAX)),
    )
    return [Line(**row) for row in found]


async def hold_of(tx: Tx, job_id: UUID) -> Hold | None:
    row = await HoldRow.get_or_none(job_id=job_id, using_db=tx)
    return None if row is None else _hold(row)


async def hold_for_update(tx: Tx, job_id: UUID) -> Hold | None:
    """Keeps others from moving the hold until the transaction ends."""
    row = await HoldRow.filter(job_id=job_id).using_db(tx).select_for_update(no_key=True).first()
    return None if row is None else _hold(row)


def _hold(row: HoldRow) -> Hold:
    return Hold(row.job_id, row.held_qu, row.paid_qu, row.fees_qu, row.returned_qu, row.closed_at)


async def payer_of(tx: Tx, job_id: UUID) -> UUID | None:
    found = await one(
        tx, "SELECT a.owner FROM hold h JOIN ledger_account a ON a.id = h.account_id WHERE h.job_id = $1", job_id
    )
    return None if found is None else found["owner"]


async def sweep(tx: Tx, rows_max: int = SWEEP_ROWS) -> int:
    """Adds pending credits to the rows of fees and world; gives how many. Moves no money."""
    return int(await value(tx, "SELECT ledger_sweep($1)", rows_max))


async def lock_account(tx: Tx, account_id: UUID) -> None:
    """Makes decisions about one user's money take turns."""
    await execute(tx, "SELECT FROM account WHERE id = $1 FOR NO KEY UPDATE", account_id)
