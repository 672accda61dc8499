# SPDX-License-Identifier: Apache-2.0
"""A node whose connection broke is noticed before its lease ends, and one that says that it goes sooner still; one that
speaks again, or moved, loses nothing."""

import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database
from qubix_coordinator.jobs import service as jobs
from qubix_protocol.states import AttemptState, JobState, Reason
from tests.db.jobs_world import Node, World

RETURN_S = 4.0
"""The setting's default, which the world has; its lease is 10 s."""
LEAVE_S = 3.0
"""Whole seconds, in which the engine has looked after that setting's default."""
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


async def test_a_node_that_says_that_it_goes_hands_its_job_on_and_its_record_says_so(db: Database) -> None:
    world, node, job_id, session = await at_work(db)
    await jobs.on_leaving(world.desk, node.peer, session)
    await jobs.on_gone(world.desk, node.peer, session)
    await world.pass_time(LEAVE_S - 1)
    assert (await world.job(job_id)).state is JobState.RUNNING
    await world.pass_time(1.0)
    assert (await world.job(job_id)).attempts[0].reason is Reason.LEFT
    await world.check()
    job = await world.job(job_id)
    assert (job.units_accepted, job.attempts[0].state) == (25, AttemptState.ACCEPTED)
    assert await node.earned_qu() == job.paid_qu > 0
    (row,) = await db.fetch("SELECT bad_attempts FROM job")
    assert row["bad_attempts"] == 0
    assert len(await db.fetch("SELECT what FROM work_outcome WHERE what = 'failed'")) == 1
    await world.check_money()


async def test_who_says_that_it_goes_and_is_back_goes_on_and_is_silent_when_it_falls_silent(db: Database) -> None:
    world, node, job_id, session = await at_work(db)
    await jobs.on_leaving(world.desk, node.peer, session)
    await world.pass_time(LEAVE_S - 1)
    await db.run(lambda tx: accounts.next_incarnation(tx, node.peer))
    await node.beat()
    # The word of the session before comes again, or late: it is of the past.
    await jobs.on_leaving(world.desk, node.peer, session)
    await world.pass_time(9.0)
    assert (await world.job(job_id)).state is JobState.RUNNING
    await world.pass_time(1.0)
    assert (await node.attempt()).reason == Reason.SILENT


async def test_what_was_only_offered_to_a_node_that_goes_is_offered_to_another(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    job_id = (await world.assigned()).job_id
    session = await db.run(lambda tx: accounts.next_incarnation(tx, node.peer))
    await jobs.on_leaving(world.desk, node.peer, session)
    await world.pass_time(LEAVE_S)
    attempt = (await world.job(job_id)).attempts[0]
    assert (attempt.state, attempt.reason) == (AttemptState.EMPTY, Reason.LEFT)


async def test_a_node_s_word_is_about_its_own_attempts(db: Database) -> None:
    world, node, job_id, _ = await at_work(db)
    other = await world.node()
    session = await db.run(lambda tx: accounts.next_incarnation(tx, other.peer))
    await jobs.on_leaving(world.desk, other.peer, session)
    await world.pass_time(LEAVE_S + 1)
    assert (await world.job(job_id)).state is JobState.RUNNING
    assert (await node.attempt()).leaving is False
