# SPDX-License-Identifier: Apache-2.0
"""The network's state and its tick loop, without clock, disk or wire: the same calls give the same history."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from qubix_chain.devnet import rules
from qubix_chain.devnet.rules import Book, Drop, Entity, Outcome, Tx


class Pending(NamedTuple):
    """A transaction in the pool. `order` counts arrivals: a leader lists in that order."""

    tx: Tx
    priority: int
    order: int


class Done(NamedTuple):
    """A listed transaction and what became of it."""

    tx: Tx
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What one tick did. `empty`: its leader was late, so that it has no data and all that it had listed is dead."""

    number: int
    epoch: int
    timestamp_ms: int
    empty: bool
    done: tuple[Done, ...]
    changed: frozenset[bytes]
    dead: tuple[str, ...]


class Interval(NamedTuple):
    epoch: int
    first_tick: int
    last_tick: int


class Admission(NamedTuple):
    """What became of a transaction that arrived: `dropped` says why it went nowhere, `pushed_out` whom it replaced."""

    pending: Pending | None
    dropped: Drop | None = None
    pushed_out: str | None = None


@dataclass(slots=True, kw_only=True)
class Chain:
    """`tick` is the one that the network works on: all before it are final. Everything here is written to disk."""

    tick: int
    epoch: int
    initial_tick: int
    burned: int = 0
    pause_left: int = 0
    arrivals: int = 0
    history: bytes = bytes(32)
    """A digest over all ticks so far."""
    entities: dict[bytes, Entity] = field(default_factory=dict)
    pool: dict[int, dict[str, Pending]] = field(default_factory=dict)
    """By target tick, also the lists that are fixed already."""
    drops: Counter[Drop] = field(default_factory=Counter)
    """Since the process started."""
    slots: int = rules.TICK_SLOTS

    @property
    def supply(self) -> int:
        return sum(one.balance for one in self.entities.values())

    @property
    def pending(self) -> int:
        return sum(map(len, self.pool.values()))

    def submit(self, tx: Tx, *, lost: bool = False) -> Admission:
        """It arrives at the network's nodes. What they do not keep is gone without a word."""
        pool = self.pool.get(tx.tick, {})
        source = self.entities.get(tx.source)
        dropped = rules.refusal(tx, tick=self.tick, source=source, pending=tx.id in pool)
        if dropped is None and lost:
            dropped = Drop.LOST
        if dropped is not None or source is None:
            return self._dropped(dropped or Drop.NO_BALANCE)
        mine, pushed_out = rules.priority(source, self.tick), None
        if len(pool) >= self.slots:
            pushed_out = rules.weakest({one: pending.priority for one, pending in pool.items()}, mine)
            if pushed_out is None:
                return self._dropped(Drop.FULL)
            del pool[pushed_out]
            self.drops[Drop.FULL] += 1
        self.arrivals += 1
        pending = Pending(tx, mine, self.arrivals)
        self.pool.setdefault(tx.tick, {})[tx.id] = pending
        return Admission(pending, pushed_out=pushed_out)

    def _dropped(self, why: Drop) -> Admission:
        self.drops[why] += 1
        return Admission(None, why)

    def step(self, now_ms: int, *, empty: bool = False) -> Tick | None:
        """The current tick runs, and the network goes on to the next one; None while an epoch's pause lasts."""
        if self.pause_left:
            self.pause_left -= 1
            return None
        listed = sorted(self.pool.pop(self.tick, {}).values(), key=lambda one: one.order)
        book = Book(self.entities, self.tick)
        done = () if empty else tuple(Done(one.tx, rules.execute(book, one.tx)) for one in listed)
        dead = tuple(one.tx.id for one in listed) if empty else ()
        if dead:
            self.drops[Drop.EMPTY] += len(dead)
        self.burned += book.burned
        made = Tick(
            number=self.tick,
            epoch=self.epoch,
            timestamp_ms=now_ms,
            empty=empty,
            done=done,
            changed=frozenset(book.changed),
            dead=dead,
        )
        self.history = _chained(self.history, made)
        self.tick += 1
        return made

    def switch_epoch(self, *, jump: int, pause: int) -> None:
        """The next epoch begins `jump` ticks further on, after a pause as long as `pause` ticks. What pends is lost."""
        if self.pool:
            self.drops[Drop.SKIPPED] += self.pending
        self.pool.clear()
        self.epoch += 1
        self.tick += jump
        self.initial_tick = self.tick
        self.pause_left = pause


def genesis(balances: Mapping[bytes, int], *, tick: int, epoch: int, slots: int = rules.TICK_SLOTS) -> Chain:
    entities = {
        key: Entity(incoming=amount, incoming_count=1, incoming_tick=tick) for key, amount in balances.items() if amount
    }
    return Chain(tick=tick, epoch=epoch, initial_tick=tick, entities=entities, slots=slots)


def _chained(before: bytes, tick: Tick) -> bytes:
    """Timestamps are left out: they are the clock's, not the ledger's."""
    said = [f"{tick.epoch} {tick.number} {int(tick.empty)}"]
    said += [f"{one.tx.id} {int(one.outcome.money_flew)} {one.outcome.events!r}" for one in tick.done]
    return hashlib.sha256(before + "\n".join(said).encode()).digest()
