# SPDX-License-Identifier: Apache-2.0
"""The keys of a consumer on this machine: the order key that signs what its owner is willing to pay for (trust M6)."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qubix.errors import KeyFileRefused
from qubix.files import create_private, read_private
from qubix_protocol.envelope import seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Order
from qubix_protocol.units import Network

ORDER_KEY_FILE: Final = "order.key"
ORDER_LIFE_MS: Final = 110_000


@dataclass(frozen=True, slots=True)
class Balance:
    """Whole QU: free to spend, and set aside for open jobs."""

    available_qu: int
    held_qu: int


class Wallet:
    """An Ed25519 key in a file that only its owner can read. The market remembers the first key that signs an order
    for an account and refuses another one later, so the file is worth keeping."""

    def __init__(self, key: SigningKey, path: Path) -> None:
        self._key = key
        self.path: Final = path

    @classmethod
    def open(cls, data_dir: Path) -> "Wallet":
        """The wallet of this folder, made at first use. Raises `KeyFileRefused`."""
        path = data_dir / ORDER_KEY_FILE
        seed = read_private(path)
        if seed is None:
            create_private(path, SigningKey.generate().seed)
            seed = read_private(path)
        if seed is None or len(seed) != 32:
            raise KeyFileRefused(f"{path} is not an order key", remedy=f"Restore {path} from a copy, or move it away.")
        return cls(SigningKey(seed), path)

    @property
    def public_key(self) -> str:
        """64 hex digits."""
        return self._key.public.hex()

    def sign_order(self, order: Order, *, network: Network, coordinator_key: bytes, clock_ms: int) -> bytes:
        """The order's envelope. `clock_ms` is by the coordinator's clock. Any order of this key may come first, so its
        counter is random: the idempotency key inside is what keeps a replay from being a second job."""
        return seal(
            order,
            self._key,
            network=network,
            audience=coordinator_key,
            incarnation=0,
            counter=secrets.randbelow(2**53),
            expires_ms=clock_ms + ORDER_LIFE_MS,
        )

    def __repr__(self) -> str:
        return f"Wallet({self.public_key[:16]}…, {self.path})"
