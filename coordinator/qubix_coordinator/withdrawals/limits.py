# SPDX-License-Identifier: Apache-2.0
"""How much may be withdrawn, and what stands against more. Call under the account's lock where it decides something."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from qubix_coordinator.db.database import Row, Tx, one, rows, value
from qubix_coordinator.deposits import read as deposits
from qubix_coordinator.errors import LimitExceeded, NotEnoughBalance
from qubix_coordinator.ledger import read
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.withdrawals import rules
from qubix_coordinator.withdrawals.desk import Desk
from qubix_protocol.withdrawals import WithdrawableView

PAGE = 500
STILL_POSTING_S = 120
"""Entries are read newest first, by number: a transaction that is older by so much may still have a newer number."""


@dataclass(frozen=True, slots=True)
class Means:
    balance_qu: int
    unswept_qu: int
    new_earnings_qu: int

    @property
    def withdrawable_qu(self) -> int:
        return rules.withdrawable_qu(self.balance_qu, unswept_qu=self.unswept_qu, new_earnings_qu=self.new_earnings_qu)


async def means(desk: Desk, tx: Tx, account_id: UUID) -> Means:
    return Means(
        balance_qu=await read.balance_qu(tx, ledger.user(account_id)),
        unswept_qu=await deposits.unswept_qu(tx, account_id),
        new_earnings_qu=await new_earnings_qu(tx, account_id, desk.settings.withdrawal_earnings_delay_s),
    )


async def new_earnings_qu(tx: Tx, account_id: UUID, delay_s: int) -> int:
    """What was settled to the account within the last `delay_s` seconds, by the database's clock, and not forfeited."""
    return sum(line["amount_qu"] for line in await new_settlements(tx, account_id, delay_s))


async def new_settlements(tx: Tx, account_id: UUID, delay_s: int) -> list[Row]:
    """The transfer and amount of each, newest first."""
    found, before = list[Row](), 2**63 - 1
    while delay_s > 0 and (page := await _entries(tx, account_id, before, delay_s)):
        found += [line for line in page if line["kind"] == "settle" and line["new"] and not line["taken"]]
        if page[-1]["old"]:
            break
        before = page[-1]["id"]
    return found


async def _entries(tx: Tx, account_id: UUID, before: int, delay_s: int) -> Sequence[Row]:
    return await rows(
        tx,
        "SELECT e.id, e.transfer_id, e.amount_qu, t.kind, t.posted_at > now() - make_interval(secs => $3) AS new,"
        " t.posted_at < now() - make_interval(secs => $3 + $4) AS old,"
        " EXISTS (SELECT FROM forfeited f WHERE f.account_id = $1 AND f.transfer_id = t.id) AS taken,"
        " EXISTS (SELECT FROM job j WHERE j.id = t.job_id AND NOT j.has_verifier) AS unchecked"
        " FROM entry e JOIN transfer t ON t.id = e.transfer_id"
        " WHERE e.account_id = (SELECT id FROM ledger_account WHERE kind = 'user' AND owner = $1)"
        " AND e.id < $2 ORDER BY e.id DESC LIMIT $5",
        account_id,
        before,
        float(delay_s),
        float(STILL_POSTING_S),
        PAGE,
    )


async def asked_today_qu(tx: Tx, account_id: UUID, now_ms: int) -> int:
    """By this account within 24 hours, but for what went back."""
    return int(
        await value(
            tx,
            "SELECT coalesce(sum(amount_qu), 0)::bigint FROM withdrawal WHERE account_id = $1 AND created_ms > $2"
            " AND state NOT IN ('cancelled', 'refused', 'failed')",
            account_id,
            now_ms - rules.DAY_MS,
        )
    )


async def left_today_qu(desk: Desk, tx: Tx) -> int:
    """What may still be signed in this day without an operator, all accounts together."""
    gone_qu = await value(
        tx,
        "SELECT coalesce(sum(t.amount_qu), 0)::bigint FROM withdrawal_tx t JOIN withdrawal w ON w.id = t.withdrawal_id"
        " WHERE t.signed_ms > $1 AND (t.outcome IS NULL OR t.outcome = 'paid') AND w.approved_ms IS NULL",
        desk.now_ms() - rules.DAY_MS,
    )
    return max(0, desk.settings.withdrawal_hot_limit_qu - int(gone_qu))


