# SPDX-License-Identifier: Apache-2.0
"""Whatever becomes of a job's hands, in seeded random order: the money adds up, each unit is paid at most once, the job
ends (trust I1–I7). A failure names its seed, and the seed gives the same history again."""

import contextlib
import itertools
import random

import pytest

from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import Refused
from qubix_coordinator.jobs import flow
from qubix_coordinator.jobs.assign import hold_free_qu
from qubix_coordinator.ledger.audit import audit
from qubix_protocol.api import JobView
from qubix_protocol.states import FINAL_JOB_STATES, AttemptState, Availability, JobState, Outcome
from tests.db.jobs_world import CAP, RATE, UNITS, CannotNow, Node, World

pytestmark = pytest.mark.asyncio
EVENTS = {
    "accept": 8,
    "link": 12,
    "report": 5,
    "good": 6,
    "seconds": 6,
    "bad": 3,
    "unchecked": 1,
    "fail": 1,
    "decline": 1,
    "die": 1,
    "twin": 1,
    "cheaper": 1,
    "new_node": 1,
    "cancel": 0.3,
}
STEPS = 30


class History:
    """One job, its nodes, and what was acknowledged to them."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.seed, self.draw = world, seed, random.Random(seed)
        self.nodes: list[Node] = []
        self.dead: set[str] = set()
        self.acknowledged: set[tuple[str, int]] = set()
        self.fraction = 0.0
        self.job_id = ""

    async def run(self) -> JobView:
        draw = self.draw
        for _ in range(draw.randint(2, 4)):
            await self._new_node()
        changes = {
            "spread": draw.choice([None, 2, 3, 8]),
            "cap_qu": draw.choice([CAP, 15_000, 12_500, 4_000]),
            "deadline_s": draw.choice([30, 200]),
        }
        self.job_id = (await self.world.assigned(**changes)).job_id
        for word in draw.choices(list(EVENTS), list(EVENTS.values()), k=STEPS):
            await self._step(word)
        return await self._end()

    async def _step(self, word: str) -> None:
        with contextlib.suppress(Refused, CannotNow):
            await getattr(self, f"_{word}")(await self._somebody(word))
        await self.world.engine.tick()
        await self._look()

    async def _somebody(self, word: str) -> Node:
        """Alive, and for what takes an attempt, one that has such an attempt where there is any."""
        alive = [node for node in self.nodes if node.peer not in self.dead] or self.nodes
        state = {"accept": "offered", "link": "running", "report": "running", "fail": "running"}.get(word)
        found = await self.world.db.fetch("SELECT peer_id FROM attempt WHERE state = $1", state or "")
        busy = [node for node in alive if node.peer in {row["peer_id"] for row in found}]
        return self.draw.choice(busy or alive)

    async def _end(self) -> JobView:
        """Everybody falls silent; verifiers go on for a while. Lease, deadline and the check's end it (M5)."""
        for _ in range(3):
            with contextlib.suppress(CannotNow):
                await self.world.check()
        await self.world.pass_time(215, step_s=21.5)
        while await self._checked():
            pass
        await self.world.pass_time(300, step_s=100)
        await self._look()
        return await self.world.job(self.job_id)

    async def _checked(self) -> bool:
        with contextlib.suppress(CannotNow):
            await self.world.check()
            return True
        return False

    async def _look(self) -> None:
        """What holds at any time: progress never falls, and open attempts can never bill more than is left."""
        view = await self.world.job(self.job_id)
        assert self.fraction <= view.fraction <= 1.0, self.seed
        self.fraction = view.fraction
        assert view.held_qu + view.paid_qu + view.fee_qu + view.returned_qu == view.cap_qu, self.seed
        row = await self.world.row(view.job_id)  # type: ignore[arg-type]
        open_now = await self.world.db.run(lambda tx: flow.hands(tx, row.id))
        assert hold_free_qu(row, open_now) >= 0, self.seed
        assert len(open_now) <= row.hands_max, self.seed
        held = sum(attempt.units for attempt in open_now)
        if view.state in FINAL_JOB_STATES:
            assert not open_now, self.seed
        else:
            assert row.units_waiting == UNITS - view.units_accepted - held, self.seed
            assert flow.facts(row, open_now).hands.state is view.state, self.seed

    # What may happen -------------------------------------------------------------------------------------------------

    async def _new_node(self, _: Node | None = None) -> None:
        self.nodes.append(await self.world.node(rate_qu_per_h=self.draw.choice([RATE, RATE, RATE * 11 // 10])))

    async def _accept(self, node: Node) -> None:
        if (await node.attempt()).state == AttemptState.OFFERED.value:
            await node.accept()

    async def _link(self, node: Node) -> None:
        attempt = await node.attempt()
        left = attempt.units - attempt.units_done
        if attempt.state != AttemptState.RUNNING.value or not left:
            raise CannotNow
        begun = attempt.units_done
        for start, stop in attempt.ranges:
            if begun < stop - start:
                end = min(stop, start + begun + self.draw.choice([5, 15, 50]))
                link = await node.work(start + begun, end, self.draw.choice([0, 500, 2_000, 10**7]), took_s=0.0)
                self.acknowledged.add((str(attempt.id), link.index))
                return
            begun -= stop - start

    async def _report(self, node: Node) -> None:
        """Mostly when it is done."""
        attempt = await node.attempt()
        if attempt.units_done < attempt.units and self.draw.random() < 0.8:
            await self._link(node)
        else:
            await node.report()

    async def _fail(self, node: Node) -> None:
        await node.report(Outcome.FAILED)

    async def _decline(self, node: Node) -> None:
        await node.decline()

    async def _twin(self, node: Node) -> None:
        if node.links:
            await node.send(self.draw.choice(node.links))

    async def _die(self, node: Node) -> None:
        """Silent from now on, as after kill -9."""
        self.dead.add(node.peer)
        await node.offer(availability=Availability.OFFLINE)

    async def _cheaper(self, node: Node) -> None:
        await node.offer(rate_qu_per_h=RATE // 2)

    async def _good(self, _: Node) -> None:
        await self.world.check()

    async def _bad(self, _: Node) -> None:
        row = await self.world.db.fetch(
            "SELECT links FROM attempt WHERE state = 'verifying' AND claim_until_ms <= $1 ORDER BY ended_ms LIMIT 1",
            self.world.desk.now_ms(),
        )
        if row:
            good = self.draw.randrange(row[0]["links"])
            await self.world.check([index < good for index in range(row[0]["links"])])

    async def _unchecked(self, _: Node) -> None:
        await self.world.check(carried_out=False)

    async def _cancel(self, _: Node) -> None:
        await self.world.cancel(self.job_id)

    async def _seconds(self, _: Node) -> None:
        """The living say that they work, some of them without coming any further: stragglers."""
        for _ in range(self.draw.randint(1, 4)):
            await self.world.pass_time(1.0)
            for node in self.nodes:
                if node.peer not in self.dead:
                    with contextlib.suppress(Refused, CannotNow):
                        attempt = await node.attempt()
                        if attempt.state == AttemptState.RUNNING.value:
                            await node.beat(attempt.units_done / attempt.units)


async def ended_well(history: History, view: JobView) -> None:
    world, seed = history.world, history.seed
    assert view.state in FINAL_JOB_STATES, seed
    assert view.held_qu == 0, seed
    assert view.paid_qu + view.fee_qu + view.returned_qu == view.cap_qu, seed
    assert sum(one.paid_qu for one in view.attempts) == view.paid_qu, seed
    assert sum(one.fee_qu for one in view.attempts) == view.fee_qu, seed
    assert (view.state is JobState.SETTLED) == (view.units_accepted == UNITS), seed
    row = await world.row(view.job_id)  # type: ignore[arg-type]
    links = await world.db.fetch("SELECT attempt_id, index, start, stop, paid FROM link WHERE job_no = $1", row.no)
    paid = sorted((one["start"], one["stop"]) for one in links if one["paid"])
    assert sum(stop - start for start, stop in paid) == view.units_accepted, seed
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(paid)), seed
    assert history.acknowledged == {(str(one["attempt_id"]), one["index"]) for one in links}, seed
    for node in history.nodes:
        own = sum(one.paid_qu for one in view.attempts if one.provider == node.peer)
        assert await node.earned_qu() == own, seed


async def histories(db: Database, seeds: range) -> set[str]:
    """The reasons for which attempts ended, over all of them."""
    world = await World(db).open(credit_qu=10**9)
    reasons: set[str] = set()
    for seed in seeds:
        history = History(world, seed)
        view = await history.run()
        await ended_well(history, view)
        reasons |= {one.reason.value for one in view.attempts}
    await world.check_money()
    report = await db.run(audit)
    assert report.clean, report.violations
    return reasons


async def test_a_job_in_several_hands_ends_with_its_money_right(db: Database) -> None:
    await histories(db, range(5))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1_000, 1_300, 50))
async def test_hundreds_of_jobs_in_several_hands_end_with_their_money_right(db: Database, first: int) -> None:
    reasons = await histories(db, range(first, first + 50))
    assert {"completed", "silent", "relieved", "wrong_result", "declined", "node_failed"} <= reasons
