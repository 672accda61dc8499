# SPDX-License-Identifier: Apache-2.0
"""The jobs' front door: what the HTTP API, the mesh link and the artifact routes call.

The bodies live beside it: submit, read, nodes, access. The engine is `jobs.engine.Engine(desk)`.
"""

from collections.abc import Collection
from uuid import UUID

from qubix_coordinator.accounts.rules import Principal
from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import Conflict
from qubix_coordinator.jobs import accept as acceptance
from qubix_coordinator.jobs import assign, flow, read, views
from qubix_coordinator.jobs.access import may_access
from qubix_coordinator.jobs.connection import on_gone, on_leaving
from qubix_coordinator.jobs.course import course
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.due import settle_due
from qubix_coordinator.jobs.estimates import estimate
from qubix_coordinator.jobs.nodes import on_accept, on_decline, on_heartbeat, on_hello, on_progress, on_report
from qubix_coordinator.jobs.read import get, list_jobs, receipt, receipts, result
from qubix_coordinator.jobs.retold import on_settlements_ask
from qubix_coordinator.jobs.rules import JobEvent, Verb
from qubix_coordinator.jobs.submit import Berth, submit
from qubix_coordinator.jobs.tables import Job
from qubix_protocol.api import JobView
from qubix_protocol.states import JobState

__all__ = [
    "Berth",
    "Desk",
    "accept",
    "cancel",
    "course",
    "end_on_rental",
    "estimate",
    "get",
    "list_jobs",
    "may_access",
    "offers_changed",
    "on_accept",
    "on_decline",
    "on_gone",
    "on_heartbeat",
    "on_hello",
    "on_leaving",
    "on_progress",
    "on_report",
    "on_settlements_ask",
    "open_on_rental",
    "receipt",
    "receipts",
    "result",
    "settle_due",
    "submit",
]


async def open_on_rental(tx: Tx, rental_id: UUID) -> int:
    return await Job.filter(rental_id=rental_id, ended_ms__isnull=True).using_db(tx).count()


async def end_on_rental(desk: Desk, tx: Tx, rental_id: UUID) -> None:
    """The rental is over: what runs there is stopped, what was made is still checked and stays readable."""
    found = Job.filter(rental_id=rental_id, ended_ms__isnull=True).using_db(tx).order_by("no")
    for row in await found.only("id"):
        await flow.step_job(desk, tx, await flow.lock_job(tx, row.id), JobEvent.RENTAL_OVER)


async def cancel(desk: Desk, principal: Principal, job_id: str) -> JobView:
    """Stops the job; chunks that are here already are checked and paid, the rest is returned.

    Cancelling twice is fine. Raises NotFound, or Conflict when a complete result is here already or the job is over.
    """

    async def step(tx: Tx) -> JobView:
        job = await flow.lock_job(tx, (await read.own_job(tx, principal, job_id)).id)
        decision = await flow.step_job(desk, tx, job, JobEvent.CANCEL)
        if decision.verb is Verb.REFUSE:
            raise _too_late(job.state)
        return await views.of_job(tx, job, desk.now_ms())

    view = await desk.db.run(step)
    desk.wake.set()
    return view


async def accept(desk: Desk, principal: Principal, job_id: str) -> JobView:
    """The consumer's word that what was delivered is right: it is paid at once. Accepting twice is fine.

    Raises NotFound, or Conflict: nothing is delivered, it is disputed, or the kernel has a verifier, whose verdict
    needs nobody's word (trust.md M6).
    """

    async def step(tx: Tx) -> JobView:
        job = await flow.lock_job(tx, (await read.own_job(tx, principal, job_id)).id)
        if job.settles_by_check:
            raise Conflict(
                f"results of {job.kernel} are checked: nothing waits for your word",
                field="job_id",
                remedy="Nothing is to be done; the verdict settles the job",
            )
        decision = await acceptance.close(desk, tx, job, JobEvent.ACCEPT)
        if decision.verb is Verb.REFUSE:
            raise Conflict(
                f"the job is {job.state}: there is nothing to accept",
                field="job_id",
                remedy="Withdraw the dispute, or wait for its decision"
                if job.state == JobState.DISPUTED.value
                else "Wait until the result is delivered",
            )
        return await views.of_job(tx, job, desk.now_ms())

    view = await desk.db.run(step)
    desk.wake.set()
    return view


def _too_late(state: str) -> Conflict:
    if state in (JobState.DELIVERED.value, JobState.DISPUTED.value):
        return Conflict(
            f"the job is {state}: its result is here, readable and owed for",
            field="job_id",
            remedy="Accept it, or dispute it before the acceptance window ends",
        )
    if state == "verifying":
        return Conflict(
            "the result is here and being checked", field="job_id", remedy="Wait for the check; it takes a moment"
        )
    return Conflict(f"the job is {state} already", field="job_id", remedy="Nothing is left to cancel")


async def offers_changed(desk: Desk, kernels: Collection[str]) -> None:
    """A device that runs these came, came back or changed: whoever waits for one is looked at now, and not when it is
    their turn again."""
    now_ms = desk.now_ms()
    if await desk.db.run(lambda tx: assign.look_again(tx, sorted(set(kernels)), now_ms)):
        desk.wake.set()
