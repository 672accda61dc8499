# SPDX-License-Identifier: Apache-2.0
"""Anybody may have done what is due for a job; it tells them its state and when more will be due, nothing else."""

from uuid import UUID

from qubix_coordinator.disputes import service as disputes
from qubix_coordinator.http.context import Context
from qubix_coordinator.jobs import read
from qubix_coordinator.jobs import service as jobs
from qubix_protocol.api import SettleView
from qubix_protocol.states import DONE_JOB_STATES


async def settle(context: Context, job_id: UUID) -> SettleView:
    """Raises NotFound."""
    before = await context.db.run(lambda tx: read.state_of(tx, job_id))
    due = [await jobs.settle_due(context.desk, job_id), await disputes.settle_due(context.desk, job_id)]
    due_ms = min((one for one in due if one is not None), default=None)
    state = await context.db.run(lambda tx: read.state_of(tx, job_id))
    if state is not before:
        said = f"the job was {before}; what was due is done"
    elif due_ms is None:
        said = "nothing is left to settle" if state in DONE_JOB_STATES else "nothing is due"
    else:
        said = f"the next thing is due in {max(0, due_ms - context.now_ms()) / 1000:.0f} s"
    return SettleView(job_id=str(job_id), state=state, due_ms=due_ms, said=said)
