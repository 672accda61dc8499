# SPDX-License-Identifier: Apache-2.0
"""The withdrawals' front door: what the HTTP API calls. Addresses, limits and standing orders live beside it."""

import logging
from uuid import UUID, uuid4

from qubix_coordinator.accounts.rules import Principal
from qubix_coordinator.db.database import Tx, value
from qubix_coordinator.errors import CauseReused, Conflict, InvalidInput
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.ledger.post import post
from qubix_coordinator.ledger.read import lock_account
from qubix_coordinator.ledger.tell import emit_account
from qubix_coordinator.withdrawals import addresses, flow, limits, rules, views, waiting
from qubix_coordinator.withdrawals.desk import Desk
from qubix_coordinator.withdrawals.rules import Event, Verb
from qubix_coordinator.withdrawals.tables import PayoutAddress, Withdrawal
from qubix_protocol.withdrawals import (
    WithdrawalBody,
    WithdrawalReason,
    WithdrawalState,
    WithdrawalsView,
    WithdrawalView,
)

log = logging.getLogger(__name__)
KEY_MAX = 200
PAYOUT_KEYS = "payout:"
"""Idempotency keys of standing orders begin so; nobody else's do."""


async def request(desk: Desk, who: Principal, body: WithdrawalBody, key: str) -> WithdrawalView:
    """Sets the amount aside; the same key with the same body is the same withdrawal.

    Raises InvalidInput, Forbidden (destination), LimitExceeded, NotEnoughBalance, CauseReused.
    """
    if not 1 <= len(key) <= KEY_MAX or key.startswith(PAYOUT_KEYS):
        raise InvalidInput(
            "Idempotency-Key",
            f"it is missing, longer than {KEY_MAX} characters, or begins with {PAYOUT_KEYS}",
            "Send a random value for each withdrawal, and the same one when you repeat a request",
        )
    if not 1 <= body.amount_qu <= ledger.AMOUNT_MAX_QU:
        raise InvalidInput("amount_qu", "the amount is not possible", f"Use 1 to {ledger.AMOUNT_MAX_QU} QU")

    async def step(tx: Tx) -> WithdrawalView:
        await lock_account(tx, who.account_id)
        known = await Withdrawal.filter(account_id=who.account_id, idempotency_key=key).using_db(tx).first()
        if known is None:
            address = await addresses.usable(tx, who.account_id, body.destination)
            await limits.check_amount(desk, tx, who.account_id, body.amount_qu)
            known = await store(desk, tx, address, body.amount_qu, key)
        elif not _same(known, body):
            raise CauseReused(
                "this Idempotency-Key was used for another withdrawal",
                field="Idempotency-Key",
                remedy="Repeat the first request exactly, or use a new key",
            )
        return await views.of_withdrawal(tx, known)

    return await desk.db.run(step)


def _same(known: Withdrawal, body: WithdrawalBody) -> bool:
    asked = (addresses.key_of(body.destination, "destination"), body.amount_qu)
    return (bytes(known.destination), known.amount_qu) == asked


async def store(
    desk: Desk, tx: Tx, address: PayoutAddress, amount_qu: int, key: str, *, automatic: bool = False
) -> Withdrawal:
    """Row and reservation in one transaction; the caller holds the account's lock and has checked the amount."""
    now_ms = desk.now_ms()
    not_before_ms = max(now_ms, address.usable_ms)
    # The delay is none of the time that an operator or the network has.
    late_ms = not_before_ms + desk.settings.withdrawal_wait_s * 1000
    row = Withdrawal(
        id=uuid4(),
        no=await value(tx, "SELECT nextval('withdrawal_no')"),
        account_id=address.account_id,
        idempotency_key=key,
        address_id=address.id,
        destination=bytes(address.public_key),
        amount_qu=amount_qu,
        automatic=automatic,
        state=WithdrawalState.WAITING.value,
        reason=WithdrawalReason.IN_LINE.value,
        created_ms=now_ms,
        not_before_ms=not_before_ms,
        late_ms=late_ms,
        due_ms=late_ms,
    )
    row.reason = (await waiting.reason_of(desk, tx, row) or WithdrawalReason.IN_LINE).value
    row.revision = 1
    await row.save(using_db=tx, force_create=True)
    await post(tx, [ledger.withdraw(row.id, row.account_id, amount_qu)])
    await emit_account(tx, row.account_id)
    await flow.tell(tx, row)
    log.info("withdrawal.asked", extra={"withdrawal": str(row.id), "amount_qu": amount_qu, "reason": row.reason})
    return row


