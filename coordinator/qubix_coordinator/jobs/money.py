# SPDX-License-Identifier: Apache-2.0
"""A job's three movements of money: hold, settle, return. Each cause is posted once, whoever tries again.

The job's row repeats the amounts; both are written in the caller's transaction, under the job's lock.
"""

from uuid import UUID

from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import NotEnoughBalance
from qubix_coordinator.jobs.tables import Job
from qubix_coordinator.ledger import read, rules
from qubix_coordinator.ledger.post import post
from qubix_coordinator.ledger.tell import emit_account


async def hold(tx: Tx, job: Job) -> None:
    """Sets the cap aside. Raises NotEnoughBalance."""
    balance_qu = await read.balance_qu(tx, rules.user(job.account_id))
    if balance_qu < job.cap_qu:
        raise NotEnoughBalance(
            f"the cap is {job.cap_qu} QU and the balance {balance_qu} QU",
            field="cap_qu",
            remedy=f"Deposit at least {job.cap_qu - balance_qu} QU, or lower cap_qu",
        )
    await post(tx, [rules.hold(job.id, job.account_id, job.cap_qu)])
    await emit_account(tx, job.account_id)


async def settle(tx: Tx, job: Job, attempt_id: UUID, provider: UUID, charge_qu: int, fee_bps: int) -> tuple[int, int]:
    """Pays one attempt out of the hold; what the provider gets, and the market's fee. The consumer is told of it with
    the job's next step (`tell_consumer`), once, whatever that returns."""
    split = rules.split_fee(charge_qu, fee_bps)
    await post(tx, [rules.settle(job.id, attempt_id, provider, split.paid_qu, split.fee_qu)])
    await emit_account(tx, provider)
    return split.paid_qu, split.fee_qu


async def return_rest(tx: Tx, job: Job, left_qu: int) -> None:
    """What is left goes back to the consumer; the hold is closed. The job's row counts it already."""
    if left_qu > 0:
        await post(tx, [rules.give_back(job.id, job.account_id, left_qu)])


async def tell_consumer(tx: Tx, job: Job) -> None:
    """What is available and what is held, after all that was paid and returned."""
    await emit_account(tx, job.account_id)
