# SPDX-License-Identifier: Apache-2.0
"""The ledger's rules as the network's nodes apply them: who may pend, what a transaction moves. Pure; whole QU."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, NamedTuple

from qubix_chain import contracts
from qubix_chain.contracts import AMOUNT_QU_MAX, CONTRACT_COUNT, QUTIL, SEND_TO_MANY_FEE_QU, SEND_TO_MANY_INPUT_TYPE
from qubix_chain.identity import NULL

LIST_AHEAD: Final = 2
"""The list of tick T is fixed while the network is at T-2."""
POOL_WINDOW: Final = 600_000 // 225
"""How many ticks ahead of the current one a transaction may aim."""
TICK_SLOTS: Final = 4093
"""Transactions of users in one tick."""
QU_TRANSFER: Final = 0
BURNING: Final = 8


class Tx(NamedTuple):
    """A transaction whose signature was checked. `id` is 60 lower-case letters; `raw` all its bytes."""

    id: str
    source: bytes
    destination: bytes
    amount: int
    tick: int
    input_type: int
    payload: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Entity:
    """What the network keeps of one public key. Totals and counts never fall; ticks are those of the latest one."""

    incoming: int = 0
    outgoing: int = 0
    incoming_count: int = 0
    outgoing_count: int = 0
    incoming_tick: int = 0
    outgoing_tick: int = 0

    @property
    def balance(self) -> int:
        return self.incoming - self.outgoing


class Event(NamedTuple):
    """One event log: `kind` is QU_TRANSFER, or BURNING (then without a destination)."""

    kind: int
    source: bytes
    destination: bytes
    amount: int


class Outcome(NamedTuple):
    money_flew: bool
    events: tuple[Event, ...]


class Drop(StrEnum):
    """Why a transaction goes nowhere. Nobody is told, as on the real network; the devnet's own status counts them."""

    LATE = "late"
    """The list of its tick is fixed already."""
    TOO_FAR = "too_far"
    DUPLICATE = "duplicate"
    CONTRACT = "contract"
    """Its source is a contract's address."""
    NO_BALANCE = "no_balance"
    """Its source is unknown or has nothing."""
    FULL = "full"
    """Its tick is full of transactions of higher priority."""
    LOST = "lost"
    """A fault: it never reached a leader."""
    SKIPPED = "skipped"
    """The epoch ended before its tick."""
    EMPTY = "empty_tick"
    """A fault: its tick stayed empty."""


def contract_index(public_key: bytes) -> int | None:
    """Of the address of a contract that exists."""
    index = contracts.contract_index(public_key)
    return index if index is not None and index <= CONTRACT_COUNT else None


def refusal(tx: Tx, *, tick: int, source: Entity | None, pending: bool) -> Drop | None:
    """Why it cannot pend while the network is at `tick`; room in its own tick is another question."""
    if tx.tick <= tick + LIST_AHEAD:
        return Drop.LATE
    if tx.tick > tick + POOL_WINDOW:
        return Drop.TOO_FAR
    if pending:
        return Drop.DUPLICATE
    if contract_index(tx.source) is not None or tx.source == NULL:
        return Drop.CONTRACT
    return Drop.NO_BALANCE if source is None or source.balance <= 0 else None


def priority(source: Entity, tick: int) -> int:
    """Who stays when a tick is full: much QU that have long rested."""
    last = source.outgoing_tick if source.outgoing_count else source.incoming_tick
    return source.balance * (tick - last + 1)


def weakest(priorities: Mapping[str, int], new: int) -> str | None:
    """Which pending transaction gives way to a new one of that priority; None when the new one does not fit."""
    lowest = min(priorities, key=lambda one: priorities[one])
    return lowest if priorities[lowest] < new else None


@dataclass(slots=True)
class Book:
    """Balances while a tick runs. `entities` is changed in place; `changed` says where."""

    entities: dict[bytes, Entity]
    tick: int
    changed: set[bytes] = field(default_factory=set)
    burned: int = 0

    def debit(self, key: bytes, amount: int) -> bool:
        """False, and nothing moves, when the balance does not cover it."""
        found = self.entities.get(key)
        if found is None or found.balance < amount:
            return False
        self._put(
            key,
            replace(
                found,
                outgoing=found.outgoing + amount,
                outgoing_count=found.outgoing_count + 1,
                outgoing_tick=self.tick,
            ),
        )
        return True

    def credit(self, key: bytes, amount: int) -> None:
        if key == NULL:
            self.burned += amount
            return
        found = self.entities.get(key, Entity())
        self._put(
            key,
            replace(
                found,
                incoming=found.incoming + amount,
                incoming_count=found.incoming_count + 1,
                incoming_tick=self.tick,
            ),
        )

    def _put(self, key: bytes, entity: Entity) -> None:
        self.entities[key] = entity
        self.changed.add(key)


def execute(book: Book, tx: Tx) -> Outcome:
    """Runs one listed transaction; it stays listed whatever becomes of it."""
    if contract_index(tx.source) is not None or not book.debit(tx.source, tx.amount):
        return Outcome(False, ())
    book.credit(tx.destination, tx.amount)
    events = [Event(QU_TRANSFER, tx.source, tx.destination, tx.amount)] if tx.amount else []
    if contract_index(tx.destination) == QUTIL and tx.input_type == SEND_TO_MANY_INPUT_TYPE:
        events += _send_to_many(book, tx)
    return Outcome(tx.amount > 0, tuple(events))


def _send_to_many(book: Book, tx: Tx) -> Iterator[Event]:
    """QUTIL's SendToManyV1: the exact sum and fee, or everything goes back. The fee is burned."""
    outputs = outputs_of(tx.payload)
    total = sum(amount for _, amount in outputs) + SEND_TO_MANY_FEE_QU
    if any(not 0 <= amount < AMOUNT_QU_MAX for _, amount in outputs) or tx.amount != total:
        yield from _pay(book, tx.destination, tx.source, tx.amount)
        return
    for destination, amount in outputs:
        if destination != NULL:
            yield from _pay(book, tx.destination, destination, amount)
    book.debit(tx.destination, SEND_TO_MANY_FEE_QU)
    book.credit(NULL, SEND_TO_MANY_FEE_QU)
    yield Event(BURNING, tx.destination, NULL, SEND_TO_MANY_FEE_QU)


def _pay(book: Book, source: bytes, destination: bytes, amount: int) -> Iterator[Event]:
    if amount and book.debit(source, amount):
        book.credit(destination, amount)
        yield Event(QU_TRANSFER, source, destination, amount)


def outputs_of(payload: bytes) -> list[tuple[bytes, int]]:
    """(destination, amount) of SendToManyV1's 25 places; a short payload is filled with zeros, as contracts see it."""
    count = contracts.SEND_TO_MANY_OUTPUTS_MAX
    full = payload[: contracts.SEND_TO_MANY_SIZE].ljust(contracts.SEND_TO_MANY_SIZE, b"\0")
    amounts = full[32 * count :]
    return [
        (full[32 * n : 32 * n + 32], int.from_bytes(amounts[8 * n : 8 * n + 8], "little", signed=True))
        for n in range(count)
    ]
