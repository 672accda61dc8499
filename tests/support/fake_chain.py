# SPDX-License-Identifier: Apache-2.0
"""A network in memory behind the `Chain` port: honest unless told to lie, and still but for `advance`."""

import dataclasses
import functools
from collections.abc import Sequence

from qubix_chain import crypto
from qubix_chain.contracts import QUTIL, SEND_TO_MANY_INPUT_TYPE, contract_id, parse_send_to_many, send_to_many
from qubix_chain.rpc.errors import Malformed, NotYetProcessed, RefusedByNetwork, SkippedTick, Unreachable
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

SEND_MANY = contract_id(QUTIL)
FAUCET_SEED = "f" * 55


@functools.cache
def key_of(seed: str) -> bytes:
    return crypto.public_key(crypto.private_key(crypto.subseed(seed)))


class FakeSigner:
    """Seeds of one letter each: hot is `h`, deposit identity `n` is made of `d` and its number in letters."""

    def __init__(self, letter: str = "d") -> None:
        self._letter = letter

    def _seed(self, index: int) -> str:
        return self._letter * 50 + "".join(chr(ord("a") + index // 26**k % 26) for k in range(5))

    @property
    def hot_public_key(self) -> bytes:
        return key_of("h" * 55)

    def deposit_public_key(self, index: int) -> bytes:
        return key_of(self._seed(index))

    def sign_payment(self, *, destination: bytes, amount_qu: int, tick: int) -> Signed:
        return signed("h" * 55, destination, amount_qu, tick)

    def sign_sweep(self, index: int, *, amount_qu: int, tick: int) -> Signed:
        return signed(self._seed(index), self.hot_public_key, amount_qu, tick)


def signed(seed: str, destination: bytes, amount_qu: int, tick: int) -> Signed:
    made = Transaction.build(source=key_of(seed), destination=destination, amount=amount_qu, tick=tick).sign(seed)
    return Signed(made.to_bytes(), made.id, made.source, destination, amount_qu, tick)


class FakeChain:
    """`tick` is live; the archive is at `tick - lag`."""

    def __init__(self, tick: int = 1000) -> None:
        self.first = tick
        self.tick, self.epoch, self.lag, self.log_lag = tick, 227, 2, 0
        self.faucet = key_of(FAUCET_SEED)
        self.balances: dict[bytes, int] = {self.faucet: 10**15}
        self.told_ms: int | None = None
        """When the archive says that a tick was; None: it does not say."""
        self.incoming: dict[bytes, int] = {}
        self.outgoing: dict[bytes, list[int]] = {}
        self.pool: list[Transaction] = []
        self.txs: dict[int, list[Archived]] = {}
        self.logs: list[QuTransfer] = []
        self.skipped: list[range] = []
        self.keeps_logs = True
        self.down = False
        self.garbled = False
        """Its answers to a broadcast make no sense, though it takes it."""
        self.hidden: set[str] = set()
        self.misstated: set[str] = set()
        self.half_hidden: set[str] = set()
        self.invented: list[Archived] = []
        self.asked = 0

    # What happens

    def advance(self, ticks: int = 1) -> None:
        for _ in range(ticks):
            self.tick += 1
            due, self.pool = [t for t in self.pool if t.tick == self.tick], [t for t in self.pool if t.tick > self.tick]
            for tx in due:
                self._run(tx)

    def jump(self, ticks: int) -> None:
        """An epoch's end: these ticks are never made."""
        self.skipped.append(range(self.tick + 1, self.tick + 1 + ticks))
        self.tick += ticks
        self.epoch += 1
        self.pool = [tx for tx in self.pool if tx.tick > self.tick]
        self.advance()

    def pay(self, destination: bytes, amount_qu: int, *, seed: str = FAUCET_SEED) -> str:
        """In the next tick."""
        tick = self.tick + 1
        made = Transaction.build(source=key_of(seed), destination=destination, amount=amount_qu, tick=tick).sign(seed)
        self.pool.append(made)
        return made.id

    def pay_many(self, outputs: Sequence[tuple[bytes, int]], *, short_qu: int = 0) -> str:
        """`short_qu` less than is due makes the contract give all of it back."""
        payload, amount = send_to_many(outputs)
        made = Transaction.build(
            source=self.faucet,
            destination=SEND_MANY,
            amount=amount - short_qu,
            tick=self.tick + 1,
            input_type=SEND_TO_MANY_INPUT_TYPE,
            payload=payload,
        ).sign(FAUCET_SEED)
        self.pool.append(made)
        return made.id

    def _run(self, tx: Transaction) -> None:
        flew = 0 < tx.amount <= self.balances.get(tx.source, 0)
        if tx.destination == SEND_MANY:
            outputs = parse_send_to_many(tx.payload)
            flew = flew and tx.amount == sum(one.amount for one in outputs) + 10
            if flew:
                self._move(tx, tx.source, SEND_MANY, tx.amount)
                for one in outputs:
                    self._move(tx, SEND_MANY, one.destination, one.amount)
        elif flew:
            self._move(tx, tx.source, tx.destination, tx.amount)
        assert tx.signature is not None
        told = Archived(
            tx.id,
            tx.source,
            tx.destination,
            tx.amount,
            tx.tick,
            tx.input_type,
            tx.payload,
            tx.signature,
            flew,
            timestamp_ms=self.told_ms,
        )
        self.txs.setdefault(tx.tick, []).append(told)

    def _move(self, tx: Transaction, source: bytes, destination: bytes, amount: int) -> None:
        self.balances[source] = self.balances.get(source, 0) - amount
        self.balances[destination] = self.balances.get(destination, 0) + amount
        self.incoming[destination] = self.incoming.get(destination, 0) + amount
        self.outgoing.setdefault(source, []).append(amount)
        self.logs.append(QuTransfer(tx.tick, self.epoch, tx.id, len(self.logs), source, destination, amount))

    # What is told

    @property
    def archived(self) -> int:
        return max(self.first, self.tick - self.lag)

    def _answer(self) -> None:
        self.asked += 1
        if self.down:
            raise Unreachable("the fake network is down")

    async def tick_info(self) -> TickInfo:
        self._answer()
        return TickInfo(self.tick, self.epoch, self.first)

    async def balance(self, public_key: bytes) -> Balance:
        self._answer()
        paid = self.outgoing.get(public_key, [])
        amount = self.balances.get(public_key, 0)
        return Balance(public_key, amount, self.incoming.get(public_key, 0), sum(paid), 0, len(paid), 0, 0, self.tick)

    async def broadcast(self, raw: bytes) -> Broadcast:
        self._answer()
        tx = Transaction.parse(raw)
        if tx.tick <= self.tick:
            raise RefusedByNetwork("Target tick should be greater than max tick")
        if tx.id not in {one.id for one in self.pool}:
            self.pool.append(tx)
        if self.garbled:
            raise Malformed("the answer to a broadcast names no peers")
        return Broadcast(tx.id, 3)

    async def epoch_end(self) -> EpochEnd:
        self._answer()
        return EpochEnd(self.epoch, None, None)

    async def last_processed_tick(self) -> Processed:
        self._answer()
        logs = self.archived - self.log_lag if self.keeps_logs else None
        return Processed(self.archived, self.epoch, logs)

    async def processed_intervals(self) -> Sequence[Interval]:
        self._answer()
        found, start = [], self.first
        for gap in self.skipped:
            found.append(Interval(self.epoch, start, gap[0] - 1))
            start = gap[-1] + 1
        if start <= self.archived:
            found.append(Interval(self.epoch, start, self.archived))
        else:
            found[-1:] = [dataclasses.replace(found[-1], last_tick=min(found[-1].last_tick, self.archived))]
        return found

    def _told(self, tick: int) -> list[Archived]:
        found = [
            dataclasses.replace(tx, money_flew=not tx.money_flew) if tx.tx_id in self.misstated else tx
            for tx in self.txs.get(tick, [])
            if tx.tx_id not in self.hidden
        ]
        return found + [tx for tx in self.invented if tx.tick == tick]

    def _check(self, tick: int) -> None:
        if tick > self.archived:
            raise NotYetProcessed(tick, self.archived)
        for gap in self.skipped:
            if tick in gap:
                raise SkippedTick(tick, gap[-1] + 1)

    async def transaction_by_hash(self, tx_id: str) -> Archived | None:
        self._answer()
        every = (tx for tick in range(self.first, self.archived + 1) for tx in self._told(tick))
        return next((tx for tx in every if tx.tx_id == tx_id), None)

    async def tick_data(self, tick: int) -> TickData | None:
        self._answer()
        self._check(tick)
        ids = tuple(tx.tx_id for tx in self._told(tick))
        return TickData(tick, self.epoch, None, ids) if ids else None

    async def transactions_for_tick(self, tick: int) -> Sequence[Archived]:
        self._answer()
        self._check(tick)
        return [tx for tx in self._told(tick) if tx.tx_id not in self.half_hidden]

    async def transactions_to(self, public_key: bytes, first_tick: int, last_tick: int) -> Sequence[Archived]:
        self._answer()
        every = (tx for tick in range(first_tick, last_tick + 1) for tx in self._told(tick))
        return [tx for tx in every if tx.destination == public_key]

    async def send_manys(self, first_tick: int, last_tick: int) -> Sequence[Archived]:
        return await self.transactions_to(SEND_MANY, first_tick, last_tick)

    async def qu_transfers(self, tick: int, destination: bytes) -> Sequence[QuTransfer] | None:
        self._answer()
        if not self.keeps_logs:
            return None
        return [log for log in self.logs if log.tick == tick and log.destination == destination]
