# SPDX-License-Identifier: Apache-2.0
"""Carries one spot check on as far as it goes now, and draws the consequences: one transaction under the job's lock."""

import dataclasses
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID, uuid5

import msgspec

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Tx
from qubix_coordinator.disputes import rules as dispute_rules
from qubix_coordinator.disputes.money import COURT
from qubix_coordinator.disputes.rules import Somebody
from qubix_coordinator.jobs import accept, again, flow, needs, outcomes
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.tables import Attempt, Job, JobInput
from qubix_coordinator.market import rules as market_rules
from qubix_coordinator.market import service as market
from qubix_coordinator.market.reputation import What
from qubix_coordinator.spots import money, rules
from qubix_coordinator.spots.rules import Event, State
from qubix_coordinator.spots.tables import SpotCheck, SpotRerun
from qubix_coordinator.withdrawals import forfeits
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.messages import Range
from qubix_protocol.states import JobState, Reason

log = logging.getLogger(__name__)
LOOK_AGAIN_MS: Final = 500
NOBODY_YET_MS: Final = 5_000


async def advance(desk: Desk, tx: Tx, attempt_id: UUID, below: Callable[[int], int] = secrets.randbelow) -> None:
    found = await SpotCheck.filter(attempt_id=attempt_id).using_db(tx).only("job_id").get()
    job = await flow.lock_job(tx, found.job_id)
    check = await SpotCheck.filter(attempt_id=attempt_id).using_db(tx).select_for_update().get()
    check.look_ms = desk.now_ms() + LOOK_AGAIN_MS
    await _pay_reruns(desk, tx, check)
    if check.due_ms is not None:
        await _go_on(desk, tx, job, check, below)
    await check.save(using_db=tx)


async def _go_on(desk: Desk, tx: Tx, job: Job, check: SpotCheck, below: Callable[[int], int]) -> None:
    state = State(check.state)
    if job.state == JobState.DISPUTED.value:
        await _step(desk, tx, job, check, Event.DISPUTED, "a dispute looks at it")
    elif check.due_ms is not None and check.due_ms <= desk.now_ms():
        await _step(desk, tx, job, check, Event.DUE, "nobody could run it again in time")
    elif state is State.WAITING:
        await _draw(desk, tx, job, check, below)
    elif state is State.RERUNNING:
        await _after_rerun(desk, tx, job, check)
    else:
        await _after_look(desk, tx, job, check)


async def _pay_reruns(desk: Desk, tx: Tx, check: SpotCheck) -> None:
    """Their price is owed whatever they show."""
    for rerun in await SpotRerun.filter(attempt_id=check.attempt_id, settled=False).using_db(tx).order_by("draw"):
        over = await again.finished(desk, tx, rerun.job_id)
        if over is not None:
            await money.back(tx, rerun, over)


async def _draw(desk: Desk, tx: Tx, job: Job, check: SpotCheck, below: Callable[[int], int]) -> None:
    """An unrelated account, by the operating system's randomness, as in a dispute (M7)."""
    attempt = await Attempt.filter(id=check.attempt_id).using_db(tx).get()
    part = Range(check.start, check.stop)
    cap_qu = rules.price_max_qu(attempt.rate_qu_per_h, attempt.forecast_ms, attempt.units, part.units)
    drawn = dispute_rules.draw(await _eligible(desk, tx, job, check, cap_qu), below)
    if drawn is None or not await money.may_lend(desk, tx, cap_qu):
        check.look_ms = desk.now_ms() + NOBODY_YET_MS
        return
    check.draws += 1
    await money.lend(tx, check, cap_qu)
    key = f"spot:{check.attempt_id}:{check.draws}"
    rerun = await again.submit(desk, tx, job, [part], payer=COURT, cap_qu=cap_qu, provider=drawn.peer_id, key=key)
    row = SpotRerun(
        job_id=rerun.id,
        attempt_id=check.attempt_id,
        peer_id=drawn.peer_id,
        draw=check.draws,
        lent_qu=cap_qu,
        lent_ms=desk.now_ms(),
    )
    check.rerun_job_id = rerun.id
    await row.save(using_db=tx, force_create=True)
    await _step(desk, tx, job, check, Event.DRAWN, "")
    desk.wake.set()
    log.info("spot.rerun", extra={"attempt": str(check.attempt_id), "peer": drawn.peer_id, "draw": check.draws})


async def _eligible(desk: Desk, tx: Tx, job: Job, check: SpotCheck, cap_qu: int) -> list[Somebody]:
    """Who fits, for that price, and is related to nobody who has to do with the job or with an earlier re-run of it."""
    metas = {
        one.name: msgspec.convert(one.meta, ArrayMeta) for one in await JobInput.filter(job_id=job.id).using_db(tx)
    }
    plan = needs.plan_of(job.kernel, job.params, metas)
    need = dataclasses.replace(plan.need(check.stop - check.start), hold_left_qu=cap_qu)
    offers = await market.candidates(tx, now_ms=desk.now_ms())
    fits = {choice.candidate.peer_id for choice in market_rules.estimates(offers, need)}
    seen = {row.peer_id for row in await Attempt.filter(job_id=job.id).using_db(tx).only("peer_id")}
    seen |= {row.peer_id for row in await SpotRerun.filter(attempt_id=check.attempt_id).using_db(tx).only("peer_id")}
    parties = {job.data_owner, check.provider_id, *[await accounts.account_of_node(tx, peer) for peer in sorted(seen)]}
    owners = {peer: await accounts.account_of_node(tx, peer) for peer in sorted(fits - seen)}
    keys = await outcomes.identities(tx, parties | set(owners.values()))
    somebodies = [Somebody(peer, owner, keys.get(owner, frozenset())) for peer, owner in owners.items()]
    taken = frozenset(key for party in parties for key in keys.get(party, frozenset()))
    return dispute_rules.unrelated(somebodies, parties, taken, seen)


