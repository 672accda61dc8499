# SPDX-License-Identifier: Apache-2.0
"""What spot checks cost: lent by the fund for each re-run, within a day's limit, and given back as far as it was not
spent."""

from typing import Final

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Tx, execute, value
from qubix_coordinator.disputes.money import COURT, FUND_LOCK
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.tables import Job
from qubix_coordinator.ledger import read, rules
from qubix_coordinator.ledger.post import post
from qubix_coordinator.ledger.rules import FUND
from qubix_coordinator.spots.tables import SpotCheck, SpotRerun

DAY_MS: Final = 86_400_000


async def may_lend(desk: Desk, tx: Tx, amount_qu: int) -> bool:
    """Keeps the fund's payments in turn until the transaction ends."""
    await execute(tx, "SELECT pg_advisory_xact_lock($1)", FUND_LOCK)
    lent_qu = await value(
        tx,
        "SELECT coalesce(sum(CASE WHEN settled THEN cost_qu ELSE lent_qu END), 0)::bigint FROM spot_rerun"
        " WHERE lent_ms > $1",
        desk.now_ms() - DAY_MS,
    )
    return lent_qu + amount_qu <= desk.settings.spot_day_max_qu and await read.balance_qu(tx, FUND) >= amount_qu


async def lend(tx: Tx, check: SpotCheck, amount_qu: int) -> None:
    await accounts.create_account(tx, "disputes", "service", COURT)
    await post(tx, [rules.spot(check.attempt_id, check.draws, COURT, amount_qu)])


async def back(tx: Tx, rerun: SpotRerun, job: Job) -> None:
    """The re-run is over, and its price is spent."""
    rerun.settled, rerun.cost_qu = True, job.paid_qu + job.fee_qu
    await rerun.save(using_db=tx)
    if job.returned_qu:
        await post(tx, [rules.spot_back(rerun.attempt_id, rerun.draw, COURT, job.returned_qu)])
