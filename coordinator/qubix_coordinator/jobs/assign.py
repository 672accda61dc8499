# SPDX-License-Identifier: Apache-2.0
"""From a queued job to an attempt that its node has been told of."""

import dataclasses
import logging
import uuid
from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from qubix_coordinator.db.database import Tx, rows
from qubix_coordinator.jobs import billing, flow, needs, rules
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.rules import JobEvent
from qubix_coordinator.jobs.tables import Attempt, ChainLink, Job, JobInput
from qubix_coordinator.market import rules as market_rules
from qubix_coordinator.market import service as market
from qubix_protocol import digests
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.messages import Assign, InputRef, Range
from qubix_protocol.states import AttemptState, JobState, Reason

log = logging.getLogger(__name__)


async def running_counts(tx: Tx) -> dict[UUID, int]:
    """Live attempts of each listing, by the coordinator's own books."""
    found = await rows(
        tx,
        "SELECT listing_id, count(*) AS n FROM attempt WHERE state IN ('offered', 'running') GROUP BY listing_id",
    )
    return {UUID(str(row["listing_id"])): row["n"] for row in found}


async def running_on(tx: Tx, listing_id: UUID) -> int:
    return await Attempt.filter(listing_id=listing_id, state__in=["offered", "running"]).using_db(tx).count()


async def waiting_jobs(tx: Tx, now_ms: int, limit: int) -> list[UUID]:
    """In the order in which they came."""
    found = Job.filter(state=JobState.QUEUED.value, match_ms__lte=now_ms).using_db(tx)
    return [job.id for job in await found.order_by("no").limit(limit).only("id")]


async def unexplained_jobs(tx: Tx, now_ms: int, limit: int) -> list[UUID]:
    """Those that have waited long enough to be told why, and were not told lately."""
    long_ago = {"queued_ms__lte": now_ms - rules.SAY_WHY_MS, "match_ms__lte": now_ms - rules.MATCH_AGAIN_MS_MAX}
    found = Job.filter(state=JobState.QUEUED.value, **long_ago).using_db(tx)
    return [job.id for job in await found.order_by("match_ms").limit(limit).only("id")]


async def try_assign(desk: Desk, tx: Tx, job_id: UUID, offers: Sequence[market_rules.Candidate]) -> UUID | None:
    """The listing that got the job; None when nobody can take it now, or somebody else is deciding about it."""
    job = await Job.filter(id=job_id).using_db(tx).select_for_update(skip_locked=True).first()
    if job is None or job.state != JobState.QUEUED.value:
        return None
    now_ms = desk.now_ms()
    left = await ranges_left(tx, job)
    need = await needs.of_job(tx, job, left, now_ms)
    found = _choose(offers, need, frozenset(await flow.refusers(tx, job)), await running_counts(tx), now_ms)
    if isinstance(found, market_rules.Choice):
        found = await _confirmed(tx, found, need, now_ms)
    if isinstance(found, market_rules.Shortfall):
        await _say_why(tx, job, found, now_ms)
        return None
    await _write_attempt(desk, tx, job, found, left)
    return found.candidate.listing_id


def _choose(
    offers: Sequence[market_rules.Candidate],
    need: market_rules.Need,
    refusers: frozenset[str],
    running: Mapping[UUID, int],
    now_ms: int,
) -> market_rules.Choice | market_rules.Shortfall:
    """Whoever refused the input is asked again only where nobody else can be."""
    if refusers:
        others = dataclasses.replace(need, excluded=need.excluded | refusers)
        found = market_rules.choose(offers, others, running, now_ms)
        if isinstance(found, market_rules.Choice):
            return found
    return market_rules.choose(offers, need, running, now_ms)


async def _confirmed(
    tx: Tx, choice: market_rules.Choice, need: market_rules.Need, now_ms: int
) -> market_rules.Choice | market_rules.Shortfall:
    """The choice again, now that the listing is locked and its occupancy cannot change."""
    locked = await market.lock(tx, choice.candidate.listing_id)
    if locked is None:
        return market_rules.shortfall({market_rules.Obstacle.BUSY: 1})
    running = {locked.listing_id: await running_on(tx, locked.listing_id)}
    return market_rules.choose([locked], need, running, now_ms)


