# SPDX-License-Identifier: Apache-2.0
"""One job in several hands through the real service: dealt out, each paid for its own, on when one of them fails."""

from dataclasses import dataclass
from typing import Any

import pytest
from tortoise.exceptions import IntegrityError

from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.errors import Conflict, StaleAttempt
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.ledger.audit import audit
from qubix_protocol.api import JobView
from qubix_protocol.messages import Failure
from qubix_protocol.states import AttemptState, Availability, JobState, Outcome, Reason
from tests.db.jobs_world import CAP, RATE, UNITS, CannotNow, Node, World

HALF = UNITS // 2
pytestmark = pytest.mark.asyncio


@dataclass
class Team:
    """A job that was just dealt out, and the nodes in the order of their shares; each has accepted."""

    world: World
    nodes: list[Node]
    job_id: str

    async def view(self) -> JobView:
        return await self.world.job(self.job_id)

    async def pass_time(self, seconds: int, *but: Node) -> None:
        """Everybody who works says so each second, except `but`."""
        for _ in range(seconds):
            await self.world.pass_time(1.0)
            for node in self.nodes:
                if node not in but and (await node.attempt()).state == AttemptState.RUNNING.value:
                    await node.beat()

    async def work(self, node: Node, start: int, stop: int, seconds: int = 5) -> None:
        await self.pass_time(seconds)
        await node.work(start, stop, seconds * 1000, took_s=0.0)

    async def finish(self, node: Node, seconds: int = 2) -> None:
        """The rest of its assignment in one chunk, reported and checked."""
        attempt = await node.attempt()
        ((start, stop),) = attempt.ranges
        await self.work(node, start + attempt.units_done, stop, seconds)
        await node.report()
        await self.world.check()

    async def joined(self, node: Node) -> Node:
        """A further node takes what was just assigned to it."""
        await node.accept()
        if node not in self.nodes:
            self.nodes.append(node)
        return node


async def spread(db: Database, nodes: int = 2, **changes: Any) -> Team:
    """A job of 10 s over so many nodes."""
    world = await World(db).open()
    made = [await world.node() for _ in range(nodes)]
    view = await world.assigned(**{"spread": None, **changes})
    in_order = sorted([(await in_hand(node), index) for index, node in enumerate(made)])
    team = Team(world, [made[index] for _, index in in_order], view.job_id)
    for node in team.nodes:
        await node.accept()
    return team


async def in_hand(node: Node) -> list[list[int]]:
    ranges: list[list[int]] = (await node.attempt()).ranges
    return ranges


async def all_paid_once(world: World, view: JobView) -> None:
    """The invariants of money, by the job's row, its attempts, its links and the ledger."""
    assert view.paid_qu + view.fee_qu + view.returned_qu + view.held_qu == view.cap_qu
    assert sum(one.paid_qu for one in view.attempts) == view.paid_qu
    assert sum(one.units_accepted for one in view.attempts) == view.units_accepted
    paid = await world.db.fetch("SELECT start, stop FROM link WHERE paid ORDER BY start")
    units = [unit for one in paid for unit in range(one["start"], one["stop"])]
    assert len(units) == len(set(units)) == view.units_accepted
    await world.check_money()
    assert (await world.db.run(audit)).clean


async def test_a_job_goes_over_two_nodes_and_each_is_paid_for_its_own(db: Database) -> None:
    team = await spread(db)
    world, (first, second) = team.world, team.nodes
    assert (await in_hand(first), await in_hand(second)) == ([[0, HALF]], [[HALF, UNITS]])
    running = await team.view()
    assert (running.state, len(running.attempts), running.spread) == (JobState.RUNNING, 2, 4)
    assert running.attempts[0].fence != running.attempts[1].fence

    await team.work(first, 0, 25, 2)
    await team.work(second, HALF, UNITS, 3)
    assert (await team.view()).fraction == 0.75
    await second.report()
    assert (await team.view()).state is JobState.RUNNING, "the other one still works"
    await world.check()
    half = await team.view()
    assert (half.state, half.units_accepted, half.fraction) == (JobState.RUNNING, HALF, 0.75)
    assert half.expected_finish_ms == world.desk.now_ms() + 3_750, "between its forecast, 2.5 s, and its pace, 5 s"
    await first.work(25, HALF, 3_000, took_s=0.0)
    await first.report()
    assert (await team.view()).state is JobState.VERIFYING
    await world.check()

    done = await team.view()
    assert (done.state, done.units_accepted, done.fraction) == (JobState.SETTLED, UNITS, 1.0)
    assert done.paid_qu + done.fee_qu == 8_000, "as much as one alone would have cost"
    assert (await first.earned_qu(), await second.earned_qu()) == (4_875, 2_925)
    found = await jobs.result(world.desk, world.consumer, team.job_id)
    assert [(part.start, part.stop) for part in found.parts] == [(0, 25), (25, HALF), (HALF, UNITS)]
    assert len((await jobs.receipts(world.desk, world.consumer, team.job_id)).receipts) == 2
    await all_paid_once(world, done)


