# SPDX-License-Identifier: Apache-2.0
"""Locks rows and applies the decisions of `rules`: the only module that moves a withdrawal, and its money with it.

Locks are taken in the order account, withdrawal, its transaction, ledger.
"""

import logging
from uuid import UUID

import msgspec

from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import NotFound
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.ledger.post import post
from qubix_coordinator.ledger.tell import emit_account
from qubix_coordinator.outbox import events
from qubix_coordinator.withdrawals import rules, views
from qubix_coordinator.withdrawals.desk import Desk
from qubix_coordinator.withdrawals.rules import Event, Verb
from qubix_coordinator.withdrawals.tables import Withdrawal
from qubix_protocol.account_news import WithdrawalNews
from qubix_protocol.withdrawals import FINAL_WITHDRAWAL_STATES, WithdrawalReason, WithdrawalState

log = logging.getLogger(__name__)
DETAIL_MAX = 2_000


def no_such() -> NotFound:
    return NotFound("there is no such withdrawal", field="withdrawal_id", remedy="List yours with GET /withdrawals")


async def lock(tx: Tx, withdrawal_id: UUID) -> Withdrawal:
    row = await Withdrawal.filter(id=withdrawal_id).using_db(tx).select_for_update().first()
    if row is None:
        raise no_such()
    return row


async def owner_of(tx: Tx, withdrawal_id: UUID) -> UUID:
    row = await Withdrawal.filter(id=withdrawal_id).using_db(tx).only("account_id").first()
    if row is None:
        raise no_such()
    return row.account_id


def facts(desk: Desk, row: Withdrawal) -> rules.Facts:
    return rules.Facts(
        state=WithdrawalState(row.state),
        reason=WithdrawalReason(row.reason),
        tries=row.tries,
        tries_max=desk.settings.withdrawal_tries_max,
        late=desk.now_ms() >= row.late_ms,
    )


async def step(
    desk: Desk, tx: Tx, row: Withdrawal, event: Event, *, reason: WithdrawalReason | None = None, detail: str = ""
) -> rules.Decision:
    """Decides and applies, with the money; the caller holds the row's lock. `reason` wins over the decision's."""
    decision = rules.decide(facts(desk, row), event)
    if decision.verb is not Verb.APPLY:
        return decision
    now_ms = desk.now_ms()
    row.state = decision.state.value
    row.reason = (reason or decision.reason or WithdrawalReason(row.reason)).value
    row.detail = detail[:DETAIL_MAX]
    if decision.state in FINAL_WITHDRAWAL_STATES:
        row.due_ms, row.ended_ms = None, now_ms
        await _move_money(tx, row, decision.state)
    elif decision.state is WithdrawalState.WAITING:
        row.due_ms = row.late_ms
    elif event in (Event.SIGN, Event.DUE):
        row.due_ms = now_ms + rules.LOOK_MS
    await save(tx, row)
    level = logging.ERROR if decision.alarm else logging.INFO
    told = {"withdrawal": str(row.id), "event_": event.value, "state": row.state, "reason": row.reason}
    log.log(level, "withdrawal.look" if decision.alarm else "withdrawal.moved", extra=told)
    return decision


async def _move_money(tx: Tx, row: Withdrawal, state: WithdrawalState) -> None:
    """Each of the two ends posts its own cause, once; the database refuses an end without it."""
    if rules.goes_back(state):
        await post(tx, [ledger.withdraw_back(row.id, row.account_id, row.amount_qu)])
        await emit_account(tx, row.account_id)
    else:
        await post(tx, [ledger.withdraw_sent(row.id, row.amount_qu)])


async def save(tx: Tx, row: Withdrawal) -> None:
    """Saves, and tells whoever watches the account."""
    row.revision += 1
    await row.save(using_db=tx)
    await tell(tx, row)


async def tell(tx: Tx, row: Withdrawal) -> None:
    news = WithdrawalNews(withdrawal=await views.of_withdrawal(tx, row))
    await events.emit(tx, f"account:{row.account_id}", msgspec.to_builtins(news))
