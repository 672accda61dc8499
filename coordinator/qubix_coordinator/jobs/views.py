# SPDX-License-Identifier: Apache-2.0
"""Rows as the API shows them."""

from collections.abc import Iterable, Sequence

import msgspec

from qubix_coordinator.db.database import Tx
from qubix_coordinator.jobs.tables import Attempt, Job, JobInput
from qubix_protocol.api import AttemptView, JobView
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.states import REASON_TEXT, AttemptState, JobState, Reason

ATTEMPTS_SHOWN_MAX = 50
LIVE_STATES = (AttemptState.OFFERED.value, AttemptState.RUNNING.value)
FRACTION_TOLD_MIN = 1e-6
"""A node's word of less is no pace to go by: the finish it implies may not even be a number."""


async def of_job(tx: Tx, job: Job, now_ms: int) -> JobView:
    inputs = await JobInput.filter(job_id=job.id).using_db(tx)
    attempts = await Attempt.filter(job_id=job.id).using_db(tx).order_by("-fence").limit(ATTEMPTS_SHOWN_MAX)
    return job_view(job, inputs, attempts[::-1], now_ms)


def job_view(job: Job, inputs: Iterable[JobInput], attempts: Sequence[Attempt], now_ms: int) -> JobView:
    reason = Reason(job.reason)
    return JobView(
        job_id=str(job.id),
        state=JobState(job.state),
        reason=reason,
        reason_text=REASON_TEXT[reason],
        detail=job.detail,
        kernel=job.kernel,
        params=job.params,
        inputs={one.name: msgspec.convert(one.meta, ArrayMeta) for one in inputs},
        created_ms=job.created_ms,
        ended_ms=job.ended_ms,
        deadline_ms=job.deadline_ms,
        cap_qu=job.cap_qu,
        held_qu=job.hold_left_qu,
        paid_qu=job.paid_qu,
        fee_qu=job.fee_qu,
        returned_qu=job.returned_qu,
        owed_qu=job.owed_qu,
        accept_until_ms=job.due_ms,
        units=job.units,
        units_accepted=job.units_accepted,
        fraction=job.fraction,
        expected_finish_ms=expected_finish_ms(job, attempts, now_ms),
        spread=job.hands_max,
        attempts=tuple(attempt_view(one) for one in attempts),
        revision=job.revision,
        rental=str(job.rental_id) if job.rental_id is not None else None,
        where=job.wanted or None,
    )


def expected_finish_ms(job: Job, attempts: Iterable[Attempt], now_ms: int) -> int | None:
    """When the last of those that work on it will be done; None while nobody does, or while a part of it is in nobody's
    hands: what is left would be told too small."""
    if job.state not in (JobState.ASSIGNED.value, JobState.RUNNING.value) or job.units_waiting:
        return None
    return max((_expected_ms(attempt, now_ms) for attempt in attempts if attempt.state in LIVE_STATES), default=None)


def _expected_ms(attempt: Attempt, now_ms: int) -> int:
    started_ms: int = attempt.started_ms or now_ms
    return expected_ms(attempt.forecast_ms, attempt.fraction, started_ms, now_ms)


def expected_ms(forecast_ms: int, fraction: float, started_ms: int, now_ms: int) -> int:
    """By the forecast at first, more and more by the attempt's own pace as it gets on: a slow start alone, while inputs
    are fetched, says little of when it will end."""
    if fraction < FRACTION_TOLD_MIN:
        return max(now_ms, started_ms + forecast_ms)
    left = 1 - min(fraction, 1.0)
    return now_ms + round(left * (left * forecast_ms + max(0, now_ms - started_ms)))


def attempt_view(attempt: Attempt) -> AttemptView:
    return AttemptView(
        attempt_id=str(attempt.id),
        fence=attempt.fence,
        provider=attempt.peer_id,
        model=attempt.model,
        backend=attempt.backend,
        state=AttemptState(attempt.state),
        reason=Reason(attempt.reason),
        detail=attempt.detail,
        rate_qu_per_h=attempt.rate_qu_per_h,
        units=attempt.units,
        units_done=attempt.units_done,
        units_accepted=attempt.units_accepted,
        run_ms=attempt.claimed_ms,
        billed_ms=attempt.billed_ms,
        check_ms=attempt.check_ms,
        verdict=attempt.verdict,
        paid_qu=attempt.paid_qu,
        fee_qu=attempt.fee_qu,
        owed_qu=attempt.owed_qu,
        started_ms=attempt.started_ms,
        ended_ms=attempt.ended_ms,
        receipt=attempt.settlement_raw is not None,
        listing_id=str(attempt.listing_id),
    )
