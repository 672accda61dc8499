# SPDX-License-Identifier: Apache-2.0
"""Seeded histories of a bank that pays on a network which drops, lags, lies and jumps, by a process that dies anywhere.

A crash may come before and after every call to the network, every transaction and every named step. What must hold at
the end: each withdrawal ran at most once, and exactly when it is confirmed; the ledger is what the chain is (I8); no
reservation has two live transactions (I9); nothing stands past its deadline (I6).
"""

import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

import pytest

from qubix_coordinator.db.database import Database, Tx
from qubix_coordinator.errors import QubixError
from qubix_coordinator.settings import Settings
from qubix_coordinator.withdrawals import service
from qubix_coordinator.withdrawals.sender import Sender
from qubix_coordinator.withdrawals.tables import Withdrawal, WithdrawalTx
from qubix_protocol import barriers
from qubix_protocol.barriers import Barrier
from qubix_protocol.withdrawals import FINAL_WITHDRAWAL_STATES, WithdrawalState
from tests.db.test_withdrawals_sender import HOT_QU, live_transactions
from tests.support.fake_network import FakeNetwork, FakeSigner, FakeSource
from tests.support.withdrawal_world import RICH, Bank, Person
from tests.support_pg import PgServer, connected

T = TypeVar("T")
STEPS, CALM = 60, 120
CALLS = ("tick_info", "balance", "broadcast", "last_processed_tick", "transaction_by_hash", "tick_data", "epoch_end")


class Killed(BaseException):
    """As kill -9: nothing of the process's own code runs after it."""


