# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on purpose, drawn from a seed: the same seed makes the same ticks, transactions and answers fail.

Pure. A fault happens by its rate (a draw from seed, kind and what it would hit), or because it was armed.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    EMPTY_TICK = "empty_tick"
    SLOW_TICK = "slow_tick"
    LAGGING_ARCHIVE = "lagging_archive"
    """The archive does not go on during this tick."""
    DROP_TRANSACTION = "drop_transaction"
    """Broadcast is answered as always; no leader ever sees it."""
    DUPLICATE_TRANSACTION = "duplicate_transaction"
    """It reaches the nodes twice."""
    TOO_MANY_REQUESTS = "too_many_requests"
    SERVER_ERROR = "server_error"
    NO_PEERS = "no_peers"
    ARCHIVE_OMITS = "archive_omits"
    """The archive has never heard of a transaction that ran."""
    ARCHIVE_REPEATS = "archive_repeats"
    """The archive lists a transaction twice."""
    ARCHIVE_MISSTATES = "archive_misstates"
    """The archive says the opposite of the true `moneyFlew`."""
    ARCHIVE_INVENTS = "archive_invents"
    """The archive lists a transaction that nobody signed."""


LIES: Final = (Fault.ARCHIVE_OMITS, Fault.ARCHIVE_REPEATS, Fault.ARCHIVE_MISSTATES)
"""Those about one transaction."""
BY_TRANSACTION: Final = (Fault.DROP_TRANSACTION, Fault.DUPLICATE_TRANSACTION, *LIES)
SLOW_FACTOR: Final = 5
ARMED_MAX: Final = 1_000_000


@dataclass(slots=True)
class Faults:
    """`armed`: how many more times a kind happens, whatever its rate. `aimed`: transactions that a kind will hit."""

    seed: int
    rates: dict[Fault, float] = field(default_factory=dict)
    armed: dict[Fault, int] = field(default_factory=dict)
    aimed: dict[Fault, set[str]] = field(default_factory=dict)

    def hit(self, kind: Fault, key: str | int) -> bool:
        """Asked once for each thing that the kind could hit; uses up what was armed."""
        if key in self.aimed.get(kind, ()):
            self.aimed[kind].discard(str(key))
            return True
        if self.armed.get(kind, 0) > 0:
            self.armed[kind] -= 1
            return True
        return draw(self.seed, kind, key) < self.rates.get(kind, 0.0)

    def clear(self) -> None:
        self.rates.clear()
        self.armed.clear()
        self.aimed.clear()

    def as_json(self) -> dict[str, object]:
        return {
            "rates": {str(kind): rate for kind, rate in sorted(self.rates.items()) if rate},
            "armed": {str(kind): count for kind, count in sorted(self.armed.items()) if count},
            "aimed": {str(kind): sorted(ids) for kind, ids in sorted(self.aimed.items()) if ids},
        }


def draw(seed: int, kind: str, key: str | int) -> float:
    """In [0, 1), the same for the same three."""
    digest = hashlib.sha256(f"{seed}\0{kind}\0{key}".encode()).digest()
    return int.from_bytes(digest[:7], "little") / 2**56


def parse_rates(words: Iterable[str]) -> dict[Fault, float]:
    """`empty_tick=0.02` and the like. Raises ValueError, which says what is wrong."""
    rates = {}
    for word in words:
        name, _, value = word.partition("=")
        rates[fault_named(name.strip())] = rate_of(value)
    return rates


def fault_named(name: str) -> Fault:
    try:
        return Fault(name)
    except ValueError:
        raise ValueError(f"{name!r} is no fault; there are {', '.join(Fault)}") from None


def rate_of(value: object) -> float:
    try:
        rate = float(str(value))
    except ValueError:
        rate = -1.0
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"{value!r} is no rate between 0 and 1")
    return rate


def restored(seed: int, rates: Mapping[str, float], armed: Mapping[str, int], aimed: Mapping[str, list[str]]) -> Faults:
    return Faults(
        seed,
        {Fault(kind): rate for kind, rate in rates.items()},
        {Fault(kind): count for kind, count in armed.items()},
        {Fault(kind): set(ids) for kind, ids in aimed.items()},
    )
