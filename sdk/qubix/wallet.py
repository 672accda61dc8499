# SPDX-License-Identifier: Apache-2.0
"""The keys of a person on this machine: the order key that signs what its owner is willing to pay for (trust M6), and
the Qubic key that owns an identity on the network."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qubix import keystore
from qubix.errors import BadUsage, KeyFileRefused, WalletLocked
from qubix.files import create_private, read_private
from qubix.keystore import Kept, Keyring, Seed
from qubix_chain import messages
from qubix_chain.messages import Scheme
from qubix_chain.transaction import Transaction
from qubix_protocol.envelope import seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import ExtendOrder, Message, Order, RentOrder
from qubix_protocol.units import Network

ORDER_KEY_FILE: Final = "order.key"
ORDER_LIFE_MS: Final = 110_000


@dataclass(frozen=True, slots=True)
class Balance:
    """Whole QU: free to spend, and set aside for open jobs."""

    available_qu: int
    held_qu: int


class Wallet:
    """The keys of one data folder.

    The order key is an Ed25519 key in a file that only its owner can read, made at first use. The market remembers the
    first key that signs an order for an account; other machines and browsers get keys of their own, which a key that is
    known already signs for (`client.order_keys`), so the file is worth keeping.

    The Qubic key is there once it was made (`create`) or brought along (`import_seed`). It lies encrypted in a file or
    in the system's keyring, and signs only between `unlock` and `lock`.
    """

    def __init__(self, key: SigningKey, path: Path) -> None:
        self._key = key
        self.path: Final = path
        self._unlocked: _Unlocked | None = None

    @classmethod
    def open(cls, data_dir: Path) -> "Wallet":
        """The wallet of this folder, its order key made at first use. Raises `KeyFileRefused`."""
        path = data_dir / ORDER_KEY_FILE
        seed = read_private(path)
        if seed is None:
            create_private(path, SigningKey.generate().seed)
            seed = read_private(path)
        if seed is None or len(seed) != 32:
            raise KeyFileRefused(f"{path} is not an order key", remedy=f"Restore {path} from a copy, or move it away.")
        return cls(SigningKey(seed), path)

    @classmethod
    def create(cls, data_dir: Path, *, passphrase: str | None = None, keyring: Keyring | None = None) -> "Wallet":
        """A new Qubic key, kept in a file under a passphrase or in a keyring, and unlocked. Raises `WalletExists`,
        `BadUsage` (a passphrase that is too short), `KeyringUnavailable`, `KeyFileRefused`."""
        return cls._keep(data_dir, Seed.generate(), passphrase, keyring)

    @classmethod
    def import_seed(
        cls, data_dir: Path, seed: str, *, passphrase: str | None = None, keyring: Keyring | None = None
    ) -> "Wallet":
        """The same with a seed that exists: 55 small letters. It is never sent anywhere."""
        return cls._keep(data_dir, Seed(seed), passphrase, keyring)

    @classmethod
    def _keep(cls, data_dir: Path, seed: Seed, passphrase: str | None, keyring: Keyring | None) -> "Wallet":
        if (passphrase is None) == (keyring is None):
            raise BadUsage("passphrase", "a seed is kept under a passphrase or in a keyring", "Give one of the two.")
        wallet = cls.open(data_dir)
        if keyring is not None:
            keystore.create_in_keyring(data_dir, seed, keyring)
        else:
            assert passphrase is not None
            keystore.create_sealed(data_dir, seed, passphrase)
        wallet._unlocked = _Unlocked(seed)
        return wallet

    # The order key

    @property
    def public_key(self) -> str:
        """The order key's: 64 hex digits."""
        return self._key.public.hex()

    def sign_order(
        self, order: Order | RentOrder | ExtendOrder, *, network: Network, coordinator_key: bytes, clock_ms: int
    ) -> bytes:
        """The order's envelope. `clock_ms` is by the coordinator's clock. The idempotency key inside is what keeps a
        replay from being a second job."""
        return self.sign_statement(order, network=network, coordinator_key=coordinator_key, clock_ms=clock_ms)

    def sign_statement(self, message: Message, *, network: Network, coordinator_key: bytes, clock_ms: int) -> bytes:
        """By the order key, to this coordinator alone. Any statement may come first, so its counter is random."""
        return seal(
            message,
            self._key,
            network=network,
            audience=coordinator_key,
            incarnation=0,
            counter=secrets.randbelow(2**53),
            expires_ms=clock_ms + ORDER_LIFE_MS,
        )

    # The Qubic key

    @property
    def kept(self) -> Kept | None:
        """How the Qubic key is kept; None while there is none. Raises `KeystoreDamaged`, `KeyFileRefused`."""
        return keystore.read(self.path.parent)

    @property
    def identity(self) -> str | None:
        """60 letters; None while there is no Qubic key. Until it is unlocked, this is what the file says."""
        if self._unlocked is not None:
            return self._unlocked.identity
        kept = self.kept
        return None if kept is None else kept.header.identity

    @property
    def is_unlocked(self) -> bool:
        return self._unlocked is not None

    def unlock(self, passphrase: str | None = None, *, keyring: Keyring | None = None) -> None:
        """Makes signing possible. A wallet in the keyring needs no passphrase, and takes the system's keyring unless
        told another. Raises `NoWallet`, `WrongPassphrase`, `KeystoreDamaged`, `KeyringUnavailable`."""
        self._unlocked = _Unlocked(self._seed(passphrase, keyring))

    def lock(self) -> None:
        self._unlocked = None

    def reveal_seed(self, passphrase: str | None = None, *, keyring: Keyring | None = None) -> str:
        """The seed itself: who reads it owns the QU. Asks for the passphrase even of an unlocked wallet."""
        return self._seed(passphrase, keyring).reveal()

    def sign_message(self, text: str, scheme: Scheme = Scheme.RAW) -> bytes:
        """64 bytes. Raises `WalletLocked`, and `BadUsage` for a text that must not be signed."""
        key = self._signing_key
        try:
            return messages.sign(key.subseed, key.public_key, text, scheme)
        except ValueError as reason:
            raise BadUsage("message", str(reason), "Sign only text that you can read.") from None

    def sign_transaction(self, unsigned: Transaction) -> Transaction:
        """Raises `WalletLocked`, and `BadUsage` for a transaction of another source."""
        try:
            return unsigned.sign(self._signing_key.subseed)
        except ValueError as reason:
            raise BadUsage("source", str(reason), "Build it with this wallet's key as its source.") from None

    @property
    def qubic_key(self) -> bytes:
        """The identity's public key, 32 bytes. Raises `WalletLocked`."""
        return self._signing_key.public_key

    @property
    def _signing_key(self) -> "_Unlocked":
        if self._unlocked is None:
            keystore.read_existing(self.path.parent)
            raise WalletLocked("the wallet is locked", remedy="Call unlock() with its passphrase first.")
        return self._unlocked

    def _seed(self, passphrase: str | None, keyring: Keyring | None) -> Seed:
        kept = keystore.read_existing(self.path.parent)
        if not kept.needs_passphrase:
            return keystore.open_from_keyring(kept, keyring or keystore.system_keyring())
        if passphrase is None:
            raise BadUsage("passphrase", f"{kept.path} is under a passphrase", "Give its passphrase.")
        return keystore.open_sealed(kept, passphrase)

    def __repr__(self) -> str:
        return f"Wallet({self.public_key[:16]}…, {self.path})"


class _Unlocked:
    """What signs: the subseed, never the seed. Its `repr` shows the identity alone."""

    __slots__ = ("identity", "public_key", "subseed")

    def __init__(self, seed: Seed) -> None:
        self.subseed: Final = seed.subseed
        self.public_key: Final = seed.public_key
        self.identity: Final = seed.identity

    def __repr__(self) -> str:
        return f"_Unlocked({self.identity})"
