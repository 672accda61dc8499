# SPDX-License-Identifier: Apache-2.0
"""The one door for money.

Callers are few and .importlinter lists them: jobs, rentals, disputes, spots, deposits, withdrawals.
"""

import json
from collections.abc import Sequence

import asyncpg
from tortoise.exceptions import IntegrityError

from qubix_coordinator.db import failures
from qubix_coordinator.db.database import Tx, value
from qubix_coordinator.errors import (
    CauseReused,
    HoldOverspent,
    LedgerRefused,
    NotEnoughBalance,
    NotFound,
    QubixError,
    WrongNetwork,
)
from qubix_coordinator.ledger.rules import Leg, Transfer

TRANSFERS_MAX = 1000
CAUSE_REUSED = "QX001"
_BALANCES = frozenset(f"ledger_account_{kind}_not_negative" for kind in ("user", "fees", "withdrawal", "bond", "fund"))


async def post(tx: Tx, transfers: Sequence[Transfer]) -> int:
    """Posts them all or none and gives how many were new; what was posted before with the same body stays as it is.

    Raises NotEnoughBalance, HoldOverspent, CauseReused, WrongNetwork, NotFound (no such user), LedgerRefused. After
    any of these the transaction cannot go on: leave its block.
    """
    if not transfers:
        return 0
    if len(transfers) > TRANSFERS_MAX:
        raise ValueError(f"at most {TRANSFERS_MAX} transfers are posted at once")
    body = json.dumps([_plain(transfer) for transfer in transfers])
    try:
        return int(await value(tx, "SELECT ledger_post($1::text::jsonb)", body))
    except (IntegrityError, asyncpg.PostgresError) as problem:
        if failures.is_transient(problem):
            raise
        raise _named(problem) from problem


def _plain(transfer: Transfer) -> dict[str, object]:
    return {
        "id": str(transfer.id),
        "kind": transfer.kind.value,
        "cause": transfer.cause,
        "job": str(transfer.job_id) if transfer.job_id else None,
        "legs": [_plain_leg(leg) for leg in transfer.legs],
    }


def _plain_leg(leg: Leg) -> dict[str, object]:
    owner = str(leg.account.owner) if leg.account.owner else None
    return {"kind": leg.account.kind.value, "owner": owner, "amount": leg.amount_qu}


def _named(problem: BaseException) -> QubixError:
    constraint = failures.constraint(problem)
    if constraint in _BALANCES:
        return NotEnoughBalance(
            "the balance is less than the amount", field="balance", remedy="Deposit QU, or ask for less"
        )
    if constraint in ("ledger_account_hold_not_negative", "hold_not_overspent"):
        return HoldOverspent("the hold is less than the amount", field="hold", remedy="Pay at most what is left of it")
    if failures.sqlstate(problem) == CAUSE_REUSED or constraint == "transfer_cause_once":
        return CauseReused(
            "this cause was already posted with another amount or account",
            remedy="Repeat the first request exactly, or use a new key",
        )
    if constraint == "transfer_no_development_credit_on_main":
        return WrongNetwork("there is no development credit on the main network", remedy="Deposit QU")
    if constraint == "ledger_account_user_fk":
        return NotFound("there is no such account", field="account", remedy="Create the account first")
    return LedgerRefused(f"the ledger refused a transfer: {failures.cause(problem)}")
