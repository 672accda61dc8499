# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in the SDK, by what the caller can do about it.

QubixError
├── BadUsage               refused here, before anything was sent: names a field and a remedy
├── CannotReach            no coordinator answered
├── CoordinatorChanged     another coordinator answered than the one that was pinned
├── KeyFileRefused         a key or token file that cannot be used safely
├── WalletError            about the Qubic key on this machine
│   ├── NoWallet           there is none
│   ├── WalletExists       there is one already, which is never overwritten
│   ├── WalletLocked       it must be unlocked first
│   ├── WrongPassphrase
│   ├── KeystoreDamaged    the file is not what was written
│   └── KeyringUnavailable the system's keyring cannot be used
├── NetworkUnreachable     the Qubic network does not answer, or not as it should
├── PaymentRefused         a payment that moved nothing and never will
├── NotGenuine             a result or receipt that does not prove what it claims
├── NotFinished            the caller's patience ended before the job (also a TimeoutError)
├── JobEnded               there is no result: `reason` says why
│   ├── JobFailed
│   └── JobCancelled
├── RentalEnded            the rental is over: `reason` says why
├── StartFailed            `qubix up` or `qubix demo` could not start or keep its processes
│   └── BadSettings        one of them refused what it was told
└── ApiError               the coordinator refused: `code`, `detail`, `remedy`, `field`, `status`
    ├── InvalidInput       400, 413, 415, 422
    ├── Unauthorised       401
    ├── NotEnoughBalance   402
    ├── Forbidden          403
    ├── NotFound           404
    ├── Conflict           409
    ├── LimitExceeded      429
    └── Unavailable        408, 5xx
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Typed alone: the command line says what went wrong before anything heavy is imported.
    from qubix_protocol.api import FieldProblem


class QubixError(Exception):
    """`str()` is one sentence for people; `remedy` says what to do next."""

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


class BadUsage(QubixError):
    """`field` is the argument that was wrong."""

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy=remedy)
        self.field = field


class CannotReach(QubixError):
    def __init__(self, url: str, problem: str) -> None:
        super().__init__(
            f"no coordinator answers at {url} ({problem})",
            remedy="Start a market with `qubix up`, or set QUBIX_COORDINATOR_URL to the address of a running one.",
        )
        self.url = url


class CoordinatorChanged(QubixError):
    pass


class KeyFileRefused(QubixError):
    pass


class WalletError(QubixError):
    """None of these quotes a seed or a passphrase."""


class NoWallet(WalletError):
    pass


class WalletExists(WalletError):
    pass


class WalletLocked(WalletError):
    pass


class WrongPassphrase(WalletError):
    pass


class KeystoreDamaged(WalletError):
    pass


class KeyringUnavailable(WalletError):
    pass


class NetworkUnreachable(QubixError):
    pass


class PaymentRefused(QubixError):
    pass


class NotGenuine(QubixError):
    pass


class NotFinished(QubixError, TimeoutError):
    pass


class JobEnded(QubixError):
    """`reason` is a `states.Reason` value; `detail` is what the kernel or provider said."""

    def __init__(self, problem: str, *, job_id: str, reason: str, detail: str, remedy: str = "") -> None:
        super().__init__(problem, remedy=remedy)
        self.job_id = job_id
        self.reason = reason
        self.detail = detail


class JobFailed(JobEnded):
    pass


class JobCancelled(JobEnded):
    pass


class RentalEnded(QubixError):
    """`reason` is a `states.RentalReason` value; `detail` is what the provider said."""

    def __init__(self, problem: str, *, rental_id: str, reason: str, detail: str, remedy: str = "") -> None:
        super().__init__(problem, remedy=remedy)
        self.rental_id = rental_id
        self.reason = reason
        self.detail = detail


class StartFailed(QubixError):
    pass


class BadSettings(StartFailed):
    pass


class ApiError(QubixError):
    """A problem+json answer. `code` is constant; `problems` holds each wrong field where there are several."""

    def __init__(
        self,
        problem: str,
        *,
        status: int,
        code: str = "",
        detail: str = "",
        remedy: str = "",
        field: str = "",
        problems: "tuple[FieldProblem, ...]" = (),
    ) -> None:
        super().__init__(problem, remedy=remedy)
        self.status, self.code, self.detail, self.field, self.problems = status, code, detail, field, problems


class InvalidInput(ApiError):
    pass


class Unauthorised(ApiError):
    pass


class NotEnoughBalance(ApiError):
    pass


class Forbidden(ApiError):
    pass


class NotFound(ApiError):
    pass


class Conflict(ApiError):
    pass


class LimitExceeded(ApiError):
    pass


class Unavailable(ApiError):
    pass
