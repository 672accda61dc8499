# SPDX-License-Identifier: Apache-2.0
"""From units that wait to attempts that their nodes have been told of."""

import dataclasses
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec
from tortoise.expressions import Q

from qubix_coordinator.db.database import Tx, execute, rows, value
from qubix_coordinator.jobs import billing, flow, needs, receipt, rules, shares
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.rules import JobEvent
from qubix_coordinator.jobs.shares import Share
from qubix_coordinator.jobs.tables import Attempt, ChainLink, Job, JobInput
from qubix_coordinator.market import rules as market_rules
from qubix_coordinator.market import service as market
from qubix_coordinator.market.learned import Fits
from qubix_protocol import digests
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.messages import Assign, InputRef, Range
from qubix_protocol.states import AttemptState, JobState, Reason

log = logging.getLogger(__name__)
DEALING_LOCK = 0x6465616C
"""Any constant will do that nothing else locks."""
LOOK_AGAIN_MAX = 64
NOT_ANSWERING = market_rules.Shortfall(
    Reason.WAITING_FOR_PROVIDER, "the rented device does not answer now; its meter stands", waiting=True
)


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
    """Those with units in nobody's hands that may take another hand. Jobs in nobody's hands come first, in the order in
    which they came: each gets one before any gets another."""
    found = await rows(
        tx,
        "SELECT j.id FROM job j, LATERAL (SELECT count(*) AS hands FROM attempt a WHERE a.job_id = j.id"
        " AND a.state IN ('offered', 'running', 'verifying')) h"
        " WHERE j.units_waiting > 0 AND j.closing IS NULL AND j.match_ms <= $1 AND h.hands < j.hands_max"
        " AND j.rental_id IS NULL ORDER BY h.hands > 0, j.no LIMIT $2",
        now_ms,
        limit,
    )
    return [UUID(str(row["id"])) for row in found]


async def waiting_on_rentals(tx: Tx, now_ms: int, limit: int) -> list[UUID]:
    """The oldest job of each rental that has units in nobody's hands: they run one by one, in their order."""
    found = await rows(
        tx,
        "SELECT j.id FROM job j WHERE j.rental_id IS NOT NULL AND j.ended_ms IS NULL AND j.units_waiting > 0"
        " AND j.closing IS NULL AND j.match_ms <= $1 AND NOT EXISTS (SELECT FROM job older"
        " WHERE older.rental_id = j.rental_id AND older.no < j.no AND older.units_waiting > 0)"
        " ORDER BY j.no LIMIT $2",
        now_ms,
        limit,
    )
    return [UUID(str(row["id"])) for row in found]


async def _queued_beside(tx: Tx, job: Job, now_ms: int) -> int:
    """Other jobs in nobody's hands that would take a node now."""
    found = await value(
        tx,
        "SELECT count(*) FROM job j WHERE j.units_waiting > 0 AND j.closing IS NULL AND j.match_ms <= $1 AND j.id <> $2"
        " AND j.rental_id IS NULL"
        " AND NOT EXISTS (SELECT FROM attempt a WHERE a.job_id = j.id"
        " AND a.state IN ('offered', 'running', 'verifying'))",
        now_ms,
        job.id,
    )
    return int(found)


async def unexplained_jobs(tx: Tx, now_ms: int, limit: int) -> list[UUID]:
    """Those that have waited long enough to be told why, and were not told lately."""
    long_ago = {"queued_ms__lte": now_ms - rules.SAY_WHY_MS, "match_ms__lte": now_ms - rules.MATCH_AGAIN_MS_MAX}
    found = Job.filter(state=JobState.QUEUED.value, **long_ago).using_db(tx)
    return [job.id for job in await found.order_by("match_ms").limit(limit).only("id")]