async def _after_rerun(desk: Desk, tx: Tx, job: Job, check: SpotCheck) -> None:
    row = await SpotRerun.filter(job_id=check.rerun_job_id).using_db(tx).get()
    if not row.settled:
        return
    rerun = await Job.filter(id=row.job_id).using_db(tx).get()
    if rerun.state != JobState.SETTLED.value or rerun.units_accepted != rerun.units:
        await _step(desk, tx, job, check, Event.NOT_RAN, "nobody brought a re-run to its end")
        return
    assert check.due_ms is not None, "it is open"
    check.look_id = uuid5(check.attempt_id, f"spot:{row.draw}")
    part = Range(check.start, check.stop)
    await again.ask_second_look(
        tx, check.look_id, check.attempt_id, good=True, other_job_id=row.job_id, due_ms=check.due_ms, part=part
    )
    await _step(desk, tx, job, check, Event.RAN, "")


async def _after_look(desk: Desk, tx: Tx, job: Job, check: SpotCheck) -> None:
    assert check.look_id is not None, "it is asked before"
    look = await again.second_look(tx, check.look_id)
    if look is None or look.carried_out is None:
        return
    if not look.carried_out:
        await _step(desk, tx, job, check, Event.UNTOLD, f"the comparison was not carried out: {look.detail}")
        return
    await SpotRerun.filter(job_id=check.rerun_job_id).using_db(tx).update(same=bool(look.accepted))
    event = Event.SAME if look.accepted else Event.DIFFERS
    await _step(desk, tx, job, check, event, f"{look.reason}: {look.detail}".strip(": "))


async def _step(desk: Desk, tx: Tx, job: Job, check: SpotCheck, event: Event, detail: str) -> None:
    state = rules.decide(rules.Facts(State(check.state), check.draws, check.against), event)
    if state is None:
        return
    check.against += int(event is Event.DIFFERS)
    was, check.state = check.state, state.value
    check.detail = detail[: flow.DETAIL_MAX] or check.detail
    if state in rules.OPEN:
        return
    check.due_ms, check.ended_ms = None, desk.now_ms()
    log.info("spot.ended", extra={"attempt": str(check.attempt_id), "state": state.value, "detail": check.detail})
    if was == State.RERUNNING.value and check.rerun_job_id is not None:
        await again.stop(desk, tx, check.rerun_job_id)
    attempt = await Attempt.filter(id=check.attempt_id).using_db(tx).select_for_update().get()
    await _ended(desk, tx, job, check, attempt, state)


async def _ended(desk: Desk, tx: Tx, job: Job, check: SpotCheck, attempt: Attempt, state: State) -> None:
    if state is State.PASSED:
        await _right(desk, tx, job, attempt)
        await _blame_reruns(desk, tx, check)
    elif state is State.FAILED:
        await _wrong(desk, tx, job, check, attempt)
    elif state is State.UNDECIDED:
        await accept.refute(desk, tx, job, attempt, Reason.SPOT_CHECK_UNDECIDED, check.detail)


async def _right(desk: Desk, tx: Tx, job: Job, attempt: Attempt) -> None:
    """It counts as checked from now on."""
    finished = attempt.reason == Reason.COMPLETED.value
    await outcomes.tell(desk, tx, job, attempt, What.RIGHT, *([What.FINISHED] if finished else []))
    await market.count_accepted(tx, attempt.listing_id, now_ms=desk.now_ms(), forgive=finished)


async def _wrong(desk: Desk, tx: Tx, job: Job, check: SpotCheck, attempt: Attempt) -> None:
    """Unpaid as far as it still is, and its units go elsewhere; the record shows it; new earnings are forfeit (C5)."""
    await outcomes.tell(desk, tx, job, attempt, What.WRONG)
    await market.count_rejected(tx, attempt.listing_id, now_ms=desk.now_ms())
    await accept.refute(desk, tx, job, attempt, Reason.SPOT_CHECK_FAILED, check.detail)
    await forfeits.take(
        tx,
        check.attempt_id,
        check.provider_id,
        attempt_id=check.attempt_id,
        job_id=job.id,
        reason=Reason.SPOT_CHECK_FAILED,
        delay_s=desk.settings.withdrawal_earnings_delay_s,
        now_ms=desk.now_ms(),
    )


async def _blame_reruns(desk: Desk, tx: Tx, check: SpotCheck) -> None:
    """Whoever made something else than the other two."""
    for row in await SpotRerun.filter(attempt_id=check.attempt_id, same=False).using_db(tx).order_by("draw"):
        rerun = await Job.filter(id=row.job_id).using_db(tx).get()
        for attempt in await _makers(tx, row):
            await outcomes.tell(desk, tx, rerun, attempt, What.WRONG)
            await market.count_rejected(tx, attempt.listing_id, now_ms=desk.now_ms())


async def _makers(tx: Tx, row: SpotRerun) -> Sequence[Attempt]:
    return await Attempt.filter(job_id=row.job_id, units_accepted__gt=0).using_db(tx).order_by("fence")