@pytest.mark.parametrize(("wish", "units"), [(1, [100]), (2, [50, 50]), (None, [34, 33, 33])])
async def test_never_over_more_hands_than_wished_or_worth_it(db: Database, wish: int | None, units: list[int]) -> None:
    """Ten seconds are no more than three times the three that a share must be worth."""
    world = await World(db).open()
    for _ in range(5):
        await world.node()
    view = await world.assigned(spread=wish)
    assert sorted([one.units for one in (await world.job(view.job_id)).attempts], reverse=True) == units


async def test_a_named_provider_keeps_the_job_whole(db: Database) -> None:
    world = await World(db).open()
    nodes = [await world.node() for _ in range(2)]
    view = await world.assigned(spread=None, provider=nodes[1].peer)
    job = await world.job(view.job_id)
    assert [(one.provider, one.units) for one in job.attempts] == [(nodes[1].peer, UNITS)]
    assert job.spread == 1


async def test_only_the_share_of_a_node_that_dies_goes_on_elsewhere(db: Database) -> None:
    """R4.5: what it linked is checked and paid, the other one works on undisturbed."""
    team = await spread(db)
    world, (dying, other) = team.world, team.nodes
    await team.work(dying, 0, 20, 2)
    attempt = await other.attempt()
    await team.pass_time(11, dying)
    view = await team.view()
    assert view.state is JobState.RUNNING
    assert {one.reason for one in view.attempts} == {Reason.SILENT, Reason.NONE}
    await other.work(HALF, 80, 3_000, took_s=0.0)
    heir = await world.node()
    await team.pass_time(1, dying)
    assert len((await team.view()).attempts) == 2, "what it did is checked before the rest goes on"
    await world.check()
    assert await in_hand(heir) == [[20, HALF]]
    assert (await other.attempt()).id == attempt.id
    await team.joined(heir)
    await team.finish(heir)
    await team.finish(other)
    done = await team.view()
    assert done.state is JobState.SETTLED
    assert sorted([one.units_accepted for one in done.attempts]) == [20, 30, HALF]
    assert await dying.earned_qu() > 0
    await all_paid_once(world, done)


async def test_shares_that_failed_are_merged(db: Database) -> None:
    team = await spread(db, 3)
    first, middle, last = team.nodes
    for node in (first, last):
        await node.report(Outcome.FAILED)
    heir = await team.world.node()
    await team.pass_time(1)
    assert [await in_hand(first), await in_hand(heir)] == [[[0, 33]], [[0, 33], [67, UNITS]]]
    assert (await middle.attempt()).state == AttemptState.RUNNING.value


async def test_a_liar_among_several_loses_its_share_alone(db: Database) -> None:
    team = await spread(db)
    world, (liar, honest) = team.world, team.nodes
    await team.work(liar, 0, HALF)
    await liar.report()
    await world.check([False])
    await team.finish(honest)
    await world.engine.tick()
    view = await team.view()
    assert (view.state, view.units_accepted) == (JobState.ASSIGNED, HALF)
    assert await in_hand(honest) == [[0, HALF]], "and the liar is not asked again"
    await team.joined(honest)
    await team.finish(honest)
    done = await team.view()
    assert done.state is JobState.SETTLED
    assert await liar.earned_qu() == 0
    await all_paid_once(world, done)


