# SPDX-License-Identifier: Apache-2.0
"""From a verdict to money: links marked, accepted chunks paid, outputs released, a settlement signed, the job moved on.

All of it is one transaction under the job's lock, so a crash leaves either nothing or everything of it.
"""

import logging
from collections.abc import Sequence
from uuid import UUID

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.artifacts import service as artifacts
from qubix_coordinator.db.database import Tx
from qubix_coordinator.jobs import billing, flow, lessons, money, outcomes, receipt, rules, seen, spot
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.rules import AttemptEvent, JobEvent, Verb
from qubix_coordinator.jobs.tables import Attempt, ChainLink, Job, Verdict
from qubix_coordinator.market import service as market
from qubix_coordinator.market.reputation import What
from qubix_coordinator.withdrawals import forfeits
from qubix_protocol import digests
from qubix_protocol.envelope import ANYONE, seal
from qubix_protocol.messages import Settlement
from qubix_protocol.states import AttemptState, Reason

log = logging.getLogger(__name__)
WORDS = {
    AttemptState.ACCEPTED: "accepted",
    AttemptState.REJECTED: "rejected",
    AttemptState.EMPTY: "unchecked",
    AttemptState.DELIVERED: "delivered",
}
_WITHOUT_FAULT = (AttemptState.ACCEPTED, AttemptState.DELIVERED)


async def new_verdicts(tx: Tx, limit: int) -> list[UUID]:
    found = Verdict.filter(applied=False).using_db(tx).order_by("recorded_ms")
    return [row.attempt_id for row in await found.limit(limit).only("attempt_id")]


async def apply_verdict(desk: Desk, tx: Tx, attempt_id: UUID) -> None:
    """Settles the attempt by its recorded verdict. Doing it again changes nothing."""
    job, attempt = await flow.lock_attempt(tx, attempt_id)
    verdict = await Verdict.filter(attempt_id=attempt_id).using_db(tx).select_for_update().get()
    if verdict.applied:
        return
    verdict.applied = True
    await verdict.save(using_db=tx, update_fields=["applied"])
    await _settle(desk, tx, job, attempt, _event_of(job, verdict), verdict)


def _event_of(job: Job, verdict: Verdict) -> AttemptEvent:
    if not verdict.carried_out:
        return AttemptEvent.UNCHECKED
    if not verdict.accepted:
        return AttemptEvent.FAILED_CHECK
    return AttemptEvent.PASSED if job.settles_by_check else AttemptEvent.FORMED


async def give_up_check(desk: Desk, tx: Tx, job: Job, attempt: Attempt) -> None:
    """No verdict came in time: nobody is blamed, the unchecked part costs nothing and is run again."""
    recorded = await Verdict.filter(attempt_id=attempt.id).using_db(tx).exists()
    if recorded:
        await apply_verdict(desk, tx, attempt.id)
    else:
        await _settle(desk, tx, job, attempt, AttemptEvent.DUE, None)


