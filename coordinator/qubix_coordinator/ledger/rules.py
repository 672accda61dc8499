# SPDX-License-Identifier: Apache-2.0
"""What is owed, and the transfers that move it. Pure; amounts are integer QU (trust.md M1).

A transfer's id is the UUIDv5 of its cause, so that the same cause is the same transfer however often it is posted.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID, uuid5

from qubix_protocol.charges import MS_PER_HOUR as MS_PER_HOUR
from qubix_protocol.charges import Split as Split
from qubix_protocol.charges import owed_qu as owed_qu
from qubix_protocol.charges import split_fee as split_fee

CAUSES = UUID("6c1b1d4e-6f0a-5d0a-9c58-0f5b2f0a7a51")
AMOUNT_MAX_QU = 10**15


class AccountKind(StrEnum):
    USER = "user"
    HOLD = "hold"
    WITHDRAWAL = "withdrawal"
    BOND = "bond"
    FUND = "fund"
    FEES = "fees"
    WORLD = "world"


class TransferKind(StrEnum):
    DEVELOPMENT_CREDIT = "development_credit"
    """Of older ledgers alone: nothing gives it any more."""
    HOLD = "hold"
    SETTLE = "settle"
    RETURN = "return"
    REFUND = "refund"
    DEPOSIT = "deposit"
    WITHDRAW = "withdraw"
    WITHDRAW_SENT = "withdraw_sent"
    WITHDRAW_BACK = "withdraw_back"
    BOND = "bond"
    BOND_END = "bond_end"
    FUND = "fund"
    SPOT = "spot"
    SPOT_BACK = "spot_back"
    FORFEIT = "forfeit"


class AccountRef(NamedTuple):
    """`owner`: the account's id for USER, the job's or rental's for HOLD, the withdrawal's for WITHDRAWAL, the
    dispute's for BOND; None for FUND, FEES and WORLD."""

    kind: AccountKind
    owner: UUID | None = None


FEES = AccountRef(AccountKind.FEES)
FUND = AccountRef(AccountKind.FUND)
"""Pays awards that no party owes."""
WORLD = AccountRef(AccountKind.WORLD)


def user(account_id: UUID) -> AccountRef:
    return AccountRef(AccountKind.USER, account_id)


def escrow(job_id: UUID) -> AccountRef:
    return AccountRef(AccountKind.HOLD, job_id)


class Leg(NamedTuple):
    account: AccountRef
    amount_qu: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """Raises ValueError unless there are two legs or more, on different accounts, none zero, that sum to zero."""

    kind: TransferKind
    cause: str
    legs: tuple[Leg, ...]
    job_id: UUID | None = None

    def __post_init__(self) -> None:
        if len(self.legs) < 2 or len({leg.account for leg in self.legs}) != len(self.legs):
            raise ValueError(f"{self.cause}: a transfer joins two accounts or more, each once")
        if any(leg.amount_qu == 0 or abs(leg.amount_qu) > AMOUNT_MAX_QU for leg in self.legs):
            raise ValueError(f"{self.cause}: an amount is 1 to {AMOUNT_MAX_QU} QU")
        if sum(leg.amount_qu for leg in self.legs) != 0:
            raise ValueError(f"{self.cause}: the legs do not sum to zero")

    @property
    def id(self) -> UUID:
        return uuid5(CAUSES, self.cause)


def hold(job_id: UUID, account_id: UUID, amount_qu: int, *, part: int = 0) -> Transfer:
    """`part` counts what is added to an open hold, such as a longer rental."""
    legs = (Leg(user(account_id), -amount_qu), Leg(escrow(job_id), amount_qu))
    return Transfer(TransferKind.HOLD, f"hold:{job_id}:{part}", legs, job_id)


def settle(
    job_id: UUID, attempt_id: UUID, provider_account_id: UUID, paid_qu: int, fee_qu: int, *, part: int = 0
) -> Transfer:
    """Pays one attempt; `part` counts the settlements of an attempt that is paid by period, such as a rental."""
    if paid_qu < 0 or fee_qu < 0:
        raise ValueError("a settlement pays, it never takes")
    gains = (Leg(user(provider_account_id), paid_qu), Leg(FEES, fee_qu))
    legs = (Leg(escrow(job_id), -(paid_qu + fee_qu)), *(leg for leg in gains if leg.amount_qu))
    return Transfer(TransferKind.SETTLE, f"settle:{job_id}:{attempt_id}:{part}", legs, job_id)