async def get(desk: Desk, who: Principal, withdrawal_id: UUID) -> WithdrawalView:
    async def step(tx: Tx) -> WithdrawalView:
        row = await Withdrawal.filter(id=withdrawal_id, account_id=who.account_id).using_db(tx).first()
        if row is None:
            raise flow.no_such()
        return await views.of_withdrawal(tx, row)

    return await desk.db.run(step)


async def list_withdrawals(
    desk: Desk,
    who: Principal | None,
    *,
    state: WithdrawalState | None = None,
    reason: WithdrawalReason | None = None,
    after: str | None = None,
    limit: int = 50,
) -> WithdrawalsView:
    """Newest first; `who` None lists everybody's, for operators. `after` is the `next` of the page before."""
    if after is not None and not (after.isascii() and after.isdigit() and len(after) < 19):
        raise InvalidInput("after", "not the `next` of a page", "Send the `next` of the page before, or nothing")

    async def step(tx: Tx) -> WithdrawalsView:
        asked = Withdrawal.all().using_db(tx)
        if who is not None:
            asked = asked.filter(account_id=who.account_id)
        if after is not None:
            asked = asked.filter(no__lt=int(after))
        if state is not None:
            asked = asked.filter(state=state.value)
        if reason is not None:
            asked = asked.filter(reason=reason.value)
        found = await asked.order_by("-no").limit(limit)
        following = str(found[-1].no) if len(found) == limit else None
        return WithdrawalsView(withdrawals=await views.of_withdrawals(tx, found), next=following)

    return await desk.db.run(step)


async def cancel(desk: Desk, who: Principal, withdrawal_id: UUID) -> WithdrawalView:
    """The amount goes back. Cancelling twice is fine. Raises NotFound, or Conflict once a transaction is signed."""

    async def step(tx: Tx) -> WithdrawalView:
        await lock_account(tx, who.account_id)
        row = await flow.lock(tx, withdrawal_id)
        if row.account_id != who.account_id:
            raise flow.no_such()
        decision = await flow.step(desk, tx, row, Event.CANCEL)
        if decision.verb is Verb.REFUSE:
            raise _too_late(row)
        return await views.of_withdrawal(tx, row)

    return await desk.db.run(step)


def _too_late(row: Withdrawal) -> Conflict:
    if row.ended_ms is None:
        return Conflict(
            "a transaction is signed and may run: it cannot be called back",
            field="withdrawal_id",
            remedy="Wait for its end; if the network does not run it, you can cancel then",
        )
    return Conflict(f"the withdrawal is {row.state} already", field="withdrawal_id", remedy="Nothing is left to decide")


async def approve(desk: Desk, operator: Principal, withdrawal_id: UUID) -> WithdrawalView:
    """Lifts the threshold and the hot limit for this withdrawal. Approving twice is fine. Raises NotFound, Conflict."""

    async def step(tx: Tx) -> WithdrawalView:
        row = await flow.lock(tx, withdrawal_id)
        if rules.decide(flow.facts(desk, row), Event.APPROVE).verb is Verb.REFUSE:
            raise _too_late(row)
        if row.state == WithdrawalState.WAITING.value and row.approved_ms is None:
            row.approved_by, row.approved_ms = operator.account_id, desk.now_ms()
            reason = await waiting.reason_of(desk, tx, row) or WithdrawalReason.IN_LINE
            await flow.step(desk, tx, row, Event.APPROVE, reason=reason)
        return await views.of_withdrawal(tx, row)

    return await desk.db.run(step)


async def refuse(desk: Desk, operator: Principal, withdrawal_id: UUID, why: str) -> WithdrawalView:
    """The amount goes back, with `why` for its owner. Raises NotFound, or Conflict once a transaction is signed."""

    async def step(tx: Tx) -> WithdrawalView:
        await lock_account(tx, await flow.owner_of(tx, withdrawal_id))
        row = await flow.lock(tx, withdrawal_id)
        decision = await flow.step(desk, tx, row, Event.REFUSE, detail=why)
        if decision.verb is Verb.REFUSE:
            raise _too_late(row)
        return await views.of_withdrawal(tx, row)

    view = await desk.db.run(step)
    log.info("withdrawal.refused", extra={"withdrawal": str(withdrawal_id), "by": str(operator.account_id)})
    return view
