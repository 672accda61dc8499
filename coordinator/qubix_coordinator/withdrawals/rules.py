# SPDX-License-Identifier: Apache-2.0
"""A withdrawal's states, and why it waits. Pure (trust.md Q2, M5).

The amount stays set aside until the chain has paid it (`CONFIRMED`) or no signed transaction can pay it any more; only
then it goes back. What may be signed again, and when, is `fate` of `deposits.rules` alone.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final

from qubix_coordinator.deposits.rules import Fate
from qubix_protocol.withdrawals import FINAL_WITHDRAWAL_STATES, WithdrawalReason, WithdrawalState

DAY_MS: Final = 86_400_000
LOOK_MS: Final = 3_600_000
"""A sent withdrawal whose end is not certain after this long is an operator's to look at; it stays as it is."""


class Verb(Enum):
    APPLY = auto()
    IGNORE = auto()
    """Known already, or of no consequence."""
    REFUSE = auto()


class Event(StrEnum):
    EXPLAIN = "explain"
    """Why it waits has changed."""
    APPROVE = "approve"
    REFUSE = "refuse"
    CANCEL = "cancel"
    SIGN = "sign"
    SENT = "sent"
    """The network took the bytes."""
    PAID = "paid"
    DEAD = "dead"
    """The signed transaction can never run: proved by `fate`."""
    DUE = "due"
    """The state's deadline passed."""


class _Then(Enum):
    GIVE_UP = auto()
    """Refused when an operator was waited for, else failed; the amount goes back."""
    AGAIN = auto()
    """Waits for another transaction, or failed after so many tries."""
    LOOK = auto()
    """Stays, with a new deadline; an operator is called. Nothing else is safe while the transaction may have run."""