async def look_again(tx: Tx, kernels: Sequence[str], now_ms: int) -> bool:
    """The jobs that have waited longest for one of these kernels are due at once; whether any waits for them."""
    await execute(
        tx,
        "UPDATE job SET match_ms = $1 WHERE id IN (SELECT id FROM job WHERE units_waiting > 0 AND closing IS NULL"
        " AND match_ms > $1 AND rental_id IS NULL AND kernel = ANY ($2::text[]) ORDER BY no LIMIT $3"
        " FOR UPDATE SKIP LOCKED)",
        now_ms,
        list(kernels),
        LOOK_AGAIN_MAX,
    )
    due = "SELECT EXISTS (SELECT FROM job WHERE units_waiting > 0 AND match_ms <= $1 AND kernel = ANY ($2::text[]))"
    return bool(await value(tx, due, now_ms, list(kernels)))


async def try_assign(
    desk: Desk, tx: Tx, job_id: UUID, offers: Sequence[market_rules.Candidate], fits: Fits
) -> list[UUID]:
    """The listings that got what was waiting of the job; none when nobody can take it now, or somebody else is deciding
    about it. `offers` and `fits` are those of the round."""
    job = await Job.filter(id=job_id).using_db(tx).select_for_update(skip_locked=True).first()
    if job is None or job.units_waiting == 0 or job.closing is not None:
        return []
    open_now = await flow.hands(tx, job.id)
    if len(open_now) >= job.hands_max:
        return []
    now_ms = desk.now_ms()
    if job.rental_id is not None:
        device = await _rented_device(tx, job.rental_id)
        if device is None:
            await _say_why(tx, job, NOT_ANSWERING, now_ms)
            return []
        offers = [device]
    left = await ranges_left(tx, job, open_now)
    asked = await needs.of_job(tx, job, hold_free_qu(job, open_now), now_ms, fits)
    busy = {attempt.listing_id for attempt in open_now}
    others = [one for one in offers if one.listing_id not in busy]
    hands, any_price = job.hands_max - len(open_now), job.spread is not None
    deal = _Deal(asked, billing.total(left), hands, any_price, now_ms, job.rental_id, desk.luck())
    found = await _confirmed(tx, deal, await _chosen(tx, job, deal, others))
    if isinstance(found, market_rules.Shortfall):
        await _say_why(tx, job, found, now_ms)
        return []
    await _write_attempts(desk, tx, job, found, left)
    return [share.choice.candidate.listing_id for share in found]


async def _rented_device(tx: Tx, rental_id: UUID) -> market_rules.Candidate | None:
    """None while its meter does not run: nothing begins there that nobody pays for."""
    active = await value(tx, "SELECT state = 'active' FROM rental WHERE id = $1", rental_id)
    return await market.rented_candidate(tx, rental_id) if active else None


async def _chosen(
    tx: Tx, job: Job, deal: "_Deal", offers: Sequence[market_rules.Candidate]
) -> list[Share] | market_rules.Shortfall:
    """Several hands only as far as every other job that waits for its first one can have it, too. Replicas that deal
    out to several count one after the other."""
    avoided, running = await _avoided(tx, job), await running_counts(tx)
    found = _choose(deal, offers, avoided, running)
    if isinstance(found, market_rules.Shortfall) or len(found) == 1:
        return found
    await execute(tx, "SELECT pg_advisory_xact_lock($1)", DEALING_LOCK)
    running = await running_counts(tx)
    free = market_rules.places_free(offers, running, deal.now_ms)
    fair = shares.hands_now(free, await _queued_beside(tx, job, deal.now_ms))
    return _choose(dataclasses.replace(deal, hands=min(deal.hands, fair)), offers, avoided, running)


async def _avoided(tx: Tx, job: Job) -> frozenset[str]:
    """Providers that refused the input or were relieved of a part: asked again only where nobody else can be."""
    if job.fence == 0:
        return frozenset()
    last = Attempt.filter(job_id=job.id, reason__in=[Reason.BAD_INPUT.value, Reason.RELIEVED.value]).using_db(tx)
    return frozenset([row.peer_id for row in await last.only("peer_id")])


