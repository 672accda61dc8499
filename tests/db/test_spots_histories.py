# SPDX-License-Identifier: Apache-2.0
"""Random histories of unchecked work, spot checks, disputes and withdrawals: after each step the ledger is clean,
records are what their evidence says, nobody withdraws what is new, and all ends by itself (trust.md C5, M5; I1 to I6).
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from qubix_coordinator.db.database import Tx
from qubix_coordinator.disputes import money
from qubix_coordinator.errors import Refused
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.jobs import verify
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.ledger.post import post
from qubix_coordinator.ledger.read import balance_qu, lock_account
from qubix_coordinator.market import reputation as rep
from qubix_coordinator.market import standing
from qubix_coordinator.market.reputation import Outcome, What
from qubix_coordinator.withdrawals import limits
from qubix_coordinator.withdrawals.desk import Desk as WithdrawalDesk
from qubix_protocol.disputes import DisputeView
from qubix_protocol.states import FINAL_JOB_STATES
from tests.db.jobs_world import CannotNow, Node
from tests.db.spots_world import SpotsWorld
from tests.db.unchecked_world import RATES
from tests.support.own import unchecked
from tests.support_pg import PgServer, connected

WORDS = (
    "job",
    "work",
    "work",
    "half",
    "check",
    "check",
    "differs",
    "differs",
    "same",
    "untold",
    "accept",
    "open",
    "withdraw_dispute",
    "concede",
    "cancel",
    "withdraw",
    "wait",
    "rerun",
    "rerun",
    "rerun",
    "hours",
    "day",
)


class History:
    def __init__(self, world: SpotsWorld, nodes: list[Node]) -> None:
        self.world, self.nodes, self.jobs = world, nodes, list[str]()
        self.dispute: DisputeView | None = None
        self.gone_qu = 0

    async def play(self, script: list[tuple[str, int]]) -> None:
        for word, number in script:
            with contextlib.suppress(Refused, CannotNow):
                await self.steps(number)[word]()
            await self.world.later(1)
            await self.holds()

    def steps(self, number: int) -> dict[str, Callable[[], Awaitable[Any]]]:
        world = self.world
        return {
            "job": self.submit,
            "work": lambda: self.work(number),
            "half": lambda: self.work(number, half=True),
            "check": lambda: self.verify(number),
            "differs": lambda: self.verify(number, same=False),
            "same": lambda: self.verify(number),
            "untold": lambda: self.verify(number, carried_out=False),
            "accept": lambda: jobs.accept(world.desk, world.consumer, self.job(number)),
            "open": lambda: self.open(number),
            "withdraw_dispute": lambda: world.withdrawn(self.opened()),
            "concede": self.concede,
            "cancel": lambda: world.cancel(self.job(number)),
            "withdraw": lambda: self.withdraw(number),
            "wait": lambda: self.wait(5),
            "rerun": lambda: self.rerun(number),
            "hours": lambda: self.wait(7 * 3600),
            "day": lambda: self.wait(86_400),
        }

    def job(self, number: int) -> str:
        if not self.jobs:
            raise CannotNow("there is no job yet")
        return self.jobs[number % len(self.jobs)]

    def opened(self) -> DisputeView:
        if self.dispute is None:
            raise CannotNow("nothing is disputed")
        return self.dispute

    async def submit(self) -> None:
        self.jobs.append((await self.world.assigned()).job_id)

    async def work(self, number: int, *, half: bool = False) -> None:
        """Whoever has something does it, or the first part of it."""
        for node in self.nodes:
            with contextlib.suppress(Refused, CannotNow):
                attempt = await node.accept()
                for start, stop in attempt.ranges:
                    middle = (start + stop) // 2
                    for first, last in itertools.pairwise(sorted({start, middle, stop})):
                        await node.work(first, last, (last - first) * 100, took_s=2.5)
                        if half:
                            break
                await node.report()

    async def verify(self, number: int, *, same: bool = True, carried_out: bool = True) -> None:
        """The verifier's turn at whatever waits: a form is good but for one in five."""
        world = self.world
        while claim := await world.db.run(lambda tx: verify.claim(tx, "verifier", world.desk.now_ms())):
            good = carried_out and (same if claim.look_id is not None else number % 5 != 4)
            finding = verify.Finding(
                carried_out=carried_out,
                accepted=good,
                reason="ok" if good else "differs",
                detail="",
                parts=(good,) * len(claim.outputs) if carried_out else (),
                seed=bytes(32),
                check_ms=1,
            )
            await world.db.run(
                lambda tx, claim=claim, finding=finding: verify.record_for(  # type: ignore[misc]
                    tx, claim, "verifier", finding, world.desk.now_ms()
                )
            )
        await world.later(1)

    async def rerun(self, number: int) -> None:
        """Whoever was drawn, if somebody was, and what comes of it."""
        for _ in range(5):
            await self.wait(2)
            await self.work(number)
        await self.verify(number)
        await self.verify(number, same=number % 3 == 0)

    async def open(self, number: int) -> None:
        self.dispute = await self.world.opened(self.job(number))

    async def concede(self) -> None:
        (row,) = await self.world.db.fetch("SELECT peer_id FROM dispute WHERE id = $1", UUID(self.opened().dispute_id))
        node = next(one for one in self.nodes if one.peer == row["peer_id"])
        await self.world.answered(self.opened(), await self.world.provider(node), concede=True)

    async def withdraw(self, number: int) -> None:
        """All that may be withdrawn, and then one QU more, which is refused."""
        node = self.nodes[number % len(self.nodes)]
        owner = (await self.world.provider(node)).account_id
        desk = WithdrawalDesk(self.world.db, self.world.desk.settings, self.world.desk.clock)

        async def step(tx: Tx) -> int:
            await lock_account(tx, owner)
            means = await limits.means(desk, tx, owner)
            assert 0 <= means.withdrawable_qu <= means.balance_qu - min(means.balance_qu, means.new_earnings_qu)
            if means.withdrawable_qu:
                key = UUID(int=next(self.world.numbers))
                await post(tx, [ledger.withdraw(key, owner, means.withdrawable_qu)])
            return means.withdrawable_qu

        self.gone_qu += await self.world.db.run(step)

    async def wait(self, seconds: float) -> None:
        await self.world.later(seconds)
        for node in self.nodes:
            await node.offer(rates=self.rates)

    rates: Any = RATES

    async def holds(self) -> None:
        await self.world.clean()
        await self.records_are_their_evidence()
        await self.no_unit_is_made_twice()

    async def records_are_their_evidence(self) -> None:
        db, unit_qu = self.world.db, self.world.desk.settings.reputation_unit_qu
        for row in await db.fetch("SELECT id FROM listing WHERE id IN (SELECT listing_id FROM work_outcome)"):
            found = await db.fetch("SELECT * FROM work_outcome WHERE listing_id = $1 ORDER BY no", row["id"])
            told = [
                Outcome(What(o["what"]), o["worth_qu"], o["at_ms"], o["counts"], o["run_ms"], o["forecast_ms"])
                for o in found
            ]
            kept = await db.run(lambda tx, key=row["id"]: standing.record_of(tx, key))  # type: ignore[misc]
            assert kept == rep.of_outcomes(told, unit_qu)
            counted = await db.fetch("SELECT what, n FROM outcome_count WHERE listing_id = $1", row["id"])
            assert {one["what"]: one["n"] for one in counted} == Counter(
                one.what.value if one.counts else "related"
                for one in told
                if one.counts or one.what in (What.FINISHED, What.RIGHT)
            )

    async def no_unit_is_made_twice(self) -> None:
        twice = await self.world.db.fetch(
            "SELECT j.id FROM job j WHERE j.units_accepted <> (SELECT coalesce(sum(l.stop - l.start), 0) FROM link l"
            " WHERE l.job_no = j.no AND (l.paid OR l.owed)) AND j.state NOT IN ('resolved', 'failed', 'cancelled')"
        )
        assert twice == []


