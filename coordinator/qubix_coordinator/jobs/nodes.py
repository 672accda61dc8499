# SPDX-License-Identifier: Apache-2.0
"""What nodes say of their attempts. Each message is one transaction under the job's lock.

Refusals are typed (`Refused`): the mesh link counts and answers them. What a superseded attempt still sends is kept as
evidence, in a transaction that commits although the message is refused.
"""

import logging
from uuid import UUID

from qubix_coordinator.artifacts import service as artifacts
from qubix_coordinator.db.database import Tx, execute, value
from qubix_coordinator.errors import Conflict, Refused
from qubix_coordinator.jobs import billing, flow, receipt, rules
from qubix_coordinator.jobs.assign import assign_message
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.rules import AttemptEvent, JobEvent, Verb
from qubix_coordinator.jobs.tables import Attempt, ChainLink, Job
from qubix_coordinator.market import service as market
from qubix_protocol import codec, digests
from qubix_protocol.messages import (
    Accept,
    Acknowledged,
    Cancel,
    Decline,
    Heartbeat,
    Link,
    LiveAttempt,
    Progress,
    Range,
    Report,
)
from qubix_protocol.states import AttemptState, Outcome, Reason

log = logging.getLogger(__name__)
EVIDENCE_MAX = 64
"""Late messages kept of one attempt."""
CLAIMED_MS_MAX = 2**53
"""What a receipt can hold: beyond it the settlement of an attempt could not be read."""


async def on_accept(desk: Desk, peer_id: str, message: Accept) -> None:
    async def step(tx: Tx) -> None:
        job, attempt = await flow.lock_own_attempt(tx, peer_id, message.attempt_id, message.fence)
        if await _hear(desk, tx, job, attempt, AttemptEvent.ACCEPT):
            await attempt.save(using_db=tx)
            await flow.save_job(tx, job, desk.now_ms())

    await desk.db.run(step)


async def on_decline(desk: Desk, peer_id: str, message: Decline) -> None:
    async def step(tx: Tx) -> None:
        job, attempt = await flow.lock_own_attempt(tx, peer_id, message.attempt_id, message.fence)
        detail = f"{message.reason}: {message.detail}" if message.detail else message.reason
        leaving = message.reason == Reason.DRAINING
        if leaving:
            await market.draining(tx, attempt.listing_id, now_ms=desk.now_ms())
        reason = Reason.DRAINING if leaving else Reason.DECLINED
        await flow.end_attempt(desk, tx, job, attempt, AttemptEvent.DECLINE, reason, detail)

    await desk.db.run(step)


async def on_heartbeat(desk: Desk, peer_id: str, message: Heartbeat) -> None:
    """Beats of attempts that are over are answered by a Cancel each: the node has not heard it."""
    for beat in message.attempts:
        await _on_beat(desk, peer_id, beat.attempt_id, beat.fence, beat.fraction)


async def _on_beat(desk: Desk, peer_id: str, attempt_id: str, fence: int, fraction: float) -> None:
    async def step(tx: Tx) -> None:
        try:
            job, attempt = await flow.lock_own_attempt(tx, peer_id, attempt_id, fence)
            if not await _hear(desk, tx, job, attempt, AttemptEvent.BEAT):
                return
        except Refused:
            await flow.tell(tx, peer_id, Cancel(attempt_id=attempt_id, fence=fence, reason=Reason.SUPERSEDED))
            return
        moved = fraction > attempt.fraction
        await _advance(tx, job, attempt, fraction)
        await attempt.save(using_db=tx)
        if moved:
            await flow.save_job(tx, job, desk.now_ms())

    await desk.db.run(step)


