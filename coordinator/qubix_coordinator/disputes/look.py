# SPDX-License-Identifier: Apache-2.0
"""The second look at disputed units (trust.md M7, C1).

Of a kernel with a verifier: the same bytes are checked anew, with fresh randomness. Of one without: an unrelated
provider, drawn by the operating system's randomness, runs the units again, paid out of the opener's bond; then the two
results are compared in a verifier process. Each call moves one dispute on as far as it goes now.
"""

import dataclasses
import logging
import secrets
from collections.abc import Callable
from typing import Final
from uuid import UUID

import msgspec

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Tx, rows
from qubix_coordinator.disputes import flow, money, rules
from qubix_coordinator.disputes.rules import Event, Somebody
from qubix_coordinator.disputes.tables import Dispute
from qubix_coordinator.errors import NotFound
from qubix_coordinator.jobs import again, needs
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.tables import Attempt, Job, JobInput
from qubix_coordinator.market import rules as market_rules
from qubix_coordinator.market import service as market
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.disputes import DisputeState, Finding, Outcome, Side
from qubix_protocol.messages import Range
from qubix_protocol.states import JobState

log = logging.getLogger(__name__)
LOOK_AGAIN_MS: Final = 500
NOBODY_YET_MS: Final = 5_000


async def advance(desk: Desk, tx: Tx, dispute_id: UUID, below: Callable[[int], int] = secrets.randbelow) -> None:
    job, dispute = await flow.lock(tx, dispute_id)
    dispute.look_ms = desk.now_ms() + LOOK_AGAIN_MS
    await dispute.save(using_db=tx, update_fields=["look_ms"])
    if not dispute.rerun_settled:
        await _take_up_rerun(desk, tx, dispute)
    if dispute.state != DisputeState.RERUNNING.value or not dispute.rerun_settled:
        return
    look = await again.second_look(tx, dispute.id)
    if look is not None:
        await _take_up_finding(desk, tx, job, dispute, look)
    elif job.has_verifier or await _ran_again(tx, dispute):
        await again.ask_second_look(
            tx,
            dispute.id,
            dispute.attempt_id,
            good=dispute.opened_by == Side.CONSUMER.value,
            other_job_id=None if job.has_verifier else dispute.rerun_job_id,
            due_ms=dispute.due_ms,
        )
    elif dispute.draws < rules.DRAWS_MAX:
        await _draw(desk, tx, job, dispute, below)
    else:
        await flow.note(desk, tx, dispute.id, "market", "no_rerun", "nobody ran it again")
        await flow.step(desk, tx, job, dispute, Event.FOUND)


async def _take_up_finding(desk: Desk, tx: Tx, job: Job, dispute: Dispute, look: again.SecondLook) -> None:
    if look.carried_out is None:
        return
    finding = Finding.UPHELD if look.accepted else Finding.REFUTED
    dispute.finding = (finding if look.carried_out else Finding.UNDECIDABLE).value
    await flow.step(desk, tx, job, dispute, Event.FOUND)


async def _take_up_rerun(desk: Desk, tx: Tx, dispute: Dispute) -> None:
    """A re-run that is over is paid out of the bond; the rest of that is bond again, or the winner's."""
    rerun = await again.finished(desk, tx, dispute.rerun_job_id) if dispute.rerun_job_id else None
    if rerun is None:
        return
    await money.rerun_back(tx, dispute, rerun)
    if dispute.outcome is not None:
        await money.end_bonds(tx, dispute, Outcome(dispute.outcome), dispute.award_qu)
    words = f"the run by {dispute.rerun_peer_id} is {rerun.state}"
    await flow.note(desk, tx, dispute.id, "market", "ran_again", words)
    await flow.save(desk, tx, dispute)


async def _ran_again(tx: Tx, dispute: Dispute) -> bool:
    """All of it, by whoever was drawn last."""
    if dispute.rerun_job_id is None:
        return False
    rerun = await Job.filter(id=dispute.rerun_job_id).using_db(tx).get()
    return bool(rerun.state == JobState.SETTLED.value and rerun.units_accepted == rerun.units)