class History:
    """One seed: the same faults at the same places, whenever it is played."""

    def __init__(self, db: Database, seed: int) -> None:
        self.random = random.Random(seed)
        settings = Settings(
            withdrawal_address_delay_s=0, withdrawal_min_qu=1, withdrawal_ticks_ahead=5, withdrawal_hot_limit_qu=10**15
        )
        self.bank = Bank(db, settings=settings)
        self.network = FakeNetwork(logs=self.random.random() < 0.3)
        self.signer = FakeSigner(10_000 + seed)
        self.network.fund(self.signer.hot_public_key, HOT_QU)
        self.sources = [FakeSource(self.network) for _ in range(self.random.choice([1, 1, 2]))]
        self.deadly = 0.0
        self.kills = 0
        self.sender = self._started()

    def _started(self) -> Sender:
        sources: Any = [self._mortal(source) for source in self.sources]
        return Sender(self.bank.desk, sources, self.signer, self._run)

    def _mortal(self, source: FakeSource) -> Any:
        class Mortal:
            def __getattr__(_, name: str) -> Any:  # noqa: N805
                found = getattr(source, name)
                return self._around(found) if name in CALLS else found

        return Mortal()

    def _around(self, call: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
        async def mortal(*args: Any) -> T:
            self._die()
            answer = await call(*args)
            self._die()
            return answer

        return mortal

    def _die(self) -> None:
        if self.random.random() < self.deadly:
            self.kills += 1
            raise Killed

    async def _run(self, step: Callable[[Tx], Awaitable[T]]) -> T:
        async def inside(tx: Tx) -> T:
            found = await step(tx)
            self._die()
            return found

        self._die()
        found = await self.bank.db.run(inside)
        self._die()
        return found

    async def _barrier(self, barrier: Barrier) -> None:
        self._die()

    async def play(self) -> None:
        people = [await self.bank.person(seed=self.random.randrange(10**9)) for _ in range(self.random.randint(1, 3))]
        barriers.install(self._barrier)
        try:
            for _ in range(STEPS):
                self.deadly = self.random.choice([0.0, 0.0, 0.02, 0.1])
                await self._people_act(people)
                self._faults()
                await self._tick()
            await self._calm()
        finally:
            barriers.install(None)
        await self._check(people)

    async def _people_act(self, people: list[Person]) -> None:
        person = self.random.choice(people)
        if self.random.random() < 0.15:
            await self.bank.ask(person, self.random.choice([1, 7, 400, 50_000]))
        if self.random.random() < 0.05:
            mine = (await service.list_withdrawals(self.bank.desk, person.who)).withdrawals
            with contextlib.suppress(QubixError):
                if mine:
                    one = self.random.choice(mine)
                    await service.cancel(self.bank.desk, person.who, UUID(one.withdrawal_id))

    def _faults(self) -> None:
        draw = self.random.random
        for source in self.sources:
            if draw() < 0.1:
                source.lag = self.random.choice([0, 0, 1, 5, 30])
            source.down = draw() < 0.1
            if draw() < 0.1:
                source.lies = ""
        if draw() < 0.08:
            liar = self.random.choice(self.sources)
            liar.lies = self.random.choice(["hides", "half", "invents"])
            liar.frozen = None
        if draw() < 0.05 and len(self.sources) == 2:
            # Of two, one may lie about everything: its totals stand still while it hides.
            liar, honest = self.random.sample(self.sources, 2)
            liar.lies, honest.lies = "hides", ""
            liar.freeze()
        if draw() < 0.15:
            self.network.pool.clear()
        self.network.empty_next = draw() < 0.1
        if draw() < 0.02:
            self.network.jump(self.random.randint(1, 50))

    async def _tick(self) -> None:
        try:
            await self.sender.tick()
        except Killed:
            self.sender = self._started()
        if self.random.random() < 0.2:
            await self.bank.engine.tick()
        for _ in range(self.random.choice([0, 1, 1, 2])):
            self.network.step()
        self.bank.clock.advance(1)

    async def _calm(self) -> None:
        """The faults end: everything must come to its end by itself."""
        self.deadly, self.network.empty_next = 0.0, False
        for source in self.sources:
            source.lag, source.down, source.lies, source.frozen = 0, False, "", None
        for _ in range(CALM):
            await self._tick()
            if not await self.bank.db.run(lambda tx: Withdrawal.filter(ended_ms__isnull=True).using_db(tx).exists()):
                return

    async def _check(self, people: list[Person]) -> None:
        every = await self.bank.db.run(lambda tx: Withdrawal.all().using_db(tx).order_by("no"))
        signed = await self.bank.db.run(lambda tx: WithdrawalTx.filter(hot_key=self.signer.hot_public_key).using_db(tx))
        ran = Counter(
            one.withdrawal_id
            for one in signed
            for tick in self.network.ticks.values()
            for listed in tick
            if listed.tx_id == one.tx_id and listed.money_flew
        )
        mine = [row for row in every if row.account_id in {person.account_id for person in people}]
        for row in mine:
            assert WithdrawalState(row.state) in FINAL_WITHDRAWAL_STATES, f"{row.id} is {row.state} ({row.reason})"
            assert ran[row.id] == (row.state == WithdrawalState.CONFIRMED.value), f"{row.id} ran {ran[row.id]} times"
        confirmed = [row for row in mine if row.state == WithdrawalState.CONFIRMED.value]
        gone_qu = HOT_QU - self.network.balance_qu(self.signer.hot_public_key)
        assert gone_qu == sum(row.amount_qu for row in confirmed)
        for person in people:
            own = sum(row.amount_qu for row in confirmed if row.account_id == person.account_id)
            assert self.network.paid(person.wallet) == own
            assert await self.bank.balance(person.account_id) == RICH - own
        assert await live_transactions(self.bank.db) == []
        assert await self.bank.clean()


async def play(server: PgServer, seeds: range) -> int:
    kills = 0
    async with connected(server) as db:
        for seed in seeds:
            history = History(db, seed)
            try:
                await history.play()
            except AssertionError as problem:
                raise AssertionError(f"seed {seed}: {problem}") from problem
            kills += history.kills
    return kills


@pytest.mark.asyncio
async def test_a_few_histories_end_with_the_ledger_like_the_chain(pg_server: PgServer) -> None:
    assert await play(pg_server, range(6)) > 0


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.parametrize("first", range(100, 400, 50))
async def test_hundreds_of_histories_end_with_the_ledger_like_the_chain(pg_server: PgServer, first: int) -> None:
    assert await play(pg_server, range(first, first + 50)) > 100