async def _hear(desk: Desk, tx: Tx, job: Job, attempt: Attempt, event: AttemptEvent) -> bool:
    """A live attempt spoke: the meter and the lease go on. False when the word is no news. Raises StaleAttempt."""
    decision = rules.decide_attempt(AttemptState(attempt.state), event, links=attempt.links)
    if decision.verb is Verb.REFUSE:
        raise flow.stale(attempt)
    if decision.verb is Verb.IGNORE:
        return False
    now_ms = desk.now_ms()
    if attempt.started_ms is None or attempt.heard_ms is None:
        attempt.started_ms = attempt.heard_ms = now_ms
        attempt.limit_ms = now_ms + attempt.time_limit_ms
    heartbeat_ms = round(desk.settings.heartbeat_s * 1000)
    attempt.observed_ms += billing.observed_gap_ms(attempt.heard_ms, now_ms, heartbeat_ms)
    attempt.heard_ms = max(attempt.heard_ms, now_ms)
    assert attempt.limit_ms is not None, "set when it started"
    attempt.leaving = False
    attempt.due_ms = rules.running_due_ms(attempt.heard_ms, round(desk.settings.lease_s * 1000), attempt.limit_ms)
    if attempt.state != decision.state.value:
        attempt.state = decision.state.value
        await attempt.save(using_db=tx)
        await flow.step_job(desk, tx, job, JobEvent.START)
    return True


async def _advance(tx: Tx, job: Job, attempt: Attempt, fraction: float) -> None:
    attempt.fraction = max(attempt.fraction, min(1.0, fraction))
    under_way = attempt.units * attempt.fraction + await _under_way_elsewhere(tx, job, attempt)
    job.fraction = rules.fraction(job.fraction, job.units, job.units_accepted, under_way)


async def _under_way_elsewhere(tx: Tx, job: Job, attempt: Attempt) -> float:
    """Units that the job's other hands have done, by their own word."""
    if job.hands_max == 1:
        return 0.0
    found = await value(
        tx,
        "SELECT coalesce(sum(units * fraction), 0) FROM attempt WHERE job_id = $1 AND id <> $2"
        " AND state IN ('offered', 'running', 'verifying')",
        job.id,
        attempt.id,
    )
    return float(found)


async def on_progress(desk: Desk, peer_id: str, message: Progress, raw: bytes) -> Acknowledged | None:
    """Acknowledges the link it carries, if any: then it is durable here. The same link again is acknowledged again."""

    async def step(tx: Tx) -> Refused | None:
        job, attempt = await flow.lock_own_attempt(tx, peer_id, message.attempt_id, message.fence)
        if message.link is not None and await _known_link(tx, attempt, message.link):
            return None
        try:
            await _hear(desk, tx, job, attempt, AttemptEvent.BEAT if message.link is None else AttemptEvent.LINK)
        except Refused as refusal:
            await _keep_evidence(tx, attempt, "progress", raw, desk.now_ms())
            await flow.tell(tx, peer_id, flow.cancel_of(attempt, Reason.SUPERSEDED))
            return refusal
        if message.link is not None:
            await _add_link(desk, tx, job, attempt, message.link, raw)
        await _advance(tx, job, attempt, max(message.fraction, attempt.units_done / attempt.units))
        await attempt.save(using_db=tx)
        await flow.save_job(tx, job, desk.now_ms())
        return None

    refusal = await desk.db.run(step)
    if refusal is not None:
        raise refusal
    if message.link is None:
        return None
    return Acknowledged(attempt_id=message.attempt_id, fence=message.fence, link=message.link.index)


async def _known_link(tx: Tx, attempt: Attempt, link: Link) -> bool:
    known = await ChainLink.filter(attempt_id=attempt.id, index=link.index).using_db(tx).first()
    if known is None:
        return False
    if bytes(known.chain_digest) != digests.of_link(link):
        raise Conflict(
            f"link {link.index} was committed with other content",
            field="link",
            remedy="An attempt's chain is never rewritten: report the attempt as failed",
        )
    return True


async def _add_link(desk: Desk, tx: Tx, job: Job, attempt: Attempt, link: Link, raw: bytes) -> None:
    _check_place(attempt, link)
    await _check_output(tx, job, attempt, link)
    assert attempt.heard_ms is not None, "heard just now"
    row = ChainLink(
        attempt_id=attempt.id,
        job_no=attempt.job_no,
        index=link.index,
        start=link.units.start,
        stop=link.units.stop,
        output_digest=link.output_digest,
        output_bytes=link.output_bytes,
        claimed_ms=link.claimed_ms,
        predecessor=link.predecessor,
        chain_digest=digests.of_link(link),
        envelope=raw,
        heard_ms=attempt.heard_ms,
        observed_ms=attempt.observed_ms,
    )
    await row.save(using_db=tx, force_create=True)
    await receipt.linked(desk, tx, attempt, row)
    attempt.links += 1
    attempt.units_done += link.units.units
    attempt.claimed_ms += link.claimed_ms
    attempt.head = row.chain_digest