def give_back(job_id: UUID, account_id: UUID, amount_qu: int, *, part: int = 0) -> Transfer:
    """The unspent rest of a hold, to the consumer who paid it; once nothing is left the hold is closed."""
    legs = (Leg(escrow(job_id), -amount_qu), Leg(user(account_id), amount_qu))
    return Transfer(TransferKind.RETURN, f"return:{job_id}:{part}", legs, job_id)


def refund(
    decision_id: UUID, payer: AccountRef, account_id: UUID, amount_qu: int, *, job_id: UUID | None = None
) -> Transfer:
    """A settled amount given back by a decision; `payer` is the provider's account, FEES or FUND, never a hold."""
    if payer.kind not in (AccountKind.USER, AccountKind.FEES, AccountKind.FUND):
        raise ValueError("a refund comes from a user, the fees or the fund")
    legs = (Leg(payer, -amount_qu), Leg(user(account_id), amount_qu))
    return Transfer(TransferKind.REFUND, f"refund:{decision_id}:{payer.kind}:{payer.owner}", legs, job_id)


def deposit(account_id: UUID, amount_qu: int, *, network: str, tick: int, tx_id: str, output: int) -> Transfer:
    """QU that arrived on the chain. `output` tells apart what one transaction paid in several places (Q1)."""
    legs = (Leg(WORLD, -amount_qu), Leg(user(account_id), amount_qu))
    return Transfer(TransferKind.DEPOSIT, f"deposit:{network}:{tick}:{tx_id}:{output}", legs)


def withdraw(withdrawal_id: UUID, account_id: UUID, amount_qu: int) -> Transfer:
    """Sets QU aside for one withdrawal; they are the user's no longer, and not yet the chain's."""
    legs = (Leg(user(account_id), -amount_qu), Leg(_withdrawal(withdrawal_id), amount_qu))
    return Transfer(TransferKind.WITHDRAW, f"withdraw:{withdrawal_id}", legs)


def withdraw_sent(withdrawal_id: UUID, amount_qu: int) -> Transfer:
    """The chain has paid it out."""
    legs = (Leg(_withdrawal(withdrawal_id), -amount_qu), Leg(WORLD, amount_qu))
    return Transfer(TransferKind.WITHDRAW_SENT, f"withdraw_sent:{withdrawal_id}", legs)


def withdraw_back(withdrawal_id: UUID, account_id: UUID, amount_qu: int) -> Transfer:
    """It will never be paid out: refused, cancelled, or given up."""
    legs = (Leg(_withdrawal(withdrawal_id), -amount_qu), Leg(user(account_id), amount_qu))
    return Transfer(TransferKind.WITHDRAW_BACK, f"withdraw_back:{withdrawal_id}", legs)


def _withdrawal(withdrawal_id: UUID) -> AccountRef:
    return AccountRef(AccountKind.WITHDRAWAL, withdrawal_id)


def bond(dispute_id: UUID, account_id: UUID, amount_qu: int) -> Transfer:
    """What a party stakes on its word (M7); each party of a dispute once."""
    legs = (Leg(user(account_id), -amount_qu), Leg(_bond(dispute_id), amount_qu))
    return Transfer(TransferKind.BOND, f"bond:{dispute_id}:{account_id}", legs)


def _bond(dispute_id: UUID) -> AccountRef:
    return AccountRef(AccountKind.BOND, dispute_id)


def fund(amount_qu: int, key: str) -> Transfer:
    """A part of the fees, set aside for awards."""
    return Transfer(TransferKind.FUND, f"fund:{key}", (Leg(FEES, -amount_qu), Leg(FUND, amount_qu)))


def spot(check_id: UUID, draw: int, account_id: UUID, amount_qu: int) -> Transfer:
    """Lent for one re-run of a spot check, to the market's own account, which pays it."""
    legs = (Leg(FUND, -amount_qu), Leg(user(account_id), amount_qu))
    return Transfer(TransferKind.SPOT, f"spot:{check_id}:{draw}", legs)


def spot_back(check_id: UUID, draw: int, account_id: UUID, amount_qu: int) -> Transfer:
    """What that did not cost."""
    legs = (Leg(user(account_id), -amount_qu), Leg(FUND, amount_qu))
    return Transfer(TransferKind.SPOT_BACK, f"spot_back:{check_id}:{draw}", legs)


def forfeit(cause_id: UUID, account_id: UUID, amount_qu: int, job_id: UUID) -> Transfer:
    """New earnings that a failed check takes (C5)."""
    legs = (Leg(user(account_id), -amount_qu), Leg(FUND, amount_qu))
    return Transfer(TransferKind.FORFEIT, f"forfeit:{cause_id}", legs, job_id)
