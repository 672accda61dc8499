# SPDX-License-Identifier: Apache-2.0
"""Withdrawals on the wire: states, reasons, bodies and views. Keys travel as identities, amounts as whole QU."""

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta

from qubix_protocol.api import Body, View
from qubix_protocol.messages import Id
from qubix_protocol.units import QU_MAX

Identity = Annotated[str, Meta(pattern="^[A-Z]{60}$", min_length=60, max_length=60)]
TxId = Annotated[str, Meta(pattern="^[a-z]{60}$", max_length=60)]
Amount = Annotated[int, Meta(ge=1, le=QU_MAX)]
Label = Annotated[str, Meta(max_length=100)]


class WithdrawalState(StrEnum):
    WAITING = "waiting"
    """The amount is set aside; no signed transaction could move it."""
    SIGNED = "signed"
    """A signed transaction is stored; whether the network has it is not known yet."""
    BROADCAST = "broadcast"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    FAILED = "failed"


FINAL_WITHDRAWAL_STATES: Final = frozenset(
    {WithdrawalState.CONFIRMED, WithdrawalState.CANCELLED, WithdrawalState.REFUSED, WithdrawalState.FAILED}
)
STATE_TEXT: Final[dict[WithdrawalState, str]] = {
    WithdrawalState.WAITING: "The amount is set aside and waits; you can cancel.",
    WithdrawalState.SIGNED: "A transaction is signed and on its way to the network.",
    WithdrawalState.BROADCAST: "The network has the transaction; it runs in its target tick or never.",
    WithdrawalState.CONFIRMED: "Paid: the network ran the transaction.",
    WithdrawalState.CANCELLED: "Cancelled; the amount is back on your balance.",
    WithdrawalState.REFUSED: "Refused; the amount is back on your balance.",
    WithdrawalState.FAILED: "Not paid out; the amount is back on your balance.",
}


class WithdrawalReason(StrEnum):
    """Why a withdrawal is in its state. One word a cause; people read `WITHDRAWAL_TEXT`."""

    APPROVAL = "approval"
    DELAY = "delay"
    HOT_LIMIT = "hot_limit"
    CHAIN_DOWN = "chain_down"
    NOT_SWEPT = "not_swept"
    EPOCH_END = "epoch_end"
    IN_LINE = "in_line"
    UNDER_WAY = "under_way"
    ARCHIVE_BEHIND = "archive_behind"
    DOUBT = "doubt"
    PAID = "paid"
    BY_OWNER = "by_owner"
    BY_OPERATOR = "by_operator"
    NOT_DECIDED = "not_decided"
    OVERDUE = "overdue"
    TRIES = "tries"


WITHDRAWAL_TEXT: Final[dict[WithdrawalReason, str]] = {
    WithdrawalReason.APPROVAL: "an operator must approve an amount of this size",
    WithdrawalReason.DELAY: "the address is new: nothing leaves for it before the delay is over",
    WithdrawalReason.HOT_LIMIT: "today's payments have reached what may leave without an operator; it waits for one,"
    " or for tomorrow",
    WithdrawalReason.CHAIN_DOWN: "the network cannot be reached now; it goes on by itself once it can",
    WithdrawalReason.NOT_SWEPT: "the paying wallet does not hold enough yet: it waits for deposits to be swept into it",
    WithdrawalReason.EPOCH_END: "the network's epoch is about to end; payments go on in the next one",
    WithdrawalReason.IN_LINE: "earlier withdrawals come first; one payment is made at a time",
    WithdrawalReason.UNDER_WAY: "the network has not come to the target tick yet",
    WithdrawalReason.ARCHIVE_BEHIND: "the target tick is over; the network's archive must tell what ran in it",
    WithdrawalReason.DOUBT: "what the network tells does not fit together; nothing is paid again before it does",
    WithdrawalReason.PAID: "the network ran the transaction",
    WithdrawalReason.BY_OWNER: "cancelled by its owner",
    WithdrawalReason.BY_OPERATOR: "refused by an operator",
    WithdrawalReason.NOT_DECIDED: "no operator decided in time",
    WithdrawalReason.OVERDUE: "it could not be sent in time",
    WithdrawalReason.TRIES: "the network ran none of its transactions",
}