@pytest.mark.parametrize("how", ["cancel", "expire"])
async def test_whoever_ends_it_stops_all_and_pays_what_each_has_made(db: Database, how: str) -> None:
    team = await spread(db, deadline_s=10)
    world, (first, second) = team.world, team.nodes
    await team.work(first, 0, 20, 2)
    await team.work(second, HALF, 80, 3)
    attempts = [await node.attempt() for node in team.nodes]
    if how == "cancel":
        await world.cancel(team.job_id)
    else:
        await team.pass_time(5)
    assert (await team.view()).state is JobState.VERIFYING
    for node, attempt in zip(team.nodes, attempts, strict=True):
        assert "cancel" in [one["t"] for one in await world.commands(node)]
        with pytest.raises(StaleAttempt):
            await node.send(node.next_link(20, 21, 1), attempt)
    await world.check()
    assert (await team.view()).state is JobState.VERIFYING
    await world.check()
    done = await team.view()
    ended = (JobState.CANCELLED, Reason.CANCELLED_BY_CONSUMER) if how == "cancel" else (JobState.FAILED, Reason.EXPIRED)
    assert (done.state, done.reason) == ended
    assert (await first.earned_qu(), await second.earned_qu()) == (1_950, 2_925)
    assert done.returned_qu == CAP - 5_000
    await all_paid_once(world, done)


async def test_m4_a_cancel_comes_too_late_only_when_every_share_is_reported(db: Database) -> None:
    team = await spread(db)
    for node, start in zip(team.nodes, (0, HALF), strict=True):
        await team.work(node, start, start + HALF)
    for node in team.nodes:
        await node.report()
    with pytest.raises(Conflict, match="being checked"):
        await team.world.cancel(team.job_id)
    await team.world.check()
    await team.world.check()
    assert (await team.view()).state is JobState.SETTLED


async def test_m4_a_share_that_is_reported_is_paid_although_the_rest_is_cancelled(db: Database) -> None:
    team = await spread(db)
    await team.work(team.nodes[0], 0, HALF)
    await team.nodes[0].report()
    await team.world.cancel(team.job_id)
    await team.world.check()
    done = await team.view()
    assert (done.state, done.units_accepted, done.paid_qu + done.fee_qu) == (JobState.CANCELLED, HALF, 5_000)
    await all_paid_once(team.world, done)


async def test_m2_open_attempts_never_bill_more_than_the_hold_together(db: Database) -> None:
    """12,500 is what one may cost at most. Two that claim above all reason stay within it."""
    team = await spread(db, cap_qu=12_500)
    for node, start in zip(team.nodes, (0, HALF), strict=True):
        await team.pass_time(10)
        await node.work(start, start + HALF, 10**9, took_s=0.0)
        await node.report()
    await team.world.check()
    await team.world.check()
    done = await team.view()
    assert (done.state, done.paid_qu + done.fee_qu, done.returned_qu) == (JobState.SETTLED, 12_500, 0)
    await all_paid_once(team.world, done)


