# SPDX-License-Identifier: Apache-2.0
"""A bank in one database, driven by hand: people with bound wallets and listed addresses, a clock that stands still."""

import uuid
from dataclasses import dataclass, field
from uuid import UUID

from qubix_chain import crypto, identity
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Principal, Scope
from qubix_coordinator.clock import FakeClock
from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.ledger.audit import audit_now
from qubix_coordinator.ledger.post import post
from qubix_coordinator.ledger.read import balance_qu
from qubix_coordinator.settings import Settings
from qubix_coordinator.withdrawals import addresses, service
from qubix_coordinator.withdrawals.desk import Desk
from qubix_coordinator.withdrawals.engine import Engine
from qubix_protocol.withdrawals import AddressBody, WithdrawalBody, WithdrawalView

RICH = 1_000_000


def key_of(seed: int) -> bytes:
    """A public key that somebody could hold."""
    return crypto.public_key(crypto.private_key(seed.to_bytes(32, "little")))


@dataclass
class Person:
    """An account with a wallet that is bound and listed."""

    account_id: UUID
    wallet: bytes

    @property
    def who(self) -> Principal:
        return Principal(self.account_id, frozenset({Scope.USER}))

    @property
    def destination(self) -> str:
        return identity.encode(self.wallet)


@dataclass
class Bank:
    db: Database
    clock: FakeClock = field(default_factory=FakeClock)
    settings: Settings = field(default_factory=lambda: Settings(withdrawal_address_delay_s=0, withdrawal_min_qu=1))

    @property
    def desk(self) -> Desk:
        return Desk(self.db, self.settings, self.clock)

    @property
    def engine(self) -> Engine:
        return Engine(self.desk)

    async def person(self, seed: int = 1, qu: int = RICH, *, listed: bool = True) -> Person:
        public_key = key_of(seed)

        async def make(tx: object) -> UUID:
            account_id = await accounts.create_account(tx, f"person {seed}", account_id=uuid.uuid4())  # type: ignore[arg-type]
            await execute(
                tx,  # type: ignore[arg-type]
                "INSERT INTO wallet (id, account_id, public_key, proof) VALUES ($1, $2, $3, 'signature')",
                uuid.uuid4(),
                account_id,
                public_key,
            )
            return account_id

        person = Person(await self.db.run(make), public_key)
        if qu:
            await self.deposit(person.account_id, qu)
        if listed:
            await addresses.add(self.desk, person.account_id, AddressBody(identity=person.destination))
        return person

    async def deposit(self, account_id: UUID, qu: int) -> None:
        tx_id = identity.encode_tx_id(uuid.uuid4().bytes * 2)
        transfer = ledger.deposit(account_id, qu, network="devnet", tick=1, tx_id=tx_id, output=0)
        await self.db.run(lambda tx: post(tx, [transfer]))

    async def earn(self, account_id: UUID, qu: int) -> None:
        """Settled to the account out of a job of somebody else."""
        payer, job = await self.person(seed=99, qu=qu, listed=False), uuid.uuid4()
        moves = [ledger.hold(job, payer.account_id, qu), ledger.settle(job, uuid.uuid4(), account_id, qu, 0)]
        await self.db.run(lambda tx: post(tx, moves))

    async def balance(self, account_id: UUID) -> int:
        return await self.db.run(lambda tx: balance_qu(tx, ledger.user(account_id)))

    async def ask(self, person: Person, qu: int, key: str = "") -> WithdrawalView:
        body = WithdrawalBody(destination=person.destination, amount_qu=qu)
        return await service.request(self.desk, person.who, body, key or str(uuid.uuid4()))

    async def see(self, person: Person, asked: WithdrawalView) -> WithdrawalView:
        return await service.get(self.desk, person.who, UUID(asked.withdrawal_id))

    async def operator(self) -> Principal:
        account_id = await self.db.run(lambda tx: accounts.create_account(tx, "operator", "operator"))
        return Principal(account_id, frozenset({Scope.OPERATOR}))

    async def clean(self) -> bool:
        return (await audit_now(self.db)).clean