def _check_place(attempt: Attempt, link: Link) -> None:
    """Next in order, after the right predecessor, inside what was assigned."""
    if link.index != attempt.links or link.predecessor != bytes(attempt.head):
        raise Conflict(
            f"link {link.index} does not follow the {attempt.links} links that are here",
            field="link",
            remedy="Send the links in order, from the first that was not acknowledged",
        )
    if attempt.claimed_ms + link.claimed_ms > CLAIMED_MS_MAX:
        raise Conflict(
            f"the links of this attempt have claimed more than {CLAIMED_MS_MAX} ms together",
            field="link.claimed_ms",
            remedy="Claim the run time of each chunk in milliseconds",
        )
    allowed = billing.next_range([Range(*pair) for pair in attempt.ranges], attempt.units_done)
    if link.units.start != allowed.start or not allowed.start < link.units.stop <= allowed.stop:
        raise Conflict(
            f"units [{link.units.start}, {link.units.stop}) are not the next of this attempt",
            field="link.units",
            remedy=f"Go on at unit {allowed.start}, at most to {allowed.stop}",
        )


async def _check_output(tx: Tx, job: Job, attempt: Attempt, link: Link) -> None:
    """Sent whole by this very attempt: naming the digest of what somebody else made is no work (trust.md M3, D1)."""
    found = await artifacts.sent_by(tx, job.data_owner, link.output_digest, str(attempt.id))
    if found is None or found.size_bytes != link.output_bytes:
        raise Conflict(
            "the output of this link is not here from this attempt, or has another size",
            field="link.output_digest",
            remedy="Upload the output first, then send the link",
        )


async def on_report(desk: Desk, peer_id: str, message: Report, raw: bytes) -> Acknowledged:
    """The attempt is over. A report that comes twice is acknowledged twice; another one than before is refused.

    The report of an attempt that is settled already is evidence: acknowledged, so that the node forgets it, not paid.
    """
    body = digests.of_bytes(codec.encode(message))

    async def step(tx: Tx) -> None:
        job, attempt = await flow.lock_own_attempt(tx, peer_id, message.attempt_id, message.fence)
        if attempt.report_body is not None:
            if bytes(attempt.report_body) != body:
                raise _another_report()
            return
        _check_report(job, attempt, message)
        was = AttemptState(attempt.state)
        decision = rules.decide_attempt(was, AttemptEvent.REPORT, links=attempt.links)
        if decision.verb is not Verb.APPLY or not _same_chain(attempt, message):
            await _keep_evidence(tx, attempt, "report", raw, desk.now_ms())
        else:
            attempt.report_body, attempt.report_raw = body, raw
            await attempt.save(using_db=tx, update_fields=["report_body", "report_raw"])
            await receipt.reported(desk, tx, attempt)
        if was in (AttemptState.OFFERED, AttemptState.RUNNING):
            reason, detail = _ending(attempt, message)
            await flow.end_attempt(desk, tx, job, attempt, AttemptEvent.REPORT, reason, detail)

    await desk.db.run(step)
    return Acknowledged(attempt_id=message.attempt_id, fence=message.fence)


def _another_report() -> Conflict:
    return Conflict(
        "this attempt has reported already, with other content",
        field="attempt_id",
        remedy="One attempt reports once: send the same report again, or none",
    )


def _same_chain(attempt: Attempt, message: Report) -> bool:
    return (message.links, message.head, message.units_done) == (attempt.links, bytes(attempt.head), attempt.units_done)


