# SPDX-License-Identifier: Apache-2.0
"""A Qubic network in memory, by reference.md §3 and §8: no sockets, no clock, every fault on demand.

`FakeNetwork` is the truth; a `FakeSource` is what one API tells of it, late or falsely if asked to. `FakeSigner` signs
for the hot identity with real keys.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from qubix_chain import crypto
from qubix_chain.rpc.errors import NotYetProcessed, RefusedByNetwork, SkippedTick, Unreachable
from qubix_chain.rpc.types import (
    Archived,
    Balance,
    Broadcast,
    EpochEnd,
    Interval,
    Processed,
    QuTransfer,
    TickData,
    TickInfo,
)
from qubix_chain.transaction import Transaction
from qubix_coordinator.deposits.ports import Signed

LIST_AHEAD = 2
WINDOW = 2666


@dataclass
class Entity:
    incoming_qu: int = 0
    outgoing_qu: int = 0
    incoming_count: int = 0
    outgoing_count: int = 0
    incoming_tick: int = 0
    outgoing_tick: int = 0

    @property
    def balance_qu(self) -> int:
        return self.incoming_qu - self.outgoing_qu


@dataclass
class FakeNetwork:
    """`step()` makes one tick. `drop` are ids that never reach a tick's list; `empty` are ticks that stay empty."""

    tick: int = 1000
    epoch: int = 100
    initial_tick: int = 900
    entities: dict[bytes, Entity] = field(default_factory=dict)
    pool: dict[int, dict[str, Transaction]] = field(default_factory=dict)
    ticks: dict[int, list[Archived]] = field(default_factory=dict)
    intervals: list[Interval] = field(default_factory=list)
    drop_next: bool = False
    empty_next: bool = False
    epoch_end_tick: int | None = None
    logs: bool = False

    def fund(self, public_key: bytes, qu: int) -> None:
        entity = self.entities.setdefault(public_key, Entity())
        entity.incoming_qu += qu
        entity.incoming_count += 1
        entity.incoming_tick = self.tick

    def balance_qu(self, public_key: bytes) -> int:
        return self.entities.get(public_key, Entity()).balance_qu

    def take(self, raw: bytes) -> str:
        """Broadcast: no word about inclusion. Raises RefusedByNetwork for a tick that is over."""
        signed = Transaction.parse(raw)
        if signed.tick <= self.tick:
            raise RefusedByNetwork(f"Target tick: {signed.tick} should be greater than max tick: {self.tick}")
        if self.drop_next:
            self.drop_next = False
        elif signed.tick - self.tick > LIST_AHEAD and signed.tick - self.tick <= WINDOW:
            self.pool.setdefault(signed.tick, {})[signed.id] = signed
        return signed.id

    def step(self) -> None:
        self.tick += 1
        listed = [] if self.empty_next else list(self.pool.pop(self.tick, {}).values())
        self.empty_next = False
        self.pool.pop(self.tick, None)
        self.ticks[self.tick] = [self._run(one) for one in listed]

    def jump(self, ticks: int) -> None:
        """The epoch ends: tick numbers jump, and what was pooled for the old epoch is gone."""
        self.intervals.append(Interval(self.epoch, self.initial_tick, self.tick))
        self.tick += ticks
        self.epoch += 1
        self.initial_tick = self.tick
        self.pool.clear()
        self.ticks[self.tick] = []

    def _run(self, signed: Transaction) -> Archived:
        source = self.entities.setdefault(signed.source, Entity())
        flew = 0 < signed.amount <= source.balance_qu
        if flew:
            source.outgoing_qu += signed.amount
            source.outgoing_count += 1
            source.outgoing_tick = self.tick
            self.fund(signed.destination, signed.amount)
        return Archived(
            tx_id=signed.id,
            source=signed.source,
            destination=signed.destination,
            amount_qu=signed.amount,
            tick=self.tick,
            input_type=0,
            payload=b"",
            signature=signed.signature,
            money_flew=flew,
        )

    def paid(self, public_key: bytes) -> int:
        """What ever ran to this key."""
        ran = (one for tick in self.ticks.values() for one in tick if one.money_flew)
        return sum(one.amount_qu for one in ran if one.destination == public_key)


