# SPDX-License-Identifier: Apache-2.0
"""Deposits on a real database and a network in memory; time passes when the test says so."""

import contextlib
from dataclasses import dataclass, field, replace
from uuid import UUID

from qubix_chain.rpc.errors import ChainError
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.clock import FakeClock
from qubix_coordinator.db.database import Database
from qubix_coordinator.deposits import pool, read, scan, sweep
from qubix_coordinator.deposits.desk import ChainDesk, take_turn
from qubix_coordinator.ledger import read as ledger
from qubix_coordinator.ledger.rules import user
from qubix_coordinator.settings import Settings
from tests.support.fake_chain import FakeChain, FakeSigner


@dataclass
class World:
    desk: ChainDesk
    chain: FakeChain
    keys: dict[UUID, bytes] = field(default_factory=dict)

    @classmethod
    async def make(cls, db: Database, chain: FakeChain | None = None, **settings: object) -> "World":
        network = chain or FakeChain()
        signer = FakeSigner()
        fence = await db.run(take_turn)
        chosen = Settings(**{"deposit_min_qu": 100, **settings})  # type: ignore[arg-type]
        desk = ChainDesk(db, network, signer, chosen, FakeClock(), "devnet", fence)
        await desk.run(lambda tx: pool.fill(tx, signer, 8))
        await scan.step(desk)
        return cls(desk, network)

    async def account(self, name: str = "somebody") -> UUID:
        """With a deposit identity."""

        async def made(tx):  # type: ignore[no-untyped-def]
            account_id = await accounts.create_account(tx, name)
            return account_id, await pool.assign(tx, account_id)

        account_id, key = await self.desk.db.run(made)
        self.keys[account_id] = key
        return account_id

    async def again(self) -> None:
        """As after a restart: another turn of the same chain process."""
        self.desk = replace(self.desk, fence=await self.desk.db.run(take_turn))

    async def settle(self, ticks: int = 1) -> None:
        """The network goes on, and everything that can be read is."""
        self.chain.advance(ticks)
        await self.read_all()

    async def read_all(self) -> None:
        while (await scan.step(self.desk)).behind:
            pass

    async def sweep(self) -> None:
        info, processed = await self.chain.tick_info(), await self.chain.last_processed_tick()
        await sweep.step(self.desk, info, processed)

    async def try_all(self) -> bool:
        """One round as the chain process makes it; False when the network's answers stopped it."""
        with contextlib.suppress(ChainError):
            await self.read_all()
            await self.sweep()
            return True
        return False

    async def balance(self, account_id: UUID) -> int:
        return await self.desk.db.run(lambda tx: ledger.balance_qu(tx, user(account_id)))

    async def deposits(self, account_id: UUID) -> list[read.Deposit]:
        return await self.desk.db.run(lambda tx: read.deposits(tx, account_id))

    async def unswept(self, account_id: UUID) -> int:
        return await self.desk.db.run(lambda tx: read.unswept_qu(tx, account_id))