async def ended(history: History) -> None:
    """Nobody says anything more, and all ends (I6)."""
    for _ in range(16):
        await history.world.later(86_400)
        with contextlib.suppress(CannotNow, Refused):
            await history.verify(0)
    await history.holds()
    db = history.world.db
    assert await db.fetch("SELECT FROM spot_check WHERE ended_ms IS NULL") == []
    assert await db.fetch("SELECT FROM spot_rerun WHERE NOT settled") == []
    states = [row["state"] for row in await db.fetch("SELECT state FROM job")]
    assert set(states) <= {state.value for state in FINAL_JOB_STATES}
    assert await db.run(lambda tx: balance_qu(tx, ledger.user(money.COURT))) == 0, "the market's own keeps nothing"


def tell(pg_server: PgServer, script: list[tuple[str, int]], others: int) -> list[str]:
    """How the spot checks ended, in the order in which they were drawn."""

    async def history() -> list[str]:
        async with connected(pg_server) as db:
            world = await (await SpotsWorld(db).open()).fill_fund()
            maker = await world.node()
            found = History(world, [maker])
            await found.submit()
            await found.work(0)
            await found.verify(0)
            found.nodes += [await world.node() for _ in range(others)]
            await found.holds()
            await found.play(script)
            await ended(found)
            return [row["state"] for row in await db.fetch("SELECT state FROM spot_check ORDER BY drawn_ms")]

    with unchecked.registered():
        return asyncio.run(history())


SCRIPTS = st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 9)), min_size=4, max_size=14)
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
QUIET = [HealthCheck.function_scoped_fixture]


TWICE_REFUTED = (("rerun", 1), ("rerun", 1), ("rerun", 1))


@pytest.mark.parametrize(
    "script",
    [
        [*TWICE_REFUTED, ("wait", 0), ("work", 0), ("check", 0), ("accept", 0)],
        [("accept", 0), *TWICE_REFUTED, ("withdraw", 0)],
    ],
    ids=["refuted and made by another", "paid, refuted and forfeited"],
)
def test_what_is_planned(pg_server: PgServer, script: list[tuple[str, int]]) -> None:
    assert tell(pg_server, script, 3)[0] == "failed"


@pytest.mark.slow
@settings(max_examples=120, deadline=None, phases=PHASES, suppress_health_check=QUIET)
@given(script=SCRIPTS, others=st.integers(1, 3))
def test_whatever_happens_the_money_adds_up_and_all_ends(
    pg_server: PgServer, script: list[tuple[str, int]], others: int
) -> None:
    tell(pg_server, script, others)
