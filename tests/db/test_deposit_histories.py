# SPDX-License-Identifier: Apache-2.0
"""Whatever happens, in seeded random order: each payment is credited once, and all QU end where they are owed.

The model is the network's own log of what moved. Deaths are at the chain process's named steps. A failure names its
seed, and the seed gives the same history again.
"""

import asyncio
import contextlib
import random
from collections.abc import Iterator
from uuid import UUID

import pytest

from qubix_chain.rpc.errors import ChainError
from qubix_coordinator.db.database import Database
from qubix_coordinator.deposits import scan
from qubix_coordinator.deposits.desk import TurnLost
from qubix_coordinator.deposits.rules import LOG_LAG_MAX
from qubix_coordinator.ledger.audit import audit_now
from qubix_protocol import barriers
from qubix_protocol.barriers import Barrier
from tests.db.deposits_world import World
from tests.support.fake_chain import key_of

pytestmark = pytest.mark.asyncio
DAILY, SLOW, STEPS = 6, 200, 40
MINIMUM = 100
EVENTS = {
    "pay": 8,
    "pay_small": 2,
    "pay_broke": 1,
    "pay_many": 3,
    "pay_many_short": 1,
    "tick": 12,
    "ticks": 3,
    "long_pause": 0.5,
    "jump": 1,
    "round": 12,
    "at_once": 2,
    "restart": 2,
    "die": 4,
    "misstate": 1,
    "half_hide": 1,
    "honest": 4,
    "logs": 1,
    "lag": 1,
    "down": 1,
    "lose_pool": 1,
    "new_account": 1,
}


class Died(Exception):
    pass


@pytest.fixture
def _no_port_stays() -> Iterator[None]:
    yield
    barriers.install(None)


class History:
    def __init__(self, world: World, seed: int) -> None:
        self.world, self.chain, self.draw = world, world.chain, random.Random(seed)
        self.accounts: list[UUID] = []

    async def run(self) -> None:
        self.accounts = [await self.world.account(), await self.world.account()]
        for _ in range(STEPS):
            (event,) = self.draw.choices(list(EVENTS), list(EVENTS.values()))
            await getattr(self, f"_{event}")()
            await self.check_so_far()
        await self.end()

    async def check_so_far(self) -> None:
        """Nobody ever has more than the network moved to them."""
        for account in self.accounts:
            assert await self.world.balance(account) <= self.moved(account)

    def moved(self, account: UUID) -> int:
        key = self.world.keys[account]
        return sum(log.amount_qu for log in self.chain.logs if log.destination == key and log.amount_qu >= MINIMUM)

    async def end(self) -> None:
        """Honest again and given time, everything is credited and swept."""
        barriers.install(None)
        await self._honest()
        self.chain.down, self.chain.lag, self.chain.log_lag = False, 2, 0
        for _ in range(6):
            self.chain.advance(20)
            assert await self.world.try_all()
        for account in self.accounts:
            assert await self.world.balance(account) == self.moved(account)
            assert await self.world.unswept(account) == 0
            found = await self.world.deposits(account)
            assert len({(one.tick, one.tx_id, one.output) for one in found}) == len(found)
        keys = [self.world.keys[account] for account in self.accounts]
        total = sum(log.amount_qu for log in self.chain.logs if log.destination in keys)
        wallet = [self.world.desk.signer.hot_public_key, *keys]
        assert sum(self.chain.balances.get(key, 0) for key in wallet) == total
        assert (await audit_now(self.world.desk.db)).clean

    # Events

    def _somebody(self) -> bytes:
        return self.world.keys[self.draw.choice(self.accounts)]

    async def _pay(self) -> None:
        self.chain.pay(self._somebody(), self.draw.randint(MINIMUM, 10_000))

    async def _pay_small(self) -> None:
        self.chain.pay(self._somebody(), self.draw.randint(1, MINIMUM - 1))

    async def _pay_broke(self) -> None:
        self.chain.pay(self._somebody(), 5_000, seed="b" * 55)

    async def _pay_many(self) -> None:
        others = [(key_of("z" * 55), 7)] if self.draw.random() < 0.5 else []
        count = self.draw.randint(1, 4)
        self.chain.pay_many([*others, *((self._somebody(), self.draw.randint(50, 500)) for _ in range(count))])

    async def _pay_many_short(self) -> None:
        self.chain.pay_many([(self._somebody(), 5_000)], short_qu=1)

    async def _tick(self) -> None:
        self.chain.advance()

    async def _ticks(self) -> None:
        self.chain.advance(self.draw.randint(2, 80))

    async def _long_pause(self) -> None:
        self.chain.advance(self.draw.randint(300, 1_500))

    async def _jump(self) -> None:
        self.chain.jump(self.draw.randint(1, 300))

    async def _round(self) -> None:
        await self.world.try_all()

    async def _at_once(self) -> None:
        with contextlib.suppress(ChainError):
            await asyncio.gather(*(scan.step(self.world.desk) for _ in range(3)))

    async def _restart(self) -> None:
        """Its predecessor comes to itself once more, and is stopped."""
        before = self.world.desk
        await self.world.again()
        with contextlib.suppress(TurnLost, ChainError):
            await scan.step(before)

    async def _die(self) -> None:
        chosen = self.draw.choice([one for one in Barrier if one.value.startswith(("deposits.", "sweep."))])

        async def port(barrier: Barrier) -> None:
            if barrier is chosen:
                raise Died

        barriers.install(port)
        with contextlib.suppress(Died):
            await self.world.try_all()
        barriers.install(None)
        await self.world.again()

    async def _misstate(self) -> None:
        self._lie(self.chain.misstated)

    async def _half_hide(self) -> None:
        self._lie(self.chain.half_hidden)

    def _lie(self, lies: set[str]) -> None:
        """About a transaction that nobody has read yet, or one that was. Where no log is looked at, a single source
        that lies about `moneyFlew` is believed (docs/adr/0016)."""
        told = [tx.tx_id for txs in self.chain.txs.values() for tx in txs]
        if told and self.chain.keeps_logs and self.chain.log_lag <= LOG_LAG_MAX:
            lies.add(self.draw.choice(told[-5:]))

    async def _honest(self) -> None:
        self.chain.misstated.clear()
        self.chain.half_hidden.clear()

    async def _logs(self) -> None:
        """Without logs nothing contradicts a false `moneyFlew`: one source is honest then, or is believed."""
        await self._honest()
        self.chain.keeps_logs = not self.chain.keeps_logs

    async def _lag(self) -> None:
        self.chain.lag, self.chain.log_lag = self.draw.randint(0, 12), self.draw.choice([0, 0, 5, 700])
        if self.chain.log_lag > LOG_LAG_MAX:
            await self._honest()

    async def _down(self) -> None:
        self.chain.down = not self.chain.down

    async def _lose_pool(self) -> None:
        """Nothing that waits ever reaches a leader."""
        self.chain.pool.clear()

    async def _new_account(self) -> None:
        if len(self.accounts) < 6:
            self.accounts.append(await self.world.account())


@pytest.mark.usefixtures("_no_port_stays")
@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=() if n < DAILY else pytest.mark.slow, id=f"seed-{n}") for n in range(SLOW)]
)
async def test_whatever_happens_each_payment_is_credited_once(db: Database, seed: int) -> None:
    await History(await World.make(db, deposit_min_qu=MINIMUM), seed).run()