async def _say_why(tx: Tx, job: Job, why: market_rules.Shortfall, now_ms: int) -> None:
    job.match_ms = now_ms + rules.match_again_ms(now_ms - job.queued_ms, waiting=why.waiting)
    if now_ms - job.queued_ms < rules.SAY_WHY_MS:
        await job.save(using_db=tx, update_fields=["match_ms"])
        return
    reason = Reason.WAITING_FOR_PROVIDER if why.waiting else why.reason
    if (job.reason, job.detail) == (reason.value, why.detail):
        await job.save(using_db=tx, update_fields=["match_ms"])
        return
    job.reason, job.detail = reason.value, why.detail
    log.info("job.unassigned", extra={"job": str(job.id), "reason": job.reason, "detail": why.detail})
    await flow.save_job(tx, job, now_ms)


async def ranges_left(tx: Tx, job: Job) -> list[Range]:
    """Units that no paid link covers."""
    if job.units_accepted == 0:
        return [Range(0, job.units)]
    paid = await ChainLink.filter(job_no=job.no, paid=True).using_db(tx).only("start", "stop")
    return billing.uncovered(job.units, [Range(link.start, link.stop) for link in paid])


async def _write_attempt(desk: Desk, tx: Tx, job: Job, choice: market_rules.Choice, left: Sequence[Range]) -> None:
    now_ms, units = desk.now_ms(), billing.total(left)
    candidate, forecast = choice.candidate, choice.forecast
    inputs = await JobInput.filter(job_id=job.id).using_db(tx)
    job.fence += 1
    attempt = Attempt(
        id=uuid.uuid4(),
        job_id=job.id,
        job_no=job.no,
        fence=job.fence,
        listing_id=candidate.listing_id,
        peer_id=candidate.peer_id,
        device_id=candidate.device_id,
        model=candidate.model,
        backend=choice.backend,
        state=AttemptState.OFFERED.value,
        reason=Reason.NONE.value,
        detail="",
        rate_qu_per_h=candidate.rate_qu_per_h,
        offer_digest=candidate.offer_digest,
        ranges=[[one.start, one.stop] for one in left],
        units=units,
        chunk_units=billing.chunk_units(units, forecast.run_ms),
        forecast_ms=forecast.run_ms,
        time_limit_ms=rules.time_limit_ms(forecast.run_ms, sum(one.size_bytes for one in inputs)),
        head=digests.ZERO,
        created_ms=now_ms,
        sent_ms=now_ms,
        due_ms=now_ms + rules.ACCEPT_MS,
    )
    await attempt.save(using_db=tx, force_create=True)
    await flow.step_job(desk, tx, job, JobEvent.ASSIGN)
    await flow.tell(tx, attempt.peer_id, assign_of(job, attempt, inputs))
    log.info("job.assigned", extra={"job": str(job.id), "attempt": str(attempt.id), "peer": attempt.peer_id})


async def assign_message(tx: Tx, job: Job, attempt: Attempt) -> Assign:
    return assign_of(job, attempt, await JobInput.filter(job_id=job.id).using_db(tx))


def assign_of(job: Job, attempt: Attempt, inputs: Sequence[JobInput]) -> Assign:
    return Assign(
        job_id=str(job.id),
        attempt_id=str(attempt.id),
        fence=attempt.fence,
        device_id=attempt.device_id,
        backend=attempt.backend,
        kernel=job.kernel,
        kernel_version=job.kernel_version,
        params=job.params,
        inputs=tuple(input_ref(one) for one in sorted(inputs, key=lambda one: one.name)),
        units_total=job.units,
        ranges=tuple(Range(*pair) for pair in attempt.ranges),
        chunk_units=attempt.chunk_units,
        time_limit_ms=attempt.time_limit_ms,
        rate_qu_per_h=attempt.rate_qu_per_h,
        offer_digest=bytes(attempt.offer_digest),
    )


def input_ref(one: JobInput) -> InputRef:
    return InputRef(
        name=one.name,
        digest=bytes(one.digest),
        size_bytes=one.size_bytes,
        meta=msgspec.convert(one.meta, ArrayMeta),
    )
