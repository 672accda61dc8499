# SPDX-License-Identifier: Apache-2.0
"""Why a withdrawal waits, by what the chain process last said of the paying wallet."""

from qubix_coordinator.db.database import Tx, value
from qubix_coordinator.deposits import status
from qubix_coordinator.deposits.status import ChainState
from qubix_coordinator.withdrawals import limits, rules
from qubix_coordinator.withdrawals.desk import Desk
from qubix_coordinator.withdrawals.tables import HotWallet, Withdrawal
from qubix_protocol.withdrawals import WithdrawalReason

SILENT_MS = 30_000
"""The chain process looks every second or so: one that was not heard for this long is down."""
DOWN = (ChainState.UNREACHABLE, ChainState.UNTRUSTED, ChainState.REFUSED)


async def wallet(desk: Desk, tx: Tx) -> rules.Wallet:
    row = await HotWallet.all().using_db(tx).order_by("-seen_ms").first()
    left_qu = await limits.left_today_qu(desk, tx)
    if row is None:
        return rules.Wallet(up=False, balance_qu=0, room=False, left_today_qu=left_qu)
    look = await status.read(tx)
    up = not row.problem and look.state not in DOWN and desk.now_ms() - row.seen_ms <= SILENT_MS
    return rules.Wallet(up=up, balance_qu=row.balance_qu, room=row.room, left_today_qu=left_qu)


def order_of(row: Withdrawal) -> rules.Order:
    return rules.Order(row.amount_qu, row.not_before_ms, row.approved_ms is not None)


async def reason_of(desk: Desk, tx: Tx, row: Withdrawal, known: rules.Wallet | None = None) -> WithdrawalReason | None:
    """None when nothing but the chain process's next look stands between it and its signature."""
    return rules.why_waits(
        order_of(row),
        known or await wallet(desk, tx),
        now_ms=desk.now_ms(),
        approval_above_qu=desk.settings.withdrawal_approval_above_qu,
        turn=not await in_flight(tx),
    )


async def in_flight(tx: Tx) -> bool:
    return bool(await value(tx, "SELECT EXISTS (SELECT FROM withdrawal_tx WHERE outcome IS NULL)"))
