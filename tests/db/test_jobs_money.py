# SPDX-License-Identifier: Apache-2.0
"""Random histories through the real service: the money adds up and progress never falls (P7, P8, P13).

And what the database itself refuses, whoever writes to it.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tortoise.exceptions import IntegrityError

from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.errors import Refused
from qubix_coordinator.jobs.rules import ATTEMPTS_BAD_MAX
from qubix_coordinator.ledger.audit import audit
from qubix_protocol.states import FINAL_JOB_STATES, Outcome
from tests.db.jobs_world import CAP, UNITS, CannotNow, Node, World
from tests.support_pg import PgServer, connected

EVENTS = (
    "accept",
    "beat",
    "link",
    "link",
    "report",
    "fail",
    "decline",
    "good",
    "bad",
    "unchecked",
    "wait",
    "long_wait",
    "cancel",
    "twin",
)


async def play(world: World, nodes: list[Node], job_id: str, script: list[tuple[str, int]]) -> None:
    """Each step is what a node, a verifier, the consumer or time does; refusals are part of the game."""
    fraction = 0.0
    for word, number in script:
        node = await current(world, nodes, job_id)
        with contextlib.suppress(Refused, CannotNow):
            await steps(world, node, job_id, number)[word]()
        await world.engine.tick()
        await world.check_money()
        job = await world.job(job_id)
        assert fraction <= job.fraction <= 1.0
        assert job.units_accepted <= UNITS
        fraction = job.fraction


async def current(world: World, nodes: list[Node], job_id: str) -> Node:
    attempts = (await world.job(job_id)).attempts
    return next((n for n in nodes if attempts and n.peer == attempts[-1].provider), nodes[0])


def steps(world: World, node: Node, job_id: str, number: int) -> dict[str, Callable[[], Awaitable[Any]]]:
    async def link() -> None:
        attempt = await node.attempt()
        ranges = attempt.ranges
        start = ranges[0][0] + attempt.units_done
        await node.work(start, min(ranges[0][1], start + 5 + number * 10), 500 * number, took_s=0.3 * number)

    async def twin() -> None:
        if not node.links:
            raise CannotNow
        await node.send(node.links[number % len(node.links)])

    async def bad() -> None:
        attempt = await node.attempt()
        await world.check([index < number for index in range(attempt.links)])

    return {
        "accept": node.accept,
        "beat": lambda: node.beat(number / 10),
        "link": link,
        "report": node.report,
        "fail": lambda: node.report(Outcome.FAILED),
        "decline": node.decline,
        "good": world.check,
        "bad": bad,
        "unchecked": lambda: world.check(carried_out=False),
        "wait": lambda: world.pass_time(number),
        "long_wait": lambda: world.pass_time(4.0 * number, step_s=4.0),
        "cancel": lambda: world.cancel(job_id),
        "twin": twin,
    }


SCRIPTS = st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 5)), min_size=5, max_size=25)
CAPS = st.sampled_from([CAP, 12_500, 13_000])
QUIET = [HealthCheck.function_scoped_fixture]


def tell(pg_server: PgServer, script: list[tuple[str, int]], cap: int) -> None:
    async def history() -> None:
        async with connected(pg_server) as db:
            world = await World(db).open()
            nodes = [await world.node(), await world.node(rate_qu_per_h=1_800_000)]
            view = await world.assigned(cap_qu=cap, deadline_s=300)
            await play(world, nodes, view.job_id, [("accept", 0), ("link", 1), *script])
            # Nobody says anything more: the job's deadline and the check's end it (M5).
            await world.pass_time(900.0, step_s=60.0)
            job = await world.job(view.job_id)
            assert job.state in FINAL_JOB_STATES
            assert job.paid_qu + job.fee_qu + job.returned_qu == cap
            assert sum(one.paid_qu for one in job.attempts) == job.paid_qu
            assert sum(one.units_accepted for one in job.attempts) == job.units_accepted
            paid = await db.fetch("SELECT start, stop FROM link WHERE paid ORDER BY start")
            assert sum(one["stop"] - one["start"] for one in paid) == job.units_accepted
            assert all(a["stop"] <= b["start"] for a, b in itertools.pairwise(paid))
            assert (await db.run(audit)).clean
            await world.check_money()

    asyncio.run(history())


@settings(max_examples=6, deadline=None, suppress_health_check=QUIET)
@given(script=SCRIPTS, cap=CAPS)
def test_the_money_adds_up_whatever_happens(pg_server: PgServer, script: list[tuple[str, int]], cap: int) -> None:
    tell(pg_server, script, cap)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=QUIET)
@given(script=SCRIPTS, cap=CAPS)
def test_the_money_adds_up_whatever_happens_often(pg_server: PgServer, script: list[tuple[str, int]], cap: int) -> None:
    tell(pg_server, script, cap)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE job SET paid_qu = cap_qu + 1",
        "UPDATE job SET state = 'settled', ended_ms = 1",
        "UPDATE job SET ended_ms = 1",
        "UPDATE job SET state = 'nosuch'",
        "UPDATE job SET fraction = 1.1",
        "UPDATE job SET units_accepted = units + 1",
        "UPDATE attempt SET paid_qu = 5, units_accepted = 0",
        "UPDATE attempt SET due_ms = NULL",
        "UPDATE link SET paid = true",
        "UPDATE link SET stop = start",
        "INSERT INTO verdict (attempt_id, carried_out, accepted, reason, detail, parts, seed, check_ms, verifier,"
        " recorded_ms) SELECT id, false, true, '', '', '{}', '', 0, '', 0 FROM attempt",
        "INSERT INTO attempt SELECT (jsonb_populate_record(a, jsonb_build_object('id', gen_random_uuid(),"
        " 'fence', fence + 1))).* FROM attempt a",
    ],
)
async def test_the_database_refuses_by_itself(db: Database, sql: str) -> None:
    world = await World(db).open()
    node = await world.node()
    await world.assigned()
    await node.accept()
    await node.work(0, 50)
    with pytest.raises(IntegrityError):
        await db.run(lambda tx: execute(tx, sql))


@pytest.mark.asyncio
async def test_the_database_pays_each_unit_once(db: Database) -> None:
    """I5, M3: a range that overlaps a paid one of the same job cannot be paid; another job's can."""
    world = await World(db).open()
    node = await world.node()
    await world.assigned()
    await node.whole_job()
    await world.check()
    again = (
        "INSERT INTO link (attempt_id, job_no, index, start, stop, output_digest, output_bytes, claimed_ms,"
        " predecessor, chain_digest, envelope, heard_ms, observed_ms, verdict, paid)"
        " SELECT attempt_id, job_no, 9, 24, 26,"
        " output_digest, 1, 0, predecessor, chain_digest, envelope, 0, 0, true, true FROM link LIMIT 1"
    )
    with pytest.raises(IntegrityError, match="link_unit_paid_once"):
        await db.run(lambda tx: execute(tx, again))
    await world.assigned()
    await node.whole_job()
    await world.check()
    assert await db.fetch_value("SELECT count(*) FROM link WHERE paid") == 8


@pytest.mark.asyncio
async def test_a_job_is_never_overspent_by_many_attempts(db: Database) -> None:
    """Each attempt is paid for what it did, and together never more than the hold. It leaves room for what is learned
    of a node that needs all of 1.25 times its forecast: the next forecast is longer."""
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned(cap_qu=20_000)
    for _ in range(ATTEMPTS_BAD_MAX):
        await node.accept()
        attempt = await node.attempt()
        start = attempt.ranges[0][0]
        await node.work(start, start + 10, 1_250, took_s=1.25)
        await node.report(Outcome.FAILED)
        await world.check()
        for _ in range(40):
            if (await world.job(view.job_id)).state.value != "queued":
                break
            await node.offer()
            await world.pass_time(2.0)
    job = await world.job(view.job_id)
    assert job.units_accepted == 50
    assert job.paid_qu + job.fee_qu == 6_250
    assert job.returned_qu == 13_750
    await world.check_money()