async def _draw(desk: Desk, tx: Tx, job: Job, dispute: Dispute, below: Callable[[int], int]) -> None:
    cap_qu = await money.bond_balance_qu(tx, dispute.id) - dispute.answer_bond_qu
    ranges = [Range(*pair) for pair in dispute.ranges]
    drawn = rules.draw(await eligible(desk, tx, job, dispute, cap_qu), below) if cap_qu > 0 else None
    if drawn is None:
        dispute.look_ms = desk.now_ms() + NOBODY_YET_MS
        await dispute.save(using_db=tx, update_fields=["look_ms"])
        return
    dispute.draws += 1
    await money.lend_for_rerun(tx, dispute, cap_qu)
    rerun = await again.submit(
        desk,
        tx,
        job,
        ranges,
        payer=money.COURT,
        cap_qu=cap_qu,
        provider=drawn.peer_id,
        key=f"{dispute.id}:{dispute.draws}",
    )
    dispute.rerun_job_id, dispute.rerun_peer_id, dispute.rerun_settled = rerun.id, drawn.peer_id, False
    await flow.note(desk, tx, dispute.id, "market", "drawn", f"{drawn.peer_id} was drawn to run it again")
    await flow.save(desk, tx, dispute)
    log.info("dispute.drawn", extra={"dispute": str(dispute.id), "peer": drawn.peer_id, "draw": dispute.draws})


async def eligible(desk: Desk, tx: Tx, job: Job, dispute: Dispute, cap_qu: int) -> list[Somebody]:
    """Who fits, for that price, and is related to nobody who has to do with the job."""
    inputs = await JobInput.filter(job_id=job.id).using_db(tx)
    metas = {one.name: msgspec.convert(one.meta, ArrayMeta) for one in inputs}
    plan = needs.plan_of(job.kernel, job.params, metas)
    units = sum(stop - start for start, stop in dispute.ranges)
    need = dataclasses.replace(plan.need(units), hold_left_qu=cap_qu)
    offers = await market.candidates(tx, now_ms=desk.now_ms())
    fits = {choice.candidate.peer_id for choice in market_rules.estimates(offers, need)}
    seen = {row.peer_id for row in await Attempt.filter(job_id=job.id).using_db(tx).only("peer_id")}
    seen |= set(await _asked_already(tx, dispute))
    parties = {dispute.consumer_id, dispute.provider_id, *[await _account(tx, peer) for peer in seen]}
    wallets = await wallets_of(tx, parties)
    somebodies = [await _somebody(tx, peer) for peer in sorted(fits)]
    taken = frozenset(key for found in wallets.values() for key in found)
    return rules.unrelated(somebodies, parties, taken, seen)


async def _asked_already(tx: Tx, dispute: Dispute) -> list[str]:
    found = await rows(
        tx,
        "SELECT provider FROM job WHERE account_id = $1 AND starts_with(idempotency_key, $2)",
        money.COURT,
        f"{dispute.id}:",
    )
    return [row["provider"] for row in found]


async def _account(tx: Tx, peer_id: str) -> UUID:
    try:
        return await accounts.account_of_node(tx, peer_id)
    except NotFound:
        return money.COURT


async def _somebody(tx: Tx, peer_id: str) -> Somebody:
    account_id = await _account(tx, peer_id)
    return Somebody(peer_id, account_id, (await wallets_of(tx, {account_id})).get(account_id, frozenset()))


async def wallets_of(tx: Tx, account_ids: set[UUID]) -> dict[UUID, frozenset[bytes]]:
    """Every wallet that was ever bound to or proved by these accounts."""
    found = await rows(
        tx,
        "SELECT account_id, array_agg(DISTINCT public_key) AS keys FROM wallet WHERE account_id = ANY ($1::uuid[])"
        " GROUP BY account_id",
        list(account_ids),
    )
    return {UUID(str(row["account_id"])): frozenset(bytes(key) for key in row["keys"]) for row in found}