class TxOutcome(StrEnum):
    """What became of a signed transaction."""

    PAID = "paid"
    EXPIRED = "expired"
    """Its tick is over without it: it can never run."""
    MOVED_NOTHING = "moved_nothing"
    """Its tick listed it, and no QU moved."""


class WithdrawalBody(Body, frozen=True, kw_only=True):
    """`POST /withdrawals`, with an Idempotency-Key."""

    destination: Identity
    amount_qu: Amount


class RefuseBody(Body, frozen=True, kw_only=True):
    """`POST /operator/withdrawals/{id}/refuse`; the owner reads `why`."""

    why: Annotated[str, Meta(min_length=1, max_length=500)]


class TransactionView(View, frozen=True, kw_only=True):
    """One signed transaction of a withdrawal. `outcome` is None until the network's word is certain."""

    tx_id: TxId
    tick: int
    epoch: int
    signed_ms: int
    outcome: TxOutcome | None = None
    decided_ms: int | None = None


class WithdrawalView(View, frozen=True, kw_only=True):
    """`text` says in one sentence where it stands and why; `detail` is what there is to add."""

    withdrawal_id: Id
    account_id: Id
    destination: Identity
    amount_qu: int
    state: WithdrawalState
    reason: WithdrawalReason
    text: str
    detail: str
    automatic: bool
    """Made by the account's standing order."""
    created_ms: int
    not_before_ms: int
    due_ms: int | None
    """When this state ends by itself: a waiting withdrawal then goes back, a sent one is looked at by an operator."""
    ended_ms: int | None
    tx_id: TxId | None
    """The transaction that paid it, else the one that is on its way."""
    transactions: tuple[TransactionView, ...]
    revision: int


class WithdrawalsView(View, frozen=True, kw_only=True):
    withdrawals: tuple[WithdrawalView, ...]
    next: str | None = None


class WithdrawableView(View, frozen=True, kw_only=True):
    """`GET /withdrawals/limits`: the most that can be withdrawn, and why that is less than the balance."""

    balance_qu: int
    withdrawable_qu: int
    unswept_qu: int
    """Deposits that have not reached the paying wallet yet."""
    new_earnings_qu: int
    """Earned so lately that the award of a dispute, or a failed spot check, may still take it back."""
    forfeited_qu: int = 0
    """What the last failed check took."""
    amount_min_qu: int
    amount_max_qu: int
    day_left_qu: int
    approval_above_qu: int
    address_delay_s: int
    text: str


class AddressBody(Body, frozen=True, kw_only=True):
    """`POST /account/addresses`."""

    identity: Identity
    label: Label = ""


class AddressView(View, frozen=True, kw_only=True):
    """`usable_ms`: from then on withdrawals to it may leave."""

    identity: Identity
    label: str
    added_ms: int
    usable_ms: int


class AddressesView(View, frozen=True, kw_only=True):
    addresses: tuple[AddressView, ...]


class PayoutBody(Body, frozen=True, kw_only=True):
    """`POST /account/payout`: whatever can be withdrawn above `keep_qu` goes to `destination`, by itself, as soon as it
    is `least_qu` or more."""

    destination: Identity
    keep_qu: Annotated[int, Meta(ge=0, le=QU_MAX)]
    least_qu: Amount = 1


class PayoutView(View, frozen=True, kw_only=True):
    """`destination` is None while there is no standing order. `text` says what it does now."""

    destination: Identity | None = None
    keep_qu: int = 0
    least_qu: int = 0
    since_ms: int | None = None
    made: int = 0
    """Withdrawals that it has made."""
    text: str = ""