_S, _E = WithdrawalState, Event
_SENT_ROW: Final[dict[Event, WithdrawalState | Verb | _Then]] = {
    _E.EXPLAIN: Verb.APPLY,
    _E.APPROVE: Verb.IGNORE,
    # A signed transaction cannot be called back.
    _E.REFUSE: Verb.REFUSE,
    _E.CANCEL: Verb.REFUSE,
    _E.SIGN: Verb.REFUSE,
    _E.SENT: _S.BROADCAST,
    _E.PAID: _S.CONFIRMED,
    _E.DEAD: _Then.AGAIN,
    _E.DUE: _Then.LOOK,
}
_FINAL_ROW: Final[dict[Event, WithdrawalState | Verb | _Then]] = {
    _E.EXPLAIN: Verb.IGNORE,
    _E.APPROVE: Verb.REFUSE,
    _E.REFUSE: Verb.REFUSE,
    _E.CANCEL: Verb.REFUSE,
    _E.SIGN: Verb.REFUSE,
    _E.SENT: Verb.IGNORE,
    _E.PAID: Verb.REFUSE,
    _E.DEAD: Verb.IGNORE,
    _E.DUE: Verb.IGNORE,
}
TABLE: Final[dict[WithdrawalState, dict[Event, WithdrawalState | Verb | _Then]]] = {
    _S.WAITING: {
        _E.EXPLAIN: Verb.APPLY,
        _E.APPROVE: Verb.APPLY,
        _E.REFUSE: _S.REFUSED,
        _E.CANCEL: _S.CANCELLED,
        _E.SIGN: _S.SIGNED,
        _E.SENT: Verb.IGNORE,
        # An earlier transaction was taken for dead and ran after all: the amount is paid, and never again.
        _E.PAID: _S.CONFIRMED,
        _E.DEAD: Verb.IGNORE,
        _E.DUE: _Then.GIVE_UP,
    },
    _S.SIGNED: _SENT_ROW,
    _S.BROADCAST: {**_SENT_ROW, _E.SENT: Verb.IGNORE},
    _S.CONFIRMED: {**_FINAL_ROW, _E.PAID: Verb.IGNORE},
    _S.CANCELLED: {**_FINAL_ROW, _E.CANCEL: Verb.IGNORE},
    _S.REFUSED: {**_FINAL_ROW, _E.REFUSE: Verb.IGNORE},
    _S.FAILED: _FINAL_ROW,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """`tries` counts the transactions signed so far."""

    state: WithdrawalState
    reason: WithdrawalReason
    tries: int = 0
    tries_max: int = 1
    late: bool = False
    """Its time to be sent is over."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason` is None where the caller says why."""

    verb: Verb
    state: WithdrawalState
    reason: WithdrawalReason | None = None
    alarm: bool = False
    """An operator must look."""


_REASONS: Final = {
    Event.REFUSE: WithdrawalReason.BY_OPERATOR,
    Event.CANCEL: WithdrawalReason.BY_OWNER,
    Event.SIGN: WithdrawalReason.UNDER_WAY,
    Event.SENT: WithdrawalReason.UNDER_WAY,
    Event.PAID: WithdrawalReason.PAID,
}
_OPERATORS: Final = (WithdrawalReason.APPROVAL, WithdrawalReason.HOT_LIMIT)


def decide(facts: Facts, event: Event) -> Decision:
    then = TABLE[facts.state][event]
    if isinstance(then, Verb):
        return Decision(then, facts.state)
    if then is _Then.LOOK:
        return Decision(Verb.APPLY, facts.state, alarm=True)
    if then is _Then.GIVE_UP:
        if facts.reason in _OPERATORS:
            return Decision(Verb.APPLY, WithdrawalState.REFUSED, WithdrawalReason.NOT_DECIDED)
        return Decision(Verb.APPLY, WithdrawalState.FAILED, WithdrawalReason.OVERDUE)
    if then is _Then.AGAIN:
        if facts.tries >= facts.tries_max:
            return Decision(Verb.APPLY, WithdrawalState.FAILED, WithdrawalReason.TRIES, alarm=True)
        if facts.late:
            return Decision(Verb.APPLY, WithdrawalState.FAILED, WithdrawalReason.OVERDUE)
        return Decision(Verb.APPLY, WithdrawalState.WAITING, WithdrawalReason.IN_LINE)
    assert isinstance(then, WithdrawalState)
    return Decision(Verb.APPLY, then, _REASONS[event])


def goes_back(state: WithdrawalState) -> bool:
    """Whether the amount returns to the balance in this state."""
    return state in FINAL_WITHDRAWAL_STATES and state is not WithdrawalState.CONFIRMED


# Why it waits -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wallet:
    """The paying wallet as the chain process sees it. `room`: a target tick lies before the epoch's end.
    `left_today_qu` is what may still leave in this day without an operator."""

    up: bool
    balance_qu: int
    room: bool
    left_today_qu: int


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked, and what an operator has said to it."""

    amount_qu: int
    not_before_ms: int
    approved: bool


def why_waits(
    order: Order, wallet: Wallet, *, now_ms: int, approval_above_qu: int, turn: bool
) -> WithdrawalReason | None:
    """None: it is to be signed now. `turn`: nobody is before it and no payment is under way."""
    if not order.approved and order.amount_qu > approval_above_qu:
        return WithdrawalReason.APPROVAL
    if now_ms < order.not_before_ms:
        return WithdrawalReason.DELAY
    if not order.approved and order.amount_qu > wallet.left_today_qu:
        return WithdrawalReason.HOT_LIMIT
    if not wallet.up:
        return WithdrawalReason.CHAIN_DOWN
    if order.amount_qu > wallet.balance_qu:
        return WithdrawalReason.NOT_SWEPT
    if not turn:
        return WithdrawalReason.IN_LINE
    return None if wallet.room else WithdrawalReason.EPOCH_END


def withdrawable_qu(balance_qu: int, *, unswept_qu: int, new_earnings_qu: int) -> int:
    """Deposits count once they are swept (Q1), earnings after a delay in which an award can take them back (C5)."""
    return max(0, balance_qu - unswept_qu - new_earnings_qu)


def payout_qu(withdrawable: int, *, keep_qu: int, least_qu: int, most_qu: int) -> int:
    """What a standing order pays out now; 0 for nothing."""
    above_qu = min(withdrawable - keep_qu, most_qu)
    return above_qu if above_qu >= least_qu else 0


def not_payable(public_key: bytes) -> str:
    """Why QU must never be sent to this key by us, or "". Contracts have a number and 24 zero bytes; number 0 burns."""
    if public_key == bytes(32):
        return "QU sent to the null identity are destroyed"
    if public_key[8:] == bytes(24):
        return "it is a smart contract's address, and a contract does not give back what it does not expect"
    return ""


def open_reason(target: int, tick: int, found: Fate) -> WithdrawalReason:
    """Why a sent withdrawal is not finished; `tick` is the live one."""
    if found is Fate.DOUBT:
        return WithdrawalReason.DOUBT
    return WithdrawalReason.ARCHIVE_BEHIND if tick >= target else WithdrawalReason.UNDER_WAY
