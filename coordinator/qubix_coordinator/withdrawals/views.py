# SPDX-License-Identifier: Apache-2.0
"""Rows as the API shows them."""

from collections.abc import Sequence

from qubix_chain import identity
from qubix_coordinator.db.database import Tx
from qubix_coordinator.withdrawals.tables import PayoutAddress, Withdrawal, WithdrawalTx
from qubix_protocol.withdrawals import (
    STATE_TEXT,
    WITHDRAWAL_TEXT,
    AddressView,
    TransactionView,
    TxOutcome,
    WithdrawalReason,
    WithdrawalState,
    WithdrawalView,
)


async def of_withdrawal(tx: Tx, row: Withdrawal) -> WithdrawalView:
    signed = await WithdrawalTx.filter(withdrawal_id=row.id).using_db(tx).order_by("no")
    return withdrawal_view(row, signed)


async def of_withdrawals(tx: Tx, found: Sequence[Withdrawal]) -> tuple[WithdrawalView, ...]:
    signed = await WithdrawalTx.filter(withdrawal_id__in=[row.id for row in found]).using_db(tx).order_by("no")
    return tuple(withdrawal_view(row, [one for one in signed if one.withdrawal_id == row.id]) for row in found)


def withdrawal_view(row: Withdrawal, signed: Sequence[WithdrawalTx]) -> WithdrawalView:
    state, reason = WithdrawalState(row.state), WithdrawalReason(row.reason)
    return WithdrawalView(
        withdrawal_id=str(row.id),
        account_id=str(row.account_id),
        destination=identity.encode(bytes(row.destination)),
        amount_qu=row.amount_qu,
        state=state,
        reason=reason,
        text=f"{STATE_TEXT[state]} {WITHDRAWAL_TEXT[reason][:1].upper()}{WITHDRAWAL_TEXT[reason][1:]}.",
        detail=row.detail,
        automatic=row.automatic,
        created_ms=row.created_ms,
        not_before_ms=row.not_before_ms,
        due_ms=row.due_ms,
        ended_ms=row.ended_ms,
        tx_id=next((one.tx_id for one in signed if one.outcome in (None, TxOutcome.PAID.value)), None),
        transactions=tuple(_transaction(one) for one in signed),
        revision=row.revision,
    )


def _transaction(row: WithdrawalTx) -> TransactionView:
    return TransactionView(
        tx_id=row.tx_id,
        tick=row.tick,
        epoch=row.epoch,
        signed_ms=row.signed_ms,
        outcome=TxOutcome(row.outcome) if row.outcome else None,
        decided_ms=row.decided_ms,
    )


def address_view(row: PayoutAddress) -> AddressView:
    return AddressView(
        identity=identity.encode(bytes(row.public_key)),
        label=row.label,
        added_ms=row.added_ms,
        usable_ms=row.usable_ms,
    )