async def _settle(desk: Desk, tx: Tx, job: Job, attempt: Attempt, event: AttemptEvent, verdict: Verdict | None) -> None:
    decision = rules.decide_attempt(AttemptState(attempt.state), event, links=attempt.links)
    if decision.verb is not Verb.APPLY:
        return
    links = await ChainLink.filter(attempt_id=attempt.id).using_db(tx).order_by("index")
    good = accepted_prefix(links, verdict)
    already_counted = Reason(attempt.reason) not in rules.UNCOUNTED
    _conclude(attempt, decision.state, verdict)
    await receipt.checked(desk, tx, attempt, verdict)
    if verdict is not None and verdict.carried_out:
        await _mark(tx, links, len(good), paid=job.settles_by_check)
    provider = await accounts.account_of_node(tx, attempt.peer_id) if good else None
    if provider is not None:
        charge_qu = _count(job, attempt, good)
        if job.settles_by_check:
            await pay(desk, tx, job, attempt, provider, charge_qu)
            if job.data_account_id is None:
                await artifacts.release(tx, job.account_id, [bytes(link.output_digest) for link in good])
        else:
            attempt.owed_qu, job.owed_qu = charge_qu, job.owed_qu + charge_qu
    if decision.state not in _WITHOUT_FAULT and not already_counted:
        job.bad_attempts += 1
    if attempt.owed_qu == 0:
        await conclude(desk, tx, job, attempt, _verdict_text(verdict))
    else:
        await attempt.save(using_db=tx)
        assert provider is not None, "somebody is owed it"
        await spot.consider(desk, tx, job, attempt, provider, good)
    await _reputation(desk, tx, job, attempt, decision.state, provider)
    if provider not in (None, job.account_id):
        await seen.note(tx, job, attempt, now_ms=desk.now_ms())
        await lessons.learn(tx, job, attempt, good, now_ms=desk.now_ms())
    paid = attempt.paid_qu + attempt.fee_qu > 0
    await flow.step_job(desk, tx, job, JobEvent.CHECKED, detail=_job_detail(attempt, decision.state), paid=paid)


def accepted_prefix(links: Sequence[ChainLink], verdict: Verdict | None) -> list[ChainLink]:
    """The links before the first bad one: nothing after it can be believed (trust.md M3)."""
    if verdict is None or not verdict.carried_out or len(verdict.parts) != len(links):
        return []
    good = []
    for link, passed in zip(links, verdict.parts, strict=True):
        if not passed:
            break
        good.append(link)
    return good


async def conclude(desk: Desk, tx: Tx, job: Job, attempt: Attempt, why: str) -> None:
    """Saves the attempt with our last word on it, signed, for its receipt; and what the node hears of it."""
    statement = settlement_of(desk, job, attempt, why)
    attempt.settlement_raw, attempt.settled_ms = _sign(desk, statement), statement.decided_ms
    await attempt.save(using_db=tx)
    await receipt.settled(desk, tx, attempt)
    await flow.tell(tx, attempt.peer_id, statement)
    log.info(
        "attempt.settled",
        extra={"attempt": str(attempt.id), "verdict": attempt.verdict, "paid_qu": attempt.paid_qu, "job": str(job.id)},
    )


def _conclude(attempt: Attempt, state: AttemptState, verdict: Verdict | None) -> None:
    attempt.state, attempt.verdict, attempt.due_ms = state.value, WORDS[state], None
    attempt.check_ms = verdict.check_ms if verdict else 0
    if state is AttemptState.REJECTED:
        assert verdict is not None
        attempt.reason, attempt.detail = Reason.WRONG_RESULT.value, f"{verdict.reason}: {verdict.detail}"[:2000]
    elif state is AttemptState.EMPTY:
        why = verdict.detail if verdict else "no verifier answered in time"
        attempt.reason, attempt.detail = Reason.CHECK_FAILED.value, why


async def _mark(tx: Tx, links: Sequence[ChainLink], good: int, *, paid: bool) -> None:
    first, last = [link.id for link in links[:good]], [link.id for link in links[good:]]
    if first:
        await ChainLink.filter(id__in=first).using_db(tx).update(verdict=True, paid=paid, owed=not paid)
    if last:
        await ChainLink.filter(id__in=last).using_db(tx).update(verdict=False)


def _count(job: Job, attempt: Attempt, good: Sequence[ChainLink]) -> int:
    """The good links' units are the job's; gives what they cost."""
    chunks = [billing.Chunk(link.stop - link.start, link.claimed_ms, link.observed_ms) for link in good]
    attempt.units_accepted = sum(chunk.units for chunk in chunks)
    attempt.billed_ms = billing.billed_ms(chunks, forecast_ms=attempt.forecast_ms, attempt_units=attempt.units)
    job.units_accepted += attempt.units_accepted
    job.fraction = rules.fraction(job.fraction, job.units, job.units_accepted, 0.0)
    return billing.charge_qu(
        attempt.rate_qu_per_h, attempt.billed_ms, units=attempt.units_accepted, hold_left_qu=job.hold_spare_qu
    )


