# SPDX-License-Identifier: Apache-2.0
"""Which payments a transaction makes, which ticks are looked at and how, and what becomes of a signed sweep or
withdrawal. Pure (Q1, Q2)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Final
from uuid import UUID, uuid5

from qubix_chain.contracts import (
    AMOUNT_QU_MAX,
    QUTIL,
    SEND_TO_MANY_FEE_QU,
    SEND_TO_MANY_INPUT_TYPE,
    contract_id,
    parse_send_to_many,
)
from qubix_chain.rpc.types import Archived, Interval, Processed, QuTransfer
from qubix_coordinator.ledger.rules import CAUSES

SEND_MANY: Final = contract_id(QUTIL)
LOG_LAG_MAX: Final = 600
"""Event logs that are further behind than so many ticks are not waited for: `moneyFlew` stands in."""
TICKS_BATCH: Final = 64
"""Ticks read one by one in one step."""
RANGE_BATCH: Final = 20_000
"""Ticks asked for at once, identity by identity."""
RANGE_FROM: Final = 256
"""A shorter way is walked tick by tick, which also checks that the archive's two lists of a tick are the same."""
AHEAD: Final = 12
"""Ticks between signing a sweep and the tick it is to run in."""
TICKS_AHEAD_MIN: Final = 5
"""A tick's list is made two ticks before it: a nearer target would be missed."""


class DepositState(StrEnum):
    SEEN = "seen"
    """On the chain and verified; not credited, and `reason` says why."""
    CREDITED = "credited"
    SWEPT = "swept"
    """Credited, and its QU are with the hot identity: they can be withdrawn."""


class Reason(StrEnum):
    NONE = ""
    BELOW_MINIMUM = "below_minimum"


class Evidence(StrEnum):
    """What shows that the QU moved; one for each payment, never both."""

    EVENT_LOG = "event_log"
    MONEY_FLEW = "money_flew"


@dataclass(frozen=True, slots=True)
class Payment:
    """QU to one identity in one place of one transaction; `output` is 0 for a plain transfer. `at_ms` is when its tick
    was, by the archive's word, which no signature covers."""

    tick: int
    tx_id: str
    output: int
    source: bytes
    destination: bytes
    amount_qu: int
    at_ms: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Proven:
    payment: Payment
    evidence: Evidence


def deposit_id(network: str, payment: Payment) -> UUID:
    return uuid5(CAUSES, f"deposit:{network}:{payment.tick}:{payment.tx_id}:{payment.output}:row")


# What a transaction pays --------------------------------------------------------------------------------------------


def destinations(tx: Archived) -> Sequence[bytes]:
    """Whom it may pay, before anything of it is verified."""
    return [payment.destination for payment in payments(tx)]


def payments(tx: Archived) -> Sequence[Payment]:
    """What it pays if its QU moved: a plain transfer, or the outputs of a SendToManyV1 whose sum and fee are exact.

    Other contracts' pay-outs are not recognised: nothing that a signature covers says what they pay.
    """
    if tx.input_type == 0 and 1 <= tx.amount_qu <= AMOUNT_QU_MAX:
        return [Payment(tx.tick, tx.tx_id, 0, tx.source, tx.destination, tx.amount_qu, tx.timestamp_ms)]
    if tx.destination != SEND_MANY or tx.input_type != SEND_TO_MANY_INPUT_TYPE:
        return []
    try:
        outputs = parse_send_to_many(tx.payload)
    except ValueError:
        return []
    if tx.amount_qu != sum(output.amount for output in outputs) + SEND_TO_MANY_FEE_QU:
        return []
    return [
        Payment(tx.tick, tx.tx_id, output.index, tx.source, output.destination, output.amount, tx.timestamp_ms)
        for output in outputs
        if output.amount > 0
    ]


class Unproven(Exception):
    """What the archive says of one payment does not fit together: wait, and credit nothing of this tick."""


def proven(payment: Payment, tx: Archived, logs: Sequence[QuTransfer] | None, same: Sequence[Payment]) -> Proven | None:
    """None: no QU moved. `logs`: the event logs of QU to this destination in this tick, None where there are none to be
    had. `same`: all payments of this transaction to this destination, in order. Raises Unproven."""
    if logs is None:
        return Proven(payment, Evidence.MONEY_FLEW) if tx.money_flew else None
    told = sorted(log.amount_qu for log in logs if log.tx_id == tx.tx_id)
    if told == sorted(one.amount_qu for one in same) and tx.money_flew:
        return Proven(payment, Evidence.EVENT_LOG)
    if not told and not tx.money_flew:
        return None
    raise Unproven(f"transaction {tx.tx_id} of tick {tx.tick}: its event logs and what it pays are not the same")