async def test_m2_what_is_reserved_for_one_hand_is_nobody_elses(db: Database) -> None:
    """The half that failed fits the hold only beside what the other half may still cost."""
    team = await spread(db, cap_qu=12_500)
    failed, working = team.nodes
    await failed.report(Outcome.FAILED)
    dear = await team.world.node(rate_qu_per_h=RATE * 101 // 100)
    await team.pass_time(1)
    with pytest.raises(CannotNow):
        await dear.attempt()
    fitting = await team.world.node()
    await team.pass_time(1)
    assert await in_hand(fitting) == [[0, HALF]]
    assert (await working.attempt()).state == AttemptState.RUNNING.value


async def test_bad_input_found_by_two_of_three_stops_the_third(db: Database) -> None:
    team = await spread(db, 3)
    first, second, third = team.nodes
    ((start, _),) = await in_hand(third)
    await team.work(third, start, start + 10, 1)
    for node in (first, second):
        await node.report(Outcome.FAILED, failure=Failure(code="bad_input", detail="a contains NaN"))
    stopping = await team.view()
    assert stopping.state is JobState.VERIFYING
    assert Reason.JOB_ENDED in {one.reason for one in stopping.attempts}
    await team.world.check()
    done = await team.view()
    assert (done.state, done.reason, done.units_accepted) == (JobState.FAILED, Reason.BAD_INPUT, 10)
    await all_paid_once(team.world, done)
    assert {row["failures"] for row in await db.fetch("SELECT failures FROM listing")} == {0}


async def test_every_job_gets_one_node_before_any_gets_a_second(db: Database) -> None:
    world = await World(db).open()
    for _ in range(3):
        await world.node()
    views = [await world.submit(spread=None) for _ in range(2)]
    await world.engine.tick()
    assert [len((await world.job(view.job_id)).attempts) for view in views] == [2, 1]


async def test_a_job_that_nobody_can_take_does_not_keep_the_others_small(db: Database) -> None:
    """It holds a place in the queue only while it is looked at; then it looks again later."""
    world = await World(db).open()
    for _ in range(2):
        await world.node()
    await world.assigned(cap_qu=1)
    view = await world.assigned(spread=None)
    assert len((await world.job(view.job_id)).attempts) == 2


async def test_progress_is_of_all_hands_and_never_falls(db: Database) -> None:
    team = await spread(db)
    shown = []
    for fraction in (0.2, 0.4):
        for node in team.nodes:
            await node.beat(fraction)
            shown.append((await team.view()).fraction)
    assert shown == pytest.approx([0.1, 0.2, 0.3, 0.4])
    await team.nodes[0].report(Outcome.FAILED)
    assert (await team.view()).fraction == pytest.approx(0.4)


async def test_the_database_keeps_each_unit_in_one_pair_of_hands(db: Database) -> None:
    team = await spread(db)
    twin = (
        "INSERT INTO attempt SELECT (jsonb_populate_record(a, jsonb_build_object('id', gen_random_uuid(),"
        " 'fence', fence + 10, 'ranges', '[[49, 51]]'::jsonb))).* FROM attempt a ORDER BY fence LIMIT 1"
    )
    with pytest.raises(IntegrityError, match="attempt_unit_in_one_hand"):
        await db.run(lambda tx: execute(tx, twin))
    await team.world.cancel(team.job_id)
    await db.run(lambda tx: execute(tx, twin))


# Stragglers ---------------------------------------------------------------------------------------------------------


async def dawdling(db: Database, **changes: Any) -> tuple[Team, Node, Node]:
    """One of two hands has made a tenth of its share in its first second and nothing since; the other one is done."""
    team = await spread(db, **changes)
    slow, quick = team.nodes
    ((start, stop),) = await in_hand(quick)
    await team.work(slow, 0, 5, 1)
    await team.work(quick, start, stop, 4)
    await quick.report()
    await team.world.check()
    return team, slow, quick


async def test_the_rest_of_a_straggler_goes_to_somebody_free_and_blames_nobody(db: Database) -> None:
    team, slow, quick = await dawdling(db, spread=2)
    await team.pass_time(6)
    assert "cancel" in [one["t"] for one in await team.world.commands(slow)]
    relieved = await slow.attempt()
    assert (relieved.state, relieved.reason) == (AttemptState.VERIFYING.value, Reason.RELIEVED.value)
    await team.world.check()
    await team.world.engine.tick()
    assert await in_hand(quick) == [[5, HALF]]
    await team.joined(quick)
    await team.finish(quick)
    done = await team.view()
    assert done.state is JobState.SETTLED
    assert await slow.earned_qu() > 0, "what it made is paid"
    assert (await team.world.row((await slow.attempt()).job_id)).bad_attempts == 0
    assert {row["failures"] for row in await db.fetch("SELECT failures FROM listing")} == {0}
    await all_paid_once(team.world, done)


async def test_a_straggler_goes_on_while_nobody_better_is_free(db: Database) -> None:
    team, slow, quick = await dawdling(db, spread=2)
    other = await team.world.assigned(spread=1)
    await quick.accept()
    await team.pass_time(6)
    assert (await slow.attempt()).state == AttemptState.RUNNING.value
    assert (await team.world.job(other.job_id)).state is JobState.RUNNING


async def test_a_dearer_helper_is_taken_only_by_a_job_that_said_so(db: Database) -> None:
    team, slow, quick = await dawdling(db, spread=None)
    await quick.offer(rate_qu_per_h=RATE * 2)
    await team.pass_time(6)
    assert (await slow.attempt()).state == AttemptState.RUNNING.value
    await quick.offer()
    await team.pass_time(1)
    assert (await slow.attempt()).reason == Reason.RELIEVED.value


async def test_whoever_was_relieved_once_keeps_what_it_gets_back(db: Database) -> None:
    """The helper is gone when the rest can be dealt out: the straggler has it again, and is left in peace."""
    team, slow, quick = await dawdling(db, spread=2)
    await team.pass_time(6)
    await quick.offer(availability=Availability.DRAINING)
    await team.world.check()
    await team.world.engine.tick()
    assert await in_hand(slow) == [[5, HALF]]
    await slow.accept()
    await quick.offer()
    await team.pass_time(10)
    assert (await slow.attempt()).state == AttemptState.RUNNING.value


async def test_a_silent_node_is_no_straggler(db: Database) -> None:
    team, slow, _ = await dawdling(db, spread=2)
    await team.pass_time(11, slow)
    assert (await slow.attempt()).reason == Reason.SILENT.value
