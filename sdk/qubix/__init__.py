# SPDX-License-Identifier: Apache-2.0
"""QUBIX from Python: `import qubix`, submit a job, follow it, read a checked result.

    market = qubix.Client()
    job = market.submit("matmul", a=a, b=b, cap_qu=200)
    for update in job.follow():
        print(update.fraction, update.eta_s)
    c = job.result()["c"]

`AsyncClient` has the same methods to await. Names load on first use, so that importing this stays cheap.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qubix import receipts as receipts
    from qubix.async_client import AsyncClient
    from qubix.client import Client, Job, Rental, RentalGroup
    from qubix.errors import (
        ApiError,
        BadUsage,
        CannotReach,
        Conflict,
        CoordinatorChanged,
        Forbidden,
        InvalidInput,
        JobCancelled,
        JobEnded,
        JobFailed,
        KeyFileRefused,
        KeyringUnavailable,
        KeystoreDamaged,
        LimitExceeded,
        NetworkUnreachable,
        NotEnoughBalance,
        NotFinished,
        NotFound,
        NotGenuine,
        NoWallet,
        PaymentRefused,
        QubixError,
        RentalEnded,
        Unauthorised,
        Unavailable,
        WalletError,
        WalletExists,
        WalletLocked,
        WrongPassphrase,
    )
    from qubix.job import AsyncJob, Update, VerifiedReceipt
    from qubix.receipts import JobReceipt
    from qubix.rental import AsyncRental, AsyncRentalGroup
    from qubix.settings import Settings
    from qubix.wallet import Balance, Wallet

_HOMES = {
    "AsyncClient": "qubix.async_client",
    "Client": "qubix.client",
    "Job": "qubix.client",
    "Rental": "qubix.client",
    "RentalGroup": "qubix.client",
    "AsyncRental": "qubix.rental",
    "AsyncRentalGroup": "qubix.rental",
    "AsyncJob": "qubix.job",
    "Update": "qubix.job",
    "VerifiedReceipt": "qubix.job",
    "JobReceipt": "qubix.receipts",
    "Settings": "qubix.settings",
    "Balance": "qubix.wallet",
    "Wallet": "qubix.wallet",
}
_MODULES = ("receipts",)
__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncJob",
    "AsyncRental",
    "AsyncRentalGroup",
    "BadUsage",
    "Balance",
    "CannotReach",
    "Client",
    "Conflict",
    "CoordinatorChanged",
    "Forbidden",
    "InvalidInput",
    "Job",
    "JobCancelled",
    "JobEnded",
    "JobFailed",
    "JobReceipt",
    "KeyFileRefused",
    "KeyringUnavailable",
    "KeystoreDamaged",
    "LimitExceeded",
    "NetworkUnreachable",
    "NoWallet",
    "NotEnoughBalance",
    "NotFinished",
    "NotFound",
    "NotGenuine",
    "PaymentRefused",
    "QubixError",
    "Rental",
    "RentalEnded",
    "RentalGroup",
    "Settings",
    "Unauthorised",
    "Unavailable",
    "Update",
    "VerifiedReceipt",
    "Wallet",
    "WalletError",
    "WalletExists",
    "WalletLocked",
    "WrongPassphrase",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"qubix.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'qubix' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOMES.get(name, "qubix.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