async def check_amount(desk: Desk, tx: Tx, account_id: UUID, amount_qu: int) -> None:
    """Raises LimitExceeded or NotEnoughBalance, which say what could be asked for instead."""
    settings, now_ms = desk.settings, desk.now_ms()
    if amount_qu < settings.withdrawal_min_qu:
        raise LimitExceeded(
            f"the least amount is {settings.withdrawal_min_qu} QU",
            field="amount_qu",
            remedy=f"Ask for {settings.withdrawal_min_qu} QU or more",
        )
    if amount_qu > settings.withdrawal_max_qu:
        raise LimitExceeded(
            f"one withdrawal takes at most {settings.withdrawal_max_qu} QU",
            field="amount_qu",
            remedy=f"Ask for at most {settings.withdrawal_max_qu} QU at a time",
        )
    left_qu = settings.withdrawal_day_max_qu - await asked_today_qu(tx, account_id, now_ms)
    if amount_qu > left_qu:
        raise LimitExceeded(
            f"an account may withdraw {settings.withdrawal_day_max_qu} QU a day; {max(0, left_qu)} QU are left",
            field="amount_qu",
            remedy=f"Ask for at most {max(0, left_qu)} QU now, or wait until earlier withdrawals are a day old",
        )
    found = await means(desk, tx, account_id)
    if amount_qu > found.withdrawable_qu:
        raise NotEnoughBalance(
            f"{found.withdrawable_qu} QU can be withdrawn now: {explain(found)}",
            field="amount_qu",
            remedy=_remedy(found),
        )


def explain(found: Means) -> str:
    """One sentence without its full stop."""
    said = [f"the balance is {found.balance_qu} QU"]
    if found.unswept_qu:
        said.append(f"{found.unswept_qu} QU of deposits have not reached the paying wallet yet")
    if found.new_earnings_qu:
        said.append(f"{found.new_earnings_qu} QU were earned so lately that they must wait")
    return ", ".join(said)


def _remedy(found: Means) -> str:
    ask = f"Ask for at most {found.withdrawable_qu} QU" if found.withdrawable_qu else "Deposit or earn QU first"
    waits = found.unswept_qu or found.new_earnings_qu
    return f"{ask}, or wait until the rest is free" if waits else ask


async def view(desk: Desk, account_id: UUID) -> WithdrawableView:
    settings = desk.settings

    async def step(tx: Tx) -> WithdrawableView:
        found = await means(desk, tx, account_id)
        gone = await _forfeited(tx, account_id)
        day_left_qu = settings.withdrawal_day_max_qu - await asked_today_qu(tx, account_id, desk.now_ms())
        return WithdrawableView(
            balance_qu=found.balance_qu,
            withdrawable_qu=found.withdrawable_qu,
            unswept_qu=found.unswept_qu,
            new_earnings_qu=found.new_earnings_qu,
            amount_min_qu=settings.withdrawal_min_qu,
            amount_max_qu=settings.withdrawal_max_qu,
            day_left_qu=max(0, day_left_qu),
            approval_above_qu=settings.withdrawal_approval_above_qu,
            address_delay_s=settings.withdrawal_address_delay_s,
            forfeited_qu=gone["amount_qu"] if gone else 0,
            text=f"{found.withdrawable_qu} QU can be withdrawn: {explain(found)}.{_lost(gone)}",
        )

    return await desk.db.run(step)


async def _forfeited(tx: Tx, account_id: UUID) -> Row | None:
    """The last time."""
    return await one(
        tx,
        "SELECT attempt_id, reason, amount_qu FROM forfeit WHERE account_id = $1 ORDER BY at_ms DESC LIMIT 1",
        account_id,
    )


def _lost(gone: Row | None) -> str:
    if gone is None:
        return ""
    return f" {gone['amount_qu']} QU of new earnings are forfeit ({gone['reason']}, attempt {gone['attempt_id']})."
