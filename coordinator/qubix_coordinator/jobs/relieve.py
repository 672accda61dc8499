# SPDX-License-Identifier: Apache-2.0
"""Stops stragglers for whose rest somebody better is free (docs/adr/0011-a-job-in-several-hands.md).

The attempt ends without blame; its links are checked and paid, and the rest waits to be dealt out again.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from uuid import UUID

from qubix_coordinator.db.database import Tx, rows
from qubix_coordinator.jobs import billing, flow, needs, pace, shares
from qubix_coordinator.jobs.assign import hold_free_qu
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.rules import AttemptEvent
from qubix_coordinator.jobs.tables import Attempt, Job
from qubix_coordinator.ledger.rules import owed_qu
from qubix_coordinator.market import rules as market_rules
from qubix_coordinator.market.learned import Fits
from qubix_protocol.states import AttemptState, Reason

log = logging.getLogger(__name__)


async def suspects(tx: Tx, limit: int) -> list[UUID]:
    """Running attempts that are slower than agreed, of jobs that may be with others. The look under the job's lock is
    closer."""
    found = await rows(
        tx,
        "SELECT a.id FROM attempt a JOIN job j ON j.id = a.job_id WHERE a.state = 'running' AND j.closing IS NULL"
        " AND j.hands_max > 1 AND a.observed_ms >= $1"
        " AND a.observed_ms * a.units::numeric > $2 * a.forecast_ms * (a.units_done + a.chunk_units)::numeric"
        " ORDER BY a.created_ms LIMIT $3",
        pace.NOTICE_MS,
        int(pace.SLOW_TIMES),
        limit,
    )
    return [UUID(str(row["id"])) for row in found]


async def try_relieve(
    desk: Desk,
    tx: Tx,
    attempt_id: UUID,
    offers: Sequence[market_rules.Candidate],
    running: Mapping[UUID, int],
    fits: Fits,
) -> UUID | None:
    """The listing for whose sake the attempt was stopped; None when it goes on."""
    job, attempt = await flow.lock_attempt(tx, attempt_id)
    if attempt.state != AttemptState.RUNNING.value or job.closing is not None:
        return None
    known = await Attempt.filter(job_id=job.id).using_db(tx)
    if any(one.reason == Reason.RELIEVED.value and one.listing_id == attempt.listing_id for one in known):
        return None
    asked = await needs.of_job(tx, job, _hold_free_qu(job, known, attempt), desk.now_ms(), fits)
    found = await _paces(tx, job.id, asked.input_bytes)
    mine = found.pop(attempt.id)
    usually = pace.usual(found.values())
    if not pace.straggles(mine, usually):
        return None
    helper = _helper(job, attempt, known, asked, offers, running, desk.now_ms())
    if helper is None or not pace.pays(mine, helper.forecast.run_ms, usually, asked.input_bytes):
        return None
    detail = f"{mine.slowness:.1f} times its forecast after {attempt.units_done} of {attempt.units} units"
    await flow.end_attempt(desk, tx, job, attempt, AttemptEvent.STOP, Reason.RELIEVED, detail)
    await flow.tell(tx, attempt.peer_id, flow.cancel_of(attempt, Reason.RELIEVED))
    log.info("attempt.relieved", extra={"attempt": str(attempt.id), "job": str(job.id), "detail": detail})
    return helper.candidate.listing_id


def _hold_free_qu(job: Job, known: Sequence[Attempt], attempt: Attempt) -> int:
    """As it will be when the attempt can only bill what it has linked."""
    others = [one for one in known if one.state in flow.OPEN_STATES and one.id != attempt.id]
    linked_qu = billing.bill_max_qu(
        attempt.rate_qu_per_h,
        forecast_ms=attempt.forecast_ms,
        attempt_units=attempt.units,
        units=attempt.units_done,
    )
    return hold_free_qu(job, others) - linked_qu


def _helper(
    job: Job,
    attempt: Attempt,
    known: Sequence[Attempt],
    asked: needs.Asked,
    offers: Sequence[market_rules.Candidate],
    running: Mapping[UUID, int],
    now_ms: int,
) -> market_rules.Choice | None:
    """The fastest that is free, fits, has none of the job's work, and asks no more than the job would pay to spread."""
    rest = attempt.units - attempt.units_done
    need = asked.of(rest)
    refused = frozenset(one.peer_id for one in known if one.reason == Reason.BAD_INPUT.value)
    need = dataclasses.replace(need, excluded=need.excluded | refused)
    taken = {one.listing_id for one in known if one.state in flow.OPEN_STATES or one.reason == Reason.RELIEVED.value}
    able = market_rules.able([one for one in offers if one.listing_id not in taken], need, running, now_ms)
    fitting = [one for one in able if market_rules.misfit(one.candidate, need, (one.backend, one.forecast)) is None]
    if job.spread is None:
        agreed_qu = max(1, owed_qu(attempt.rate_qu_per_h, attempt.forecast_ms * rest // attempt.units))
        fitting = [one for one in fitting if shares.about(one.forecast.cost_qu, agreed_qu)]
    return min(fitting, key=lambda one: one.forecast.run_ms, default=None)


async def _paces(tx: Tx, job_id: UUID, input_bytes: int) -> dict[UUID, pace.Pace]:
    """Of every attempt of the job that ever ran, from its acceptance to its last word."""
    found = await rows(
        tx,
        "SELECT a.id, a.units, a.units_done, a.forecast_ms, a.chunk_units, a.observed_ms, l.first_ms, l.first_units,"
        " l.last_units FROM attempt a LEFT JOIN LATERAL (SELECT min(observed_ms) AS first_ms,"
        " (array_agg(stop - start ORDER BY index))[1] AS first_units,"
        " (array_agg(stop - start ORDER BY index DESC))[1] AS last_units FROM link WHERE attempt_id = a.id) l ON true"
        " WHERE a.job_id = $1 AND a.started_ms IS NOT NULL",
        job_id,
    )
    return {
        UUID(str(row["id"])): pace.pace(
            pace.Seen(
                units=row["units"],
                done=row["units_done"],
                forecast_ms=row["forecast_ms"],
                chunk_units=row["chunk_units"],
                observed_ms=row["observed_ms"],
                first_observed_ms=row["first_ms"],
                first_units=row["first_units"],
                last_units=row["last_units"],
            ),
            input_bytes,
        )
        for row in found
    }
