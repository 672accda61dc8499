# SPDX-License-Identifier: Apache-2.0
"""What happened to a job, in order, and what each check of it said: the rows of its tables as lines for its owner."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from qubix_coordinator.accounts.rules import Principal
from qubix_coordinator.db.database import Tx
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.read import own_job
from qubix_coordinator.jobs.tables import Attempt, ChainLink, Job, Verdict
from qubix_protocol.api import CheckView, CourseLine, JobCourseView
from qubix_protocol.states import REASON_TEXT, JobState, Reason

ATTEMPTS_MAX: Final = 50
LINKS_MAX: Final = 400
"""Shown; of more, the newest."""


async def course(desk: Desk, principal: Principal, job_id: str) -> JobCourseView:
    """Raises NotFound, also for another account's job."""

    async def step(tx: Tx) -> JobCourseView:
        job = await own_job(tx, principal, job_id)
        attempts = await Attempt.filter(job_id=job.id).using_db(tx).order_by("-fence").limit(ATTEMPTS_MAX)
        ids = [one.id for one in attempts]
        links = await ChainLink.filter(attempt_id__in=ids).using_db(tx).order_by("-heard_ms").limit(LINKS_MAX)
        verdicts = await Verdict.filter(attempt_id__in=ids).using_db(tx)
        return JobCourseView(
            job_id=str(job.id),
            lines=tuple(lines(job, attempts, links, verdicts)),
            checks=tuple(checks(job, attempts, verdicts)),
        )

    return await desk.db.run(step)


def lines(
    job: Job, attempts: Sequence[Attempt], links: Iterable[ChainLink], verdicts: Iterable[Verdict]
) -> list[CourseLine]:
    """Oldest first; what happened in one millisecond stands in the order in which it can only have happened."""
    fences = {one.id: one.fence for one in attempts}
    found = [_line(job.created_ms, None, "submitted", f"{job.cap_qu:,} QU are held for {job.units:,} units")]
    for attempt in sorted(attempts, key=lambda one: one.fence):
        found += _of_attempt(attempt)
    for link in sorted(links, key=lambda one: (one.heard_ms, one.index)):
        took = f"units {link.start:,} to {link.stop:,}, {link.claimed_ms:,} ms by its own clock"
        found.append(_line(link.heard_ms, fences[link.attempt_id], "checkpoint", took))
    for verdict in verdicts:
        found.append(_line(verdict.recorded_ms, fences[verdict.attempt_id], "checked", _said(verdict)))
    if job.ended_ms is not None:
        found.append(_line(job.ended_ms, None, job.state, job.detail or REASON_TEXT[Reason(job.reason)]))
    elif job.state == JobState.DELIVERED.value and job.due_ms is not None:
        found.append(_line(max(one.at_ms for one in found), None, job.state, REASON_TEXT[Reason(job.reason)]))
    return sorted(found, key=lambda one: one.at_ms)


def _of_attempt(attempt: Attempt) -> list[CourseLine]:
    where = f"{attempt.model} ({attempt.backend}) at {attempt.rate_qu_per_h:,} QU/h, {attempt.units:,} units"
    found = [_line(attempt.created_ms, attempt.fence, "assigned", where)]
    if attempt.started_ms is not None:
        found.append(_line(attempt.started_ms, attempt.fence, "accepted", "the provider has taken it"))
    if attempt.ended_ms is not None:
        text = attempt.detail or REASON_TEXT[Reason(attempt.reason)]
        found.append(_line(attempt.ended_ms, attempt.fence, "ended", text))
    return found


def _said(verdict: Verdict) -> str:
    words = verdict.reason or ("accepted" if verdict.accepted else "refused")
    return f"{words}: {verdict.detail}" if verdict.detail else words


def _line(at_ms: int, attempt: int | None, what: str, text: str) -> CourseLine:
    return CourseLine(at_ms=at_ms, attempt=attempt, what=what, text=text)


def checks(job: Job, attempts: Iterable[Attempt], verdicts: Iterable[Verdict]) -> list[CheckView]:
    by_id: dict[UUID, Attempt] = {one.id: one for one in attempts}
    found = [_check(job, by_id[one.attempt_id], one) for one in verdicts]
    return sorted(found, key=lambda one: one.attempt)


def _check(job: Job, attempt: Attempt, verdict: Verdict) -> CheckView:
    return CheckView(
        attempt=attempt.fence,
        carried_out=verdict.carried_out,
        form_only=not job.has_verifier,
        accepted=verdict.accepted,
        reason=verdict.reason,
        detail=verdict.detail,
        parts=len(verdict.parts),
        parts_good=Counter(verdict.parts)[True],
        check_ms=verdict.check_ms,
        at_ms=verdict.recorded_ms,
        randomness=bytes(verdict.seed).hex(),
    )
