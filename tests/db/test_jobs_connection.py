# SPDX-License-Identifier: Apache-2.0
"""A node whose connection broke is noticed before its lease ends; one that speaks again, or moved, loses nothing."""

import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database
from qubix_coordinator.jobs import service as jobs
from qubix_protocol.states import AttemptState, JobState, Reason
from tests.db.jobs_world import Node, World

RETURN_S = 4.0
"""The setting's default, which the world has; its lease is 10 s."""
pytestmark = pytest.mark.asyncio


async def at_work(db: Database) -> tuple[World, Node, str, int]:
    """One chunk is here; the session is the node's newest."""
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    await node.accept()
    await node.work(0, 25)
    session = await db.run(lambda tx: accounts.next_incarnation(tx, node.peer))
    return world, node, view.job_id, session


async def test_a_node_that_stays_away_loses_its_attempt_and_is_paid_for_what_it_did(db: Database) -> None:
    world, node, job_id, session = await at_work(db)
    await jobs.on_gone(world.desk, node.peer, session)
    await world.pass_time(RETURN_S - 1)
    assert (await world.job(job_id)).state is JobState.RUNNING
    await world.pass_time(1.0)
    assert (await node.attempt()).reason == Reason.SILENT
    await world.check()
    job = await world.job(job_id)
    assert (job.units_accepted, job.attempts[0].state) == (25, AttemptState.ACCEPTED)
    assert await node.earned_qu() == job.paid_qu > 0
    await world.check_money()


async def test_a_node_that_speaks_again_has_its_whole_lease(db: Database) -> None:
    world, node, job_id, session = await at_work(db)
    await jobs.on_gone(world.desk, node.peer, session)
    await world.pass_time(RETURN_S - 1)
    await node.beat()
    await world.pass_time(RETURN_S + 1)
    assert (await world.job(job_id)).state is JobState.RUNNING


async def test_an_old_session_s_end_is_nothing_to_a_node_that_has_moved(db: Database) -> None:
    world, node, job_id, session = await at_work(db)
    await db.run(lambda tx: accounts.next_incarnation(tx, node.peer))
    await jobs.on_gone(world.desk, node.peer, session)
    await world.pass_time(RETURN_S + 1)
    assert (await world.job(job_id)).state is JobState.RUNNING


async def test_a_lease_that_ends_sooner_is_not_made_longer(db: Database) -> None:
    world, node, _, session = await at_work(db)
    await world.pass_time(8.0)
    await jobs.on_gone(world.desk, node.peer, session)
    await world.pass_time(2.0)
    assert (await node.attempt()).reason == Reason.SILENT