def hold_free_qu(job: Job, open_now: Iterable[Attempt]) -> int:
    """What no open attempt may still cost. All of them together never cost more than the hold (trust.md M2)."""
    return job.hold_spare_qu - sum(_may_cost_qu(attempt) for attempt in open_now)


def _may_cost_qu(attempt: Attempt) -> int:
    """By all its units while it may still link them, by what it linked afterwards."""
    units = attempt.units_done if attempt.state == AttemptState.VERIFYING.value else attempt.units
    return billing.bill_max_qu(
        attempt.rate_qu_per_h, forecast_ms=attempt.forecast_ms, attempt_units=attempt.units, units=units
    )


@dataclass(frozen=True, slots=True)
class _Deal:
    """What is to be dealt out, and among how many."""

    asked: needs.Asked
    units: int
    hands: int
    any_price: bool
    now_ms: int
    rental_id: UUID | None = None
    luck: float = 0.5

    def among(
        self, offers: Sequence[market_rules.Candidate], running: Mapping[UUID, int], avoided: frozenset[str]
    ) -> "list[Share] | market_rules.Shortfall":
        def need_of(units: int) -> market_rules.Need:
            need = self.asked.of(units)
            return dataclasses.replace(need, excluded=need.excluded | avoided)

        several = shares.divide(
            offers,
            need_of,
            self.units,
            hands=self.hands,
            worth_ms=shares.worth_ms(self.asked.input_bytes),
            any_price=self.any_price,
            running=running,
            now_ms=self.now_ms,
        )
        if several:
            return several
        one = market_rules.choose(offers, need_of(self.units), running, self.now_ms, self.luck)
        return [Share(one, self.units)] if isinstance(one, market_rules.Choice) else one


def _choose(
    deal: _Deal, offers: Sequence[market_rules.Candidate], avoided: frozenset[str], running: Mapping[UUID, int]
) -> list[Share] | market_rules.Shortfall:
    if avoided:
        found = deal.among(offers, running, avoided)
        if isinstance(found, list):
            return found
    return deal.among(offers, running, frozenset())


async def _confirmed(
    tx: Tx, deal: _Deal, chosen: list[Share] | market_rules.Shortfall
) -> list[Share] | market_rules.Shortfall:
    """The choice again among the chosen, now that their listings are locked and their occupancy cannot change. While
    somebody else holds one of them, if only to note its metrics, nothing is dealt out: it would go to fewer hands."""
    if isinstance(chosen, market_rules.Shortfall):
        return chosen
    found = [await market.lock(tx, one.choice.candidate.listing_id, rental_id=deal.rental_id) for one in chosen]
    locked = [one for one in found if one is not None]
    if len(locked) < len(chosen):
        return market_rules.shortfall({market_rules.Obstacle.BUSY: 1})
    running = {one.listing_id: await running_on(tx, one.listing_id) for one in locked}
    return deal.among(locked, running, frozenset())


async def _say_why(tx: Tx, job: Job, why: market_rules.Shortfall, now_ms: int) -> None:
    """A job in somebody's hands is under way: it only looks again later."""
    waited_ms = now_ms - job.queued_ms if job.state == JobState.QUEUED.value else 0
    job.match_ms = now_ms + rules.match_again_ms(waited_ms, waiting=why.waiting)
    if waited_ms < rules.SAY_WHY_MS:
        await job.save(using_db=tx, update_fields=["match_ms"])
        return
    reason = Reason.WAITING_FOR_PROVIDER if why.waiting else why.reason
    if (job.reason, job.detail) == (reason.value, why.detail):
        await job.save(using_db=tx, update_fields=["match_ms"])
        return
    job.reason, job.detail = reason.value, why.detail
    log.info("job.unassigned", extra={"job": str(job.id), "reason": job.reason, "detail": why.detail})
    await flow.save_job(tx, job, now_ms)