# Which ticks are looked at ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reach:
    """Ticks up to `tick` may be looked at; those up to `logs_tick` by event logs."""

    tick: int
    logs_tick: int


def reach(processed: Processed) -> Reach:
    """Logs that lag a little are waited for, so that a payment is not judged by less than there will be."""
    if processed.log_tick is None or processed.log_tick + LOG_LAG_MAX < processed.tick:
        return Reach(processed.tick, processed.log_tick or 0)
    seen = min(processed.tick, processed.log_tick)
    return Reach(seen, seen)


class Way(Enum):
    TICKS = auto()
    """Every tick's list."""
    IDENTITIES = auto()
    """Every identity's incoming transactions over a range."""


@dataclass(frozen=True, slots=True)
class Leg:
    """The next ticks to look at, `first` to `last`; None of them when `first > last`."""

    way: Way
    first: int
    last: int


def next_leg(cursor: int, reached: int, identities: int) -> Leg:
    """Behind `cursor`, towards `reached`. Far behind, the way with fewer requests is taken (two a tick)."""
    ticks = reached - cursor
    span = min(ticks, RANGE_BATCH)
    if ticks > RANGE_FROM and identities + 1 < 2 * span:
        return Leg(Way.IDENTITIES, cursor + 1, cursor + span)
    return Leg(Way.TICKS, cursor + 1, cursor + min(ticks, TICKS_BATCH))


def covered(leg: Leg, intervals: Sequence[Interval]) -> bool:
    """Whether the archive claims to know all of it: what was before its first interval it may have forgotten."""
    return bool(intervals) and intervals[0].first_tick <= leg.first and leg.last <= intervals[-1].last_tick


# Sweeps -------------------------------------------------------------------------------------------------------------


class SweepState(StrEnum):
    LIVE = "live"
    """Signed, and may still run."""
    DONE = "done"
    DEAD = "dead"
    """Its tick is over without it: another may be signed."""


# What becomes of a signed transaction --------------------------------------------------------------------------------


def aim(tick: int, ahead: int, *, epoch_end_tick: int | None) -> int | None:
    """The target tick of a transaction signed now; None when it might lie beyond the epoch's end."""
    target = tick + max(ahead, TICKS_AHEAD_MIN)
    return None if epoch_end_tick is not None and target >= epoch_end_tick else target


@dataclass(frozen=True, slots=True)
class Totals:
    """What an identity has paid out since the beginning, as of the live tick `tick`."""

    outgoing_qu: int
    outgoing_count: int
    tick: int

    def same_as(self, other: "Totals") -> bool:
        return (self.outgoing_qu, self.outgoing_count) == (other.outgoing_qu, other.outgoing_count)


def moved(before: Totals, qu: int, transfers: int) -> Totals:
    """The totals after so many further payments, of `qu` together."""
    return Totals(before.outgoing_qu + qu, before.outgoing_count + transfers, before.tick)


@dataclass(frozen=True, slots=True)
class Told:
    """One source's word about one transaction. `processed_tick` was read before everything else here."""

    processed_tick: int
    found: bool
    """The archive has it, under its own hash, in its target tick, as it was signed."""
    flew: bool
    """QU moved by it: `moneyFlew`, or an event log of this very transfer."""
    listed: bool | None
    """Whether the target tick's data names it; False too for one proven empty or skipped; None: not known."""
    totals: Totals


class Fate(Enum):
    OPEN = auto()
    """Too early to tell."""
    PAID = auto()
    EXPIRED = auto()
    MOVED_NOTHING = auto()
    DOUBT = auto()
    """It should be known by now, and what is told does not fit together."""


def fate(target: int, before: Totals, told: Sequence[Told]) -> Fate:
    """What became of a transaction for tick `target`; `before` are the totals of its source when it was signed.

    Paid and dead both need every source's word. Dead (expired, or moved nothing) allows another signature: the archive
    has passed the target, its tick data lacks the hash (or lists it, and nothing moved), and the identity's outgoing
    totals have not changed.
    """
    if not told:
        return Fate.OPEN
    if not all(one.processed_tick >= target and one.totals.tick >= target for one in told):
        return Fate.OPEN
    unmoved = all(one.totals.same_as(before) for one in told)
    if all(one.found and one.flew for one in told):
        return Fate.DOUBT if unmoved else Fate.PAID
    if not unmoved:
        return Fate.DOUBT
    if all(not one.found and not one.flew and one.listed is False for one in told):
        return Fate.EXPIRED
    if all(one.found and not one.flew and one.listed for one in told):
        return Fate.MOVED_NOTHING
    return Fate.DOUBT