async def pay(desk: Desk, tx: Tx, job: Job, attempt: Attempt, provider: UUID, charge_qu: int) -> None:
    """What runs on a rental is paid for by its time."""
    if job.rental_id is not None:
        return
    fee_bps = desk.settings.fee_bps if attempt.fee_bps is None else attempt.fee_bps
    attempt.paid_qu, attempt.fee_qu = await money.settle(tx, job, attempt.id, provider, charge_qu, fee_bps)
    job.paid_qu += attempt.paid_qu
    job.fee_qu += attempt.fee_qu


def settlement_of(desk: Desk, job: Job, attempt: Attempt, why: str) -> Settlement:
    return Settlement(
        network=desk.network,
        job_id=str(job.id),
        attempt_id=str(attempt.id),
        provider=attempt.peer_id,
        report_digest=digests.of_bytes(attempt.report_raw) if attempt.report_raw else digests.ZERO,
        head=bytes(attempt.head),
        units_accepted=attempt.units_accepted,
        units_total=job.units,
        verdict=attempt.verdict,
        verdict_detail=why,
        check_ms=attempt.check_ms,
        run_ms=attempt.claimed_ms,
        billed_ms=attempt.billed_ms,
        rate_qu_per_h=attempt.rate_qu_per_h,
        paid_qu=attempt.paid_qu,
        fee_qu=attempt.fee_qu,
        decided_ms=desk.now_ms(),
    )


def _verdict_text(verdict: Verdict | None) -> str:
    if verdict is None:
        return "no verifier answered in time"
    return f"{verdict.reason}: {verdict.detail}"[:2000] if verdict.detail else verdict.reason


def _sign(desk: Desk, statement: Settlement) -> bytes:
    """For everybody and for ever: evidence, so its expiry is never judged and it has no place in a sequence."""
    return seal(
        statement,
        desk.key,
        network=desk.network,
        audience=ANYONE,
        incarnation=0,
        counter=0,
        expires_ms=statement.decided_ms,
    )


async def _reputation(
    desk: Desk, tx: Tx, job: Job, attempt: Attempt, state: AttemptState, provider: UUID | None
) -> None:
    """Work for one's own account earns no reputation, nor does work that nobody could check (trust.md C5); a wrong
    result always costs some. `provider`: whose work it is, when some of it is good."""
    now_ms = desk.now_ms()
    if state is AttemptState.REJECTED:
        await outcomes.tell(desk, tx, job, attempt, What.WRONG)
        await market.count_rejected(tx, attempt.listing_id, now_ms=now_ms)
        await _forfeit(desk, tx, job, attempt)
        return
    finished = attempt.reason == Reason.COMPLETED.value
    if job.has_verifier and provider is not None:
        await outcomes.tell(desk, tx, job, attempt, What.RIGHT, *([What.FINISHED] if finished else []))
    if job.has_verifier and provider not in (None, job.account_id):
        await market.count_accepted(tx, attempt.listing_id, now_ms=now_ms, forgive=finished)


async def _forfeit(desk: Desk, tx: Tx, job: Job, attempt: Attempt) -> None:
    """Who is caught at a wrong result keeps nothing that was earned lately and never checked (trust.md C5). What a
    verifier judged before it was paid stays theirs."""
    await forfeits.take(
        tx,
        attempt.id,
        await accounts.account_of_node(tx, attempt.peer_id),
        attempt_id=attempt.id,
        job_id=job.id,
        reason=Reason.WRONG_RESULT,
        delay_s=desk.settings.withdrawal_earnings_delay_s,
        now_ms=desk.now_ms(),
        unchecked=True,
    )


def _job_detail(attempt: Attempt, state: AttemptState) -> str:
    return "" if state in _WITHOUT_FAULT else f"attempt {attempt.fence}: {attempt.detail}"