def _check_report(job: Job, attempt: Attempt, message: Report) -> None:
    """A report must be about this very work, and a completed one about links that are all here."""
    about = (message.job_id, message.kernel, message.params_digest, message.inputs_digest)
    if about != (str(job.id), job.kernel, bytes(job.params_digest), bytes(job.inputs_digest)):
        raise Conflict(
            "the report is about another job, kernel, parameters or inputs than were assigned",
            field="job_id",
            remedy="Report the attempt with the digests of its assignment",
        )
    live = attempt.state in (AttemptState.OFFERED.value, AttemptState.RUNNING.value)
    if live and message.outcome is Outcome.COMPLETED and not _same_chain(attempt, message):
        raise Conflict(
            f"the report counts {message.links} links, {attempt.links} are here",
            field="links",
            remedy="Send the missing links first, then the report again",
        )


def _ending(attempt: Attempt, message: Report) -> tuple[Reason, str]:
    if message.outcome is Outcome.COMPLETED and attempt.units_done == attempt.units:
        return Reason.COMPLETED, ""
    if message.failure is not None and message.failure.code == Reason.BAD_INPUT:
        return Reason.BAD_INPUT, message.failure.detail
    if message.failure is not None:
        return Reason.NODE_FAILED, f"{message.failure.code}: {message.failure.detail}"
    if message.outcome is Outcome.COMPLETED:
        return Reason.NODE_FAILED, f"it stopped after {attempt.units_done} of {attempt.units} units"
    return Reason.NODE_FAILED, f"the provider reported {message.outcome.value}"


async def _keep_evidence(tx: Tx, attempt: Attempt, kind: str, raw: bytes, now_ms: int) -> None:
    log.warning("attempt.late_word", extra={"attempt": str(attempt.id), "peer": attempt.peer_id, "kind": kind})
    await execute(
        tx,
        "INSERT INTO evidence (attempt_id, kind, digest, envelope, heard_ms) SELECT $1, $2, $3, $4, $5"
        " WHERE (SELECT count(*) FROM evidence WHERE attempt_id = $1) < $6 ON CONFLICT DO NOTHING",
        attempt.id,
        kind,
        digests.of_bytes(raw),
        raw,
        now_ms,
        EVIDENCE_MAX,
    )


async def on_hello(desk: Desk, peer_id: str, attempts: tuple[LiveAttempt, ...]) -> None:
    """A node (re)connected with these attempts in hand: what it lost goes on elsewhere, what is over is cancelled."""
    named = {one.attempt_id: one.fence for one in attempts}
    for attempt_id in await _open_of(desk, peer_id):
        if str(attempt_id) not in named:
            await _on_lost(desk, attempt_id)
    for text, fence in named.items():
        await _drop_if_over(desk, peer_id, text, fence)


async def _open_of(desk: Desk, peer_id: str) -> list[UUID]:
    async def step(tx: Tx) -> list[UUID]:
        found = Attempt.filter(peer_id=peer_id, state__in=[AttemptState.OFFERED.value, AttemptState.RUNNING.value])
        return [row.id for row in await found.using_db(tx).order_by("created_ms", "fence").only("id")]

    return await desk.db.run(step)


async def _on_lost(desk: Desk, attempt_id: UUID) -> None:
    async def step(tx: Tx) -> None:
        job, attempt = await flow.lock_attempt(tx, attempt_id)
        if attempt.state == AttemptState.OFFERED.value:
            await flow.tell(tx, attempt.peer_id, await assign_message(tx, job, attempt))
            return
        await flow.end_attempt(desk, tx, job, attempt, AttemptEvent.LOST, Reason.NODE_RESTARTED)

    await desk.db.run(step)


async def _drop_if_over(desk: Desk, peer_id: str, attempt_id: str, fence: int) -> None:
    async def step(tx: Tx) -> None:
        row = await Attempt.filter(id=UUID(attempt_id)).using_db(tx).first()
        live = row is not None and (row.peer_id, row.fence) == (peer_id, fence)
        if row is None or not live or row.state not in (AttemptState.OFFERED.value, AttemptState.RUNNING.value):
            await flow.tell(tx, peer_id, Cancel(attempt_id=attempt_id, fence=fence, reason=Reason.SUPERSEDED))

    await desk.db.run(step)