async def ranges_left(tx: Tx, job: Job, open_now: Iterable[Attempt]) -> list[Range]:
    """Units that neither a paid or owed link covers nor an open attempt has."""
    taken = [Range(*pair) for attempt in open_now for pair in attempt.ranges]
    if job.units_accepted:
        made = await ChainLink.filter(Q(paid=True) | Q(owed=True), job_no=job.no).using_db(tx).only("start", "stop")
        taken += [Range(link.start, link.stop) for link in made]
    if job.only_units is not None:
        taken += billing.uncovered(job.units_whole, [Range(*pair) for pair in job.only_units])
    return billing.uncovered(job.units_whole or job.units, taken)


async def _write_attempts(desk: Desk, tx: Tx, job: Job, found: Sequence[Share], left: Sequence[Range]) -> None:
    inputs = await JobInput.filter(job_id=job.id).using_db(tx)
    made = []
    for share, ranges in zip(found, billing.cut(left, [share.units for share in found]), strict=True):
        job.fence += 1
        attempt = _attempt_of(job, share, ranges, inputs, desk.now_ms())
        attempt.fee_bps = desk.settings.fee_bps
        await attempt.save(using_db=tx, force_create=True)
        await receipt.assigned(desk, tx, attempt)
        made.append(attempt)
    await flow.step_job(desk, tx, job, JobEvent.ASSIGN)
    for attempt in made:
        await flow.tell(tx, attempt.peer_id, assign_of(job, attempt, inputs))
        log.info("job.assigned", extra={"job": str(job.id), "attempt": str(attempt.id), "peer": attempt.peer_id})


def _attempt_of(job: Job, share: Share, ranges: Sequence[Range], inputs: Sequence[JobInput], now_ms: int) -> Attempt:
    candidate, forecast = share.choice.candidate, share.choice.forecast
    return Attempt(
        id=uuid.uuid4(),
        job_id=job.id,
        job_no=job.no,
        fence=job.fence,
        listing_id=candidate.listing_id,
        rental_id=job.rental_id,
        peer_id=candidate.peer_id,
        device_id=candidate.device_id,
        model=candidate.model,
        backend=share.choice.backend,
        state=AttemptState.OFFERED.value,
        reason=Reason.NONE.value,
        detail="",
        rate_qu_per_h=candidate.rate_qu_per_h if job.rental_id is None else 0,
        offer_digest=candidate.offer_digest,
        ranges=[[one.start, one.stop] for one in ranges],
        units=share.units,
        chunk_units=billing.chunk_units(share.units, forecast.run_ms),
        forecast_ms=forecast.agreed_ms,
        rated_ms=forecast.rated_ms,
        around_ms=forecast.around_plain_ms,
        pace=forecast.pace,
        usual_ms=forecast.usual_ms,
        usual_around_ms=forecast.usual_around_ms,
        time_limit_ms=rules.time_limit_ms(forecast.agreed_ms, sum(one.size_bytes for one in inputs)),
        head=digests.ZERO,
        created_ms=now_ms,
        sent_ms=now_ms,
        due_ms=now_ms + rules.ACCEPT_MS,
    )


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
        units_total=job.units_whole or job.units,
        ranges=tuple(Range(*pair) for pair in attempt.ranges),
        chunk_units=attempt.chunk_units,
        time_limit_ms=attempt.time_limit_ms,
        rate_qu_per_h=attempt.rate_qu_per_h,
        offer_digest=bytes(attempt.offer_digest),
        rental=str(attempt.rental_id) if attempt.rental_id is not None else None,
    )


def input_ref(one: JobInput) -> InputRef:
    return InputRef(
        name=one.name,
        digest=bytes(one.digest),
        size_bytes=one.size_bytes,
        meta=msgspec.convert(one.meta, ArrayMeta),
    )
