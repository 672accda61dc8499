# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in the coordinator, by what the caller can do about it.

    QubixError
    ├── Refused                 the request cannot be granted as it stands; names a field and a remedy
    │   ├── InvalidInput        a value is malformed or out of range
    │   │   └── BadIdentity     not the identity of anybody on the Qubic network
    │   ├── Unauthorised        nobody, or an unknown or revoked token or signature
    │   ├── Forbidden           somebody, but not allowed to do this
    │   │   ├── WrongNetwork    not on this network (development credit on main)
    │   │   ├── OrderUnsigned   the account's orders must be signed
    │   │   ├── OrderKeyRevoked the key signs no orders any more
    │   │   └── ApprovalNeeded  a live key or a wallet must sign for it
    │   ├── NotProven           a wallet's proof that is not accepted
    │   │   ├── ChallengeUnknown · ChallengeUsed · ChallengeExpired · ChallengeAltered
    │   │   ├── WrongDomain · WrongWallet · WrongPurpose · WrongScheme
    │   │   └── SignatureInvalid · SignatureNotCanonical · WeakKey
    │   ├── NotFound            no such thing, or not yours to see
    │   ├── Conflict            the state of the thing does not allow it
    │   │   ├── WalletTaken     the wallet speaks for another account
    │   │   ├── WalletInUse     a withdrawal to it is open
    │   │   ├── LastWayIn       nobody could reach the account without it
    │   │   ├── LastApprover    nobody could change the account's keys without it
    │   │   ├── OrderKeyUnknown the account's orders are signed by other keys
    │   │   ├── CauseReused     the same cause or idempotency key with another body
    │   │   └── StaleAttempt    a superseded attempt speaks
    │   ├── NotEnoughBalance    the account cannot cover the amount
    │   ├── HoldOverspent       the hold cannot cover the amount
    │   └── LimitExceeded       a bound was reached: a rate, a size, a quota
    └── Fault                   not the caller's doing
        ├── Unavailable         try again later: the database is away or busy
        ├── WrongDatabase       the database belongs to another network or version
        └── LedgerRefused       the database refused what our own code must never post

HTTP statuses live in http/problems.py alone.
"""

from collections.abc import Iterator
from typing import TypeVar

E = TypeVar("E", bound=Exception)


class QubixError(Exception):
    """`str()` is one sentence for people; `remedy` says what to do next."""

    def __init__(self, problem: str, *, field: str = "", remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.field = field
        self.remedy = remedy


class Refused(QubixError):
    """The caller can do something about it."""


class InvalidInput(Refused):
    """`field` is the path of the value in the request, such as `params.k`."""

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(problem, field=field, remedy=remedy)


class BadIdentity(InvalidInput):
    pass


class Unauthorised(Refused):
    pass


class Forbidden(Refused):
    pass


class WrongNetwork(Forbidden):
    pass


class OrderUnsigned(Forbidden):
    pass


class OrderKeyRevoked(Forbidden):
    pass


class ApprovalNeeded(Forbidden):
    pass


class NotProven(Refused):
    pass


class ChallengeUnknown(NotProven):
    pass


class ChallengeUsed(NotProven):
    pass


class ChallengeExpired(NotProven):
    pass


class ChallengeAltered(NotProven):
    pass


class WrongDomain(NotProven):
    pass


class WrongWallet(NotProven):
    pass


class WrongPurpose(NotProven):
    pass


class WrongScheme(NotProven):
    pass


class SignatureInvalid(NotProven):
    pass


class SignatureNotCanonical(NotProven):
    pass


class WeakKey(NotProven):
    pass


class NotFound(Refused):
    pass


class Conflict(Refused):
    pass


class WalletTaken(Conflict):
    pass


class WalletInUse(Conflict):
    pass


class LastWayIn(Conflict):
    pass


class LastApprover(Conflict):
    pass


class OrderKeyUnknown(Conflict):
    pass


class CauseReused(Conflict):
    pass


class StaleAttempt(Conflict):
    pass


class NotEnoughBalance(Refused):
    pass


class HoldOverspent(Refused):
    pass


class LimitExceeded(Refused):
    """`retry_after_s` is how long to wait where waiting helps, else None."""

    def __init__(self, problem: str, *, field: str = "", remedy: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(problem, field=field, remedy=remedy)
        self.retry_after_s = retry_after_s


class Fault(QubixError):
    """An operator's matter, not the caller's."""


class Unavailable(Fault):
    pass


class WrongDatabase(Fault):
    pass


class LedgerRefused(Fault):
    pass


def told(problems: "ExceptionGroup[QubixError]") -> Iterator[str]:
    """A line for each, for whoever started the process."""
    for one in each(problems):
        yield f"{one}. {one.remedy}"


def each(problems: "ExceptionGroup[E]") -> Iterator[E]:
    """Of task groups within task groups, too."""
    for one in problems.exceptions:
        if isinstance(one, ExceptionGroup):
            yield from each(one)
        else:
            yield one
