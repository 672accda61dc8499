# SPDX-License-Identifier: Apache-2.0
"""Input that a kernel cannot compute with: the consumer's mistake, and nobody else's trouble."""

import pytest

from qubix_coordinator.db.database import Database
from qubix_protocol.messages import Failure
from qubix_protocol.states import JobState, Outcome, Reason
from tests.db.jobs_world import CAP, World

REFUSED = Failure(code="bad_input", detail="a contains NaN")


@pytest.mark.asyncio
async def test_input_that_cannot_be_computed_with_gets_a_second_opinion_and_ends_the_job(db: Database) -> None:
    world = await World(db).open()
    cheap, dear = await world.node(), await world.node(rate_qu_per_h=4_000_000)
    view = await world.assigned()
    for node in (cheap, dear):
        await node.accept()
        await node.report(Outcome.FAILED, failure=REFUSED)
        await world.pass_time(1.0)
    ended = await world.job(view.job_id)
    assert (ended.state, ended.reason, ended.detail) == (JobState.FAILED, Reason.BAD_INPUT, "a contains NaN")
    assert [one.provider for one in ended.attempts] == [cheap.peer, dear.peer]
    assert ended.returned_qu == CAP


@pytest.mark.asyncio
async def test_one_consumers_bad_input_takes_no_provider_from_the_next(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    for _ in range(2):
        await node.accept()
        await node.report(Outcome.FAILED, failure=REFUSED)
        await world.pass_time(1.0)
    assert (await world.job(view.job_id)).reason is Reason.BAD_INPUT
    following = await world.assigned()
    assert (await world.job(following.job_id)).state is JobState.ASSIGNED
