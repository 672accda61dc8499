# SPDX-License-Identifier: Apache-2.0
"""Random histories of disputes: after each step the ledger is clean, awards keep within stake, hold and caps, no bond
is lost; and whatever was said, all ends by itself (trust.md M5, M7; I1 to I6)."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from qubix_coordinator.disputes import money
from qubix_coordinator.errors import Refused
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.ledger.post import post
from qubix_coordinator.ledger.read import balance_qu
from qubix_protocol.disputes import DisputeView
from qubix_protocol.states import FINAL_JOB_STATES
from tests.db.disputes_world import CheckedWorld, DisputesWorld
from tests.db.jobs_world import CAP, CREDIT, CannotNow, Node
from tests.db.unchecked_world import OWED, RATES
from tests.support.own import unchecked
from tests.support_pg import PgServer, connected

WORDS = (
    "open",
    "open",
    "provider_opens",
    "answer",
    "answer_with_bond",
    "concede",
    "withdraw",
    "decide",
    "decide",
    "look",
    "look",
    "cannot_look",
    "run_again",
    "run_again",
    "check",
    "accept",
    "spend",
    "wait",
    "day",
    "week",
)
FUND_DAY, FUND_ACCOUNT = 6_000, 4_000


class History:
    def __init__(self, world: DisputesWorld | CheckedWorld, nodes: list[Node], job_id: str) -> None:
        self.world, self.nodes, self.job_id = world, nodes, job_id
        self.dispute: DisputeView | None = None

    async def play(self, script: list[tuple[str, int]]) -> None:
        for word, number in script:
            with contextlib.suppress(Refused, CannotNow):
                await self.steps(number)[word]()
            await self.world.later(1)
            await self.world.clean()
            await self.within_caps()

    def steps(self, number: int) -> dict[str, Callable[[], Awaitable[Any]]]:
        world = self.world
        return {
            "open": self.open,
            "provider_opens": lambda: self.open(provider=True),
            "answer": lambda: self.answer(),
            "answer_with_bond": lambda: self.answer(bond=True),
            "concede": lambda: self.answer(concede=True),
            "withdraw": lambda: world.withdrawn(self.now(), self.opener),
            "decide": lambda: world.decided(self.now(), number * OWED // 5, number % 3),
            "look": lambda: world.look(number % 2 == 0),
            "cannot_look": lambda: world.look(False, carried_out=False),
            "run_again": self.run_again,
            "check": world.check,
            "accept": lambda: jobs.accept(world.desk, world.consumer, self.job_id),
            "spend": self.spend,
            "wait": lambda: self.wait(number * 600),
            "day": lambda: self.wait(86_400),
            "week": lambda: self.wait(7 * 86_400),
        }

    def now(self) -> DisputeView:
        if self.dispute is None:
            raise CannotNow
        return self.dispute

    async def open(self, *, provider: bool = False) -> None:
        self.opener = await self.world.provider(self.nodes[0]) if provider else self.world.consumer
        self.other = self.world.consumer if provider else await self.world.provider(self.nodes[0])
        self.dispute = await self.world.opened(self.job_id, self.opener)

    async def answer(self, **changes: bool) -> None:
        await self.world.answered(self.now(), self.other, **changes)

    async def run_again(self) -> None:
        """Whoever was drawn does all of it, or a part."""
        for node in self.nodes[1:]:
            with contextlib.suppress(Refused, CannotNow):
                attempt = await node.accept()
                await node.work(0, 25, 2_500, took_s=2.5)
                if attempt.fence % 2:
                    await node.work(25, 100, 7_500, took_s=2.5)
                await node.report()

    async def spend(self) -> None:
        owner = (await self.world.provider(self.nodes[0])).account_id
        has = await self.world.balance_qu(owner)
        if has:
            await self.world.db.run(lambda tx: post(tx, [ledger.withdraw(owner, owner, has)]))

    async def wait(self, seconds: float) -> None:
        await self.world.later(seconds)
        for node in self.nodes[1:]:
            await node.offer(**({"rates": RATES} if isinstance(self.world, DisputesWorld) else {}))

    async def within_caps(self) -> None:
        (row,) = await self.world.db.fetch(
            "SELECT coalesce(sum(amount_qu), 0)::bigint AS day, coalesce(max(amount_qu), 0)::bigint AS most"
            " FROM fund_payment WHERE paid_ms > (SELECT coalesce(max(paid_ms), 0) - 86400000 FROM fund_payment)"
        )
        assert row["day"] <= FUND_DAY
        assert row["most"] <= FUND_ACCOUNT


async def begun(db: Any, *, checked: bool, good: bool) -> History:
    kind = CheckedWorld if checked else DisputesWorld
    limits = {"fund_day_max_qu": FUND_DAY, "fund_account_day_max_qu": FUND_ACCOUNT, "fund_bps": 10_000}
    world = await kind(db).open(**limits)
    maker = await world.node()
    view = await world.assigned()
    await maker.whole_job()
    await world.check([True, True, good, True])
    await world.cancel(view.job_id) if not good else None
    await world.db.run(lambda tx: money.feed_fund(world.desk, tx))
    return History(world, [maker, await world.node(), await world.node()], view.job_id)


async def ended(history: History) -> None:
    """Nobody says anything more, and all ends (I6)."""
    for _ in range(40):
        await history.world.later(86_400)
        with contextlib.suppress(CannotNow):
            await history.world.check()
    await history.world.clean()
    db = history.world.db
    assert await db.fetch("SELECT id FROM dispute WHERE state <> 'resolved' OR NOT rerun_settled") == []
    states = [row["state"] for row in await db.fetch("SELECT state FROM job")]
    assert set(states) <= {state.value for state in FINAL_JOB_STATES}
    court = await db.run(lambda tx: balance_qu(tx, ledger.user(money.COURT)))
    assert court == 0, "the market's own account keeps nothing"
    bonds = await db.fetch(
        "SELECT coalesce(sum(balance_qu), 0)::bigint AS left FROM ledger_balance WHERE kind = 'bond'"
    )
    assert bonds[0]["left"] == 0
    assert await history.world.balance_qu(history.world.consumer.account_id) >= CREDIT - CAP - 30_000


def tell(pg_server: PgServer, script: list[tuple[str, int]], checked: bool, good: bool) -> None:
    async def history() -> None:
        async with connected(pg_server) as db:
            found = await begun(db, checked=checked, good=good)
            await found.play(script)
            await ended(found)

    with unchecked.registered():
        asyncio.run(history())


SCRIPTS = st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 5)), min_size=4, max_size=16)
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""A history takes seconds: nobody waits for it to be made shorter."""
QUIET = [HealthCheck.function_scoped_fixture]


@settings(max_examples=4, deadline=None, phases=PHASES, suppress_health_check=QUIET)
@given(script=SCRIPTS, checked=st.booleans(), good=st.booleans())
def test_whatever_is_said_the_money_adds_up_and_all_ends(
    pg_server: PgServer, script: list[tuple[str, int]], checked: bool, good: bool
) -> None:
    tell(pg_server, [("open", 0), *script], checked, good)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, phases=PHASES, suppress_health_check=QUIET)
@given(script=SCRIPTS, checked=st.booleans(), good=st.booleans())
def test_whatever_is_said_the_money_adds_up_and_all_ends_often(
    pg_server: PgServer, script: list[tuple[str, int]], checked: bool, good: bool
) -> None:
    tell(pg_server, [("open", 0), *script], checked, good)
