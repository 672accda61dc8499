# SPDX-License-Identifier: Apache-2.0
"""A rental's movements of money: hold, settle by period, return. Each cause is posted once, whoever tries again.

The rental's row repeats the amounts; both are written in the caller's transaction, under the rental's lock.
"""

from uuid import UUID

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Tx, execute
from qubix_coordinator.errors import NotEnoughBalance
from qubix_coordinator.ledger import read
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.ledger.post import post
from qubix_coordinator.ledger.tell import emit_account
from qubix_coordinator.rentals import rules
from qubix_coordinator.rentals.tables import Rental


async def hold(tx: Tx, rental: Rental, amount_qu: int, *, part: int) -> None:
    """Sets the price of the (further) time aside. Raises NotEnoughBalance."""
    balance_qu = await read.balance_qu(tx, ledger.user(rental.account_id))
    if balance_qu < amount_qu:
        raise NotEnoughBalance(
            f"this time costs up to {amount_qu} QU and the balance is {balance_qu} QU",
            field="seconds",
            remedy=f"Deposit at least {amount_qu - balance_qu} QU, ask for less time, or set a lower cap_qu",
        )
    await post(tx, [ledger.hold(rental.id, rental.account_id, amount_qu, part=part)])
    await emit_account(tx, rental.account_id)


async def check_balance(tx: Tx, account_id: UUID, amount_qu: int) -> None:
    """Before several holds that stand or fall together. Raises NotEnoughBalance."""
    balance_qu = await read.balance_qu(tx, ledger.user(account_id))
    if balance_qu < amount_qu:
        raise NotEnoughBalance(
            f"this time costs up to {amount_qu} QU for all devices together and the balance is {balance_qu} QU",
            field="seconds",
            remedy=f"Deposit at least {amount_qu - balance_qu} QU, ask for less, or set a lower cap_qu",
        )


async def settle(tx: Tx, rental: Rental, now_ms: int) -> None:
    """Pays what is billed and not settled yet, as one part. Nothing to settle changes nothing."""
    if rental.settled_ms == rental.billed_ms:
        return
    due = rules.charge(
        rental.rate_qu_per_h, rental.billed_ms, rental.fee_bps, paid_qu=rental.paid_qu, fee_qu=rental.fee_qu
    )
    part = rental.parts
    await execute(tx, "UPDATE rental_period SET part = $2 WHERE rental_id = $1 AND part IS NULL", rental.id, part)
    await execute(
        tx,
        "INSERT INTO rental_settlement (rental_id, part, billed_ms, paid_qu, fee_qu, at_ms)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        rental.id,
        part,
        rental.billed_ms,
        due.paid_qu,
        due.fee_qu,
        now_ms,
    )
    if due.total_qu:
        provider = await accounts.account_of_node(tx, rental.peer_id)
        await _pay(tx, rental, provider, due, part)
    rental.settled_ms, rental.parts, rental.unsettled_since_ms = rental.billed_ms, part + 1, None
    rental.paid_qu += due.paid_qu
    rental.fee_qu += due.fee_qu


async def _pay(tx: Tx, rental: Rental, provider: UUID, due: rules.Charge, part: int) -> None:
    await post(tx, [ledger.settle(rental.id, rental.id, provider, due.paid_qu, due.fee_qu, part=part)])
    await emit_account(tx, provider)
    if provider != rental.account_id:
        await emit_account(tx, rental.account_id)


async def return_rest(tx: Tx, rental: Rental) -> None:
    """What is left goes back to the consumer; the hold is closed."""
    left_qu = rental.held_qu
    if left_qu > 0:
        await post(tx, [ledger.give_back(rental.id, rental.account_id, left_qu)])
        rental.returned_qu += left_qu
        await emit_account(tx, rental.account_id)
