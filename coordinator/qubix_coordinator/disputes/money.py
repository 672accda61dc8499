# SPDX-License-Identifier: Apache-2.0
"""A dispute's movements of money: bonds, the re-run's price out of them, awards and the fund. Each cause once.

All is posted in the caller's transaction, under the dispute's lock.
"""

import logging
from typing import Final
from uuid import UUID, uuid5

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Tx, execute, one, value
from qubix_coordinator.disputes import rules
from qubix_coordinator.disputes.tables import Dispute
from qubix_coordinator.errors import NotEnoughBalance
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.tables import Job
from qubix_coordinator.ledger import read
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.ledger.post import post
from qubix_coordinator.ledger.rules import FEES, FUND, AccountKind, AccountRef, Leg, Transfer, TransferKind
from qubix_coordinator.ledger.tell import emit_account
from qubix_protocol.disputes import Finding, Outcome, Side

log = logging.getLogger(__name__)
COURT: Final = uuid5(ledger.CAUSES, "disputes")
"""The market's own account for re-runs: it holds nothing but what a bond pays for a run that is under way."""
FUND_LOCK: Final = 0x66756E64


def opener_of(dispute: Dispute) -> UUID:
    found: UUID = dispute.consumer_id if dispute.opened_by == Side.CONSUMER.value else dispute.provider_id
    return found


def other_of(dispute: Dispute) -> UUID:
    found: UUID = dispute.provider_id if dispute.opened_by == Side.CONSUMER.value else dispute.consumer_id
    return found


async def stake_bond(tx: Tx, dispute_id: UUID, account_id: UUID, amount_qu: int) -> None:
    """Raises NotEnoughBalance."""
    balance_qu = await read.balance_qu(tx, ledger.user(account_id))
    if balance_qu < amount_qu:
        raise NotEnoughBalance(
            f"the bond is {amount_qu} QU and the balance {balance_qu} QU",
            field="bond",
            remedy=f"Deposit at least {amount_qu - balance_qu} QU: who is right gets the bond back",
        )
    await post(tx, [ledger.bond(dispute_id, account_id, amount_qu)])
    await emit_account(tx, account_id)


def _bond(dispute_id: UUID) -> AccountRef:
    return AccountRef(AccountKind.BOND, dispute_id)


async def bond_balance_qu(tx: Tx, dispute_id: UUID) -> int:
    return await read.balance_qu(tx, _bond(dispute_id))


async def lend_for_rerun(tx: Tx, dispute: Dispute, amount_qu: int) -> None:
    """Out of the opener's bond, to the market's account, which pays the re-run; what that does not cost comes back."""
    await accounts.create_account(tx, "disputes", "service", COURT)
    legs = (Leg(_bond(dispute.id), -amount_qu), Leg(ledger.user(COURT), amount_qu))
    cause = f"bond_end:{dispute.id}:rerun:{dispute.draws}"
    await post(tx, [Transfer(TransferKind.BOND_END, cause, legs)])


async def rerun_back(tx: Tx, dispute: Dispute, rerun: Job) -> None:
    """The re-run is over: its price is spent, the rest is bond again."""
    dispute.rerun_settled = True
    back_qu = rerun.returned_qu
    if back_qu:
        legs = (Leg(ledger.user(COURT), -back_qu), Leg(_bond(dispute.id), back_qu))
        await post(tx, [Transfer(TransferKind.BOND, f"bond:{dispute.id}:rerun:{rerun.id}", legs)])
    dispute.rerun_cost_qu += rerun.paid_qu + rerun.fee_qu


async def end_bonds(tx: Tx, dispute: Dispute, outcome: Outcome, award_qu: int) -> None:
    """What is left of all bonds goes to one side (trust.md M7). While a re-run is being stopped, a part of it is in
    that one's hold: it follows when the re-run is over."""
    left_qu = await bond_balance_qu(tx, dispute.id)
    if left_qu == 0:
        return
    spent = dispute.draws > 0 or dispute.finding != Finding.NONE.value
    keeps = rules.opener_keeps_bonds(outcome, award_qu, dispute.stake_qu, spent=spent)
    winner = opener_of(dispute) if keeps else other_of(dispute)
    legs = (Leg(_bond(dispute.id), -left_qu), Leg(ledger.user(winner), left_qu))
    part = "" if dispute.resolved_ms is None else ":rest"
    await post(tx, [Transfer(TransferKind.BOND_END, f"bond_end:{dispute.id}{part}", legs)])
    await emit_account(tx, winner)