@dataclass
class FakeSource:
    """`lag`: by how many ticks its archive is behind. While it `lies` it hides or invents what became of a transaction;
    its totals stay true, as those of a live node would."""

    network: FakeNetwork
    lag: int = 0
    down: bool = False
    lies: str = ""
    """"" or "hides" (nothing ran), "invents" (all ran), "half" (listed and not found)."""
    frozen: dict[bytes, Entity] | None = None
    """Balances that it goes on telling, whatever happens."""
    seen: list[Transaction] = field(default_factory=list)

    def freeze(self) -> None:
        self.frozen = copy.deepcopy(self.network.entities)

    def _up(self) -> FakeNetwork:
        if self.down:
            raise Unreachable("no answer within a second")
        return self.network

    @property
    def _processed(self) -> int:
        return max(self.network.initial_tick, self.network.tick - self.lag)

    async def tick_info(self) -> TickInfo:
        network = self._up()
        return TickInfo(network.tick, network.epoch, network.initial_tick)

    async def balance(self, public_key: bytes) -> Balance:
        network = self._up()
        entity = (self.frozen or network.entities).get(public_key, Entity())
        return Balance(
            public_key,
            entity.balance_qu,
            entity.incoming_qu,
            entity.outgoing_qu,
            entity.incoming_count,
            entity.outgoing_count,
            entity.incoming_tick,
            entity.outgoing_tick,
            network.tick,
        )

    async def broadcast(self, raw: bytes) -> Broadcast:
        network = self._up()
        self.seen.append(Transaction.parse(raw))
        return Broadcast(network.take(raw), 3)

    async def last_processed_tick(self) -> Processed:
        network = self._up()
        logs = self._processed if network.logs else None
        return Processed(self._processed, network.epoch, logs)

    async def processed_intervals(self) -> Sequence[Interval]:
        network = self._up()
        return [*network.intervals, Interval(network.epoch, network.initial_tick, self._processed)]

    async def transaction_by_hash(self, tx_id: str) -> Archived | None:
        network = self._up()
        if self.lies in ("hides", "half"):
            return None
        if self.lies == "invents":
            return next((_invented(one) for one in self.seen if one.id == tx_id), None)
        ticks = (tick for at, tick in network.ticks.items() if at <= self._processed)
        return next((one for tick in ticks for one in tick if one.tx_id == tx_id), None)

    async def tick_data(self, tick: int) -> TickData | None:
        network = self._up()
        self._reach(tick)
        ids = tuple(one.tx_id for one in network.ticks.get(tick, ()))
        if self.lies in ("invents", "half"):
            ids = tuple(one.id for one in self.seen if one.tick == tick)
        if self.lies == "hides":
            ids = ()
        return TickData(tick, network.epoch, None, ids) if ids else None

    def _reach(self, tick: int) -> None:
        if tick > self._processed:
            raise NotYetProcessed(tick, self._processed)
        starts = [*(one.first_tick for one in self.network.intervals[1:]), self.network.initial_tick]
        for ended, following in zip(self.network.intervals, starts, strict=False):
            if ended.last_tick < tick < following:
                raise SkippedTick(tick, following)

    async def transactions_for_tick(self, tick: int) -> Sequence[Archived]:
        self._up()
        self._reach(tick)
        return self.network.ticks.get(tick, [])

    async def transactions_to(self, public_key: bytes, first_tick: int, last_tick: int) -> Sequence[Archived]:
        network = self._up()
        ticks = range(first_tick, min(last_tick, self._processed) + 1)
        return [one for tick in ticks for one in network.ticks.get(tick, ()) if one.destination == public_key]

    async def send_manys(self, first_tick: int, last_tick: int) -> Sequence[Archived]:
        self._up()
        return []

    async def qu_transfers(self, tick: int, destination: bytes) -> Sequence[QuTransfer] | None:
        network = self._up()
        if not network.logs:
            return None
        return [
            QuTransfer(one.tick, network.epoch, one.tx_id, 0, one.source, destination, one.amount_qu)
            for one in await self.transactions_to(destination, tick, tick)
            if one.money_flew and not self.lies
        ]

    async def epoch_end(self) -> EpochEnd:
        network = self._up()
        return EpochEnd(network.epoch, None, network.epoch_end_tick)


def _invented(signed: Transaction) -> Archived:
    return Archived(
        signed.id, signed.source, signed.destination, signed.amount, signed.tick, 0, b"", signed.signature, True
    )


class FakeSigner:
    """A hot identity and no pool."""

    def __init__(self, secret: int) -> None:
        self._subseed = secret.to_bytes(32, "little")
        self._public = crypto.public_key(crypto.private_key(self._subseed))

    @property
    def hot_public_key(self) -> bytes:
        return self._public

    def deposit_public_key(self, index: int) -> bytes:
        raise NotImplementedError("withdrawals are paid from the hot identity alone")

    def sign_payment(self, *, destination: bytes, amount_qu: int, tick: int) -> Signed:
        built = Transaction.build(source=self._public, destination=destination, amount=amount_qu, tick=tick)
        signed = built.sign(self._subseed)
        return Signed(signed.to_bytes(), signed.id, self._public, destination, amount_qu, tick)

    def sign_sweep(self, index: int, *, amount_qu: int, tick: int) -> Signed:
        raise NotImplementedError("withdrawals are paid from the hot identity alone")
