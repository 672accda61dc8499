# SPDX-License-Identifier: Apache-2.0
"""From an attempt's end to the provider's record (trust.md C5): what it was worth, and whether its consumer counts."""

from collections.abc import Collection
from uuid import UUID

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Tx, rows, value
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.tables import Attempt, Job
from qubix_coordinator.ledger.rules import owed_qu
from qubix_coordinator.market import standing
from qubix_coordinator.market.reputation import GAINS, Outcome, What

_KEYS = (
    "SELECT public_key AS key FROM wallet WHERE account_id = {who}"
    " UNION SELECT source FROM deposit WHERE account_id = {who}"
    " UNION SELECT public_key FROM payout_address WHERE account_id = {who}"
    " UNION SELECT public_key FROM payment_proof WHERE account_id = {who} AND proved_at IS NOT NULL"
)
_RELATED = f"SELECT EXISTS (({_KEYS.format(who='$1')}) INTERSECT ({_KEYS.format(who='$2')}))"


async def related(tx: Tx, one_id: UUID, other_id: UUID) -> bool:
    """Whether two accounts may be one person's, by all that is known of them: they are the same, or an identity of the
    chain has to do with both, as a wallet that was bound, a source of deposits, or an address that pay-outs go to.

    So a consumer who is paid for out of the provider's own withdrawals is related, and so are two who pay in from one
    identity; customers of one exchange that pays from one identity are taken for related, too.
    """
    return one_id == other_id or bool(await value(tx, _RELATED, one_id, other_id))


async def identities(tx: Tx, account_ids: Collection[UUID]) -> dict[UUID, frozenset[bytes]]:
    """Every identity of the chain that has to do with each of them."""
    found = await rows(
        tx,
        "SELECT who.id, array_agg(DISTINCT k.key) AS keys FROM unnest($1::uuid[]) AS who (id)"  # noqa: S608 - our constants
        f" CROSS JOIN LATERAL ({_KEYS.format(who='who.id')}) AS k GROUP BY who.id",
        list(account_ids),
    )
    return {UUID(str(row["id"])): frozenset(bytes(key) for key in row["keys"]) for row in found}


async def tell(desk: Desk, tx: Tx, job: Job, attempt: Attempt, *whats: What) -> None:
    """Call under the job's lock, once the attempt's amounts are what they will be. What runs on a rental is its
    renter's affair, and a re-run of the market's own proves nothing more than the look that it is for."""
    if job.rental_id is not None or not whats:
        return
    provider = await accounts.account_of_node(tx, attempt.peer_id)
    about = standing.About(attempt.id, attempt.listing_id, provider, job.account_id)
    counts = True
    if any(what in GAINS for what in whats):
        counts = job.data_account_id is None and not await related(tx, provider, job.account_id)
    for what in whats:
        outcome = Outcome(
            what,
            worth_qu=worth_qu(attempt, what),
            at_ms=desk.now_ms(),
            counts=counts or what not in GAINS,
            run_ms=min(attempt.claimed_ms, attempt.observed_ms),
            forecast_ms=attempt.forecast_ms,
        )
        await standing.record(tx, about, outcome, desk.settings.reputation_unit_qu)


def worth_qu(attempt: Attempt, what: What) -> int:
    """What was charged for it; of what failed, what it was to be."""
    if what in GAINS:
        return int(attempt.paid_qu + attempt.fee_qu or attempt.owed_qu)
    return owed_qu(attempt.rate_qu_per_h, attempt.forecast_ms)