async def pay_award(desk: Desk, tx: Tx, dispute: Dispute, outcome: Outcome, award_qu: int, paid_qu: int) -> None:
    """After settlement: refunds from the provider's balance as far as it goes, from the fees, and from the fund within
    its caps. An award to a provider comes from the fund alone: the market's own check was wrong."""
    receiver, from_settled = opener_of(dispute), dispute.opened_by == Side.CONSUMER.value
    # The fund first: `feed_fund` locks it before the fees, too.
    fund_qu = await _fund_qu(desk, tx, receiver, award_qu) if rules.fund_may_pay(outcome) else 0
    provider_qu = await _balance_qu(tx, dispute.provider_id) if from_settled and paid_qu else 0
    fees_qu = await _fees_qu(tx) if from_settled and award_qu > paid_qu else 0
    owed_qu = paid_qu if from_settled else 0
    found = rules.sources(award_qu, paid_qu=owed_qu, provider_qu=provider_qu, fees_qu=fees_qu, fund_qu=fund_qu)
    payers = ((ledger.user(dispute.provider_id), found.provider), (FEES, found.fees), (FUND, found.fund))
    refunds = [ledger.refund(dispute.id, payer, receiver, amount) for payer, amount in payers if amount]
    await post(tx, refunds)
    dispute.from_provider_qu, dispute.from_fees_qu, dispute.from_fund_qu = found.provider, found.fees, found.fund
    if found.fund:
        await execute(
            tx,
            "INSERT INTO fund_payment (dispute_id, account_id, amount_qu, paid_ms) VALUES ($1, $2, $3, $4)",
            dispute.id,
            receiver,
            found.fund,
            desk.now_ms(),
        )
    if found.unpaid:
        log.warning("dispute.award_unpaid", extra={"dispute": str(dispute.id), "unpaid_qu": found.unpaid})
    for account_id in {receiver, dispute.provider_id}:
        await emit_account(tx, account_id)


async def _balance_qu(tx: Tx, account_id: UUID) -> int:
    """Of a user whose balance cannot change until the transaction ends."""
    found = await one(
        tx,
        "SELECT balance_qu FROM ledger_account WHERE kind = 'user' AND owner = $1 FOR NO KEY UPDATE",
        account_id,
    )
    return 0 if found is None else int(found["balance_qu"])


async def _fees_qu(tx: Tx) -> int:
    """What can be taken out of the fees now: their row, after a sweep."""
    await read.sweep(tx)
    found = await value(tx, "SELECT balance_qu FROM ledger_account WHERE kind = 'fees' FOR NO KEY UPDATE")
    return int(found or 0)


async def _fund_qu(desk: Desk, tx: Tx, account_id: UUID, wanted_qu: int) -> int:
    """What the fund may pay this account now; payments of the fund take turns."""
    await execute(tx, "SELECT pg_advisory_xact_lock($1)", FUND_LOCK)
    spent = await one(
        tx,
        "SELECT coalesce(sum(amount_qu), 0)::bigint AS day,"
        " coalesce(sum(amount_qu) FILTER (WHERE account_id = $2), 0)::bigint AS own"
        " FROM fund_payment WHERE paid_ms > $1",
        desk.now_ms() - rules.DAY_MS,
        account_id,
    )
    assert spent is not None
    caps = rules.Caps(
        desk.settings.fund_day_max_qu - spent["day"], desk.settings.fund_account_day_max_qu - spent["own"]
    )
    return caps.of(wanted_qu, await read.balance_qu(tx, FUND))


async def feed_fund(desk: Desk, tx: Tx) -> int:
    """Sets aside the fund's part of all fees so far; gives how much was moved. Replicas take turns."""
    await execute(tx, "SELECT pg_advisory_xact_lock($1)", FUND_LOCK)
    fees = await read.fees_so_far(tx)
    wanted_qu = rules.fund_share_qu(fees.came_qu, fees.to_fund_qu, desk.settings.fund_bps)
    amount_qu = min(wanted_qu, await _fees_qu(tx)) if wanted_qu else 0
    if amount_qu:
        await post(tx, [ledger.fund(amount_qu, str(fees.to_fund_qu + amount_qu))])
    return amount_qu
