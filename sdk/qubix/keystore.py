# SPDX-License-Identifier: Apache-2.0
"""Where a seed is kept on this machine: encrypted in a file, or in the system's keyring.

`wallet.qubic` in the data folder is one line or three. The first is a JSON header that says whose key it is and how
it is kept. A file that keeps the seed itself goes on with the sealed seed (Scrypt, ChaCha20-Poly1305, base64), which
authenticates the header's exact bytes, and ends with the SHA-256 of both, so that damage is told from a wrong
passphrase.
"""

import base64
import hashlib
import os
import time
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, NoReturn, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Meta

from qubix.errors import (
    BadUsage,
    KeyringUnavailable,
    KeystoreDamaged,
    NoWallet,
    WalletExists,
    WrongPassphrase,
)
from qubix.files import create_private, read_private
from qubix_chain import crypto, identity

KEYSTORE_FILE: Final = "wallet.qubic"
KEYRING_SERVICE: Final = "qubix"
PASSPHRASE_CHARS_MIN: Final = 8
_NONCE_BYTES: Final = 12
_SALT_BYTES: Final = 16


class Seed:
    """55 letters that own an identity. Nothing but `reveal` gives them away: not `repr`, not `str`, not pickling."""

    __slots__ = ("_letters", "public_key")

    def __init__(self, letters: str) -> None:
        """Raises `BadUsage`, which does not quote what was given."""
        try:
            self.public_key: Final = crypto.public_key_of(letters)
        except ValueError as reason:
            raise BadUsage("seed", str(reason), "Copy the whole seed, letter by letter.") from None
        self._letters = letters

    @classmethod
    def generate(cls) -> "Seed":
        return cls(crypto.new_seed())

    @property
    def identity(self) -> str:
        return identity.encode(self.public_key)

    @property
    def subseed(self) -> bytes:
        return crypto.subseed(self._letters)

    def reveal(self) -> str:
        return self._letters

    def __repr__(self) -> str:
        return f"Seed(of {self.identity})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a seed is not pickled")


class Keyring(Protocol):
    """The part of the `keyring` package that is used; its functions have these names."""

    def get_password(self, service: str, username: str) -> str | None: ...
    def set_password(self, service: str, username: str, password: str) -> None: ...


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Scrypt's: 2^log_n · r · 128 bytes of memory, 128 MiB by default. The bounds keep a doctored file from asking for
    more than a machine has."""

    log_n: Annotated[int, Meta(ge=10, le=20)] = 17
    r: Annotated[int, Meta(ge=1, le=16)] = 8
    p: Annotated[int, Meta(ge=1, le=4)] = 1


class Sealing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    salt: bytes
    nonce: bytes
    cost: Cost
    kdf: Literal["scrypt"] = "scrypt"
    cipher: Literal["chacha20-poly1305"] = "chacha20-poly1305"


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`sealing` is there when the file itself keeps the seed."""

    identity: str
    kept_in: Literal["file", "keyring"]
    created_ms: int
    sealing: Sealing | None = None
    format: Literal["qubix-keystore"] = "qubix-keystore"
    version: Literal[1] = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A keystore as it lies there, still closed."""

    path: Path
    header: Header
    raw_header: bytes
    sealed: bytes

    @property
    def needs_passphrase(self) -> bool:
        return self.header.kept_in == "file"


def create_sealed(data_dir: Path, seed: Seed, passphrase: str, *, cost: Cost | None = None) -> Kept:
    """A new keystore file (0600, whole or not at all). Raises `WalletExists`, `BadUsage`, `KeyFileRefused`."""
    given = _acceptable(passphrase)
    sealing = Sealing(os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES), cost or Cost())
    raw_header = msgspec.json.encode(Header(seed.identity, "file", time.time_ns() // 10**6, sealing))
    cipher = ChaCha20Poly1305(_key(given, sealing))
    sealed = cipher.encrypt(sealing.nonce, seed.reveal().encode("ascii"), raw_header)
    _create(data_dir, raw_header + b"\n" + base64.b64encode(sealed) + b"\n")
    return read_existing(data_dir)


def create_in_keyring(data_dir: Path, seed: Seed, keyring: Keyring) -> Kept:
    """The seed in the keyring, and a file that says so. Raises `WalletExists`, `KeyringUnavailable`."""
    refuse_second(data_dir)
    try:
        keyring.set_password(KEYRING_SERVICE, seed.identity, seed.reveal())
        kept = keyring.get_password(KEYRING_SERVICE, seed.identity)
    except Exception as problem:  # noqa: BLE001  back ends raise errors of their own libraries
        raise _no_keyring(problem) from None
    if kept != seed.reveal():
        raise KeyringUnavailable(
            "the system's keyring did not keep the seed", remedy="Keep it in an encrypted file: leave --keyring out."
        )
    _create(data_dir, msgspec.json.encode(Header(seed.identity, "keyring", time.time_ns() // 10**6)) + b"\n")
    return read_existing(data_dir)


def read(data_dir: Path) -> Kept | None:
    """The keystore of the folder, closed; None when there is none. Raises `KeystoreDamaged`, `KeyFileRefused`."""
    path = data_dir / KEYSTORE_FILE
    content = read_private(path)
    return None if content is None else _parsed(path, content)


def refuse_second(data_dir: Path) -> None:
    """Raises `WalletExists` where there is one."""
    if read(data_dir) is not None:
        raise _exists(data_dir)


def read_existing(data_dir: Path) -> Kept:
    kept = read(data_dir)
    if kept is None:
        raise NoWallet(
            f"there is no Qubic wallet in {data_dir}",
            remedy="Make one with `qubix wallet create`, or bring your own with `qubix wallet import`.",
        )
    return kept


def open_sealed(kept: Kept, passphrase: str) -> Seed:
    """Raises `WrongPassphrase`, `KeystoreDamaged`."""
    sealing = kept.header.sealing
    assert sealing is not None, "kept in the keyring"
    try:
        cipher = ChaCha20Poly1305(_key(_normal(passphrase), sealing))
        letters = cipher.decrypt(sealing.nonce, kept.sealed, kept.raw_header).decode("ascii")
    except InvalidTag:
        raise WrongPassphrase(
            f"the passphrase does not open {kept.path}", remedy="Try again; only the seed itself replaces it."
        ) from None
    except (UnicodeDecodeError, ValueError):
        raise _damaged(kept.path, "the seed in it is none") from None
    return _own(kept, letters)


def open_from_keyring(kept: Kept, keyring: Keyring) -> Seed:
    """Raises `KeyringUnavailable`, `NoWallet`, `KeystoreDamaged`."""
    try:
        letters = keyring.get_password(KEYRING_SERVICE, kept.header.identity)
    except Exception as problem:  # noqa: BLE001  back ends raise errors of their own libraries
        raise _no_keyring(problem) from None
    if letters is None:
        raise NoWallet(
            f"the system's keyring has no seed of {kept.header.identity}",
            remedy=f"Log in as the user who made the wallet, or move {kept.path} away and import the seed again.",
        )
    return _own(kept, letters)


def system_keyring() -> Keyring:
    """Raises `KeyringUnavailable`."""
    try:
        import keyring
    except ImportError:
        raise KeyringUnavailable(
            "the system's keyring cannot be used: the package for it is not installed",
            remedy='Install it (pip install "qubix[keyring]"), or leave --keyring out to use an encrypted file.',
        ) from None
    return keyring


def _own(kept: Kept, letters: str) -> Seed:
    try:
        seed = Seed(letters)
    except BadUsage:
        raise _damaged(kept.path, "the seed in it is none") from None
    if seed.identity != kept.header.identity:
        raise _damaged(kept.path, "the seed in it belongs to another identity")
    return seed


def _parsed(path: Path, content: bytes) -> Kept:
    raw_header, _, rest = content.partition(b"\n")
    try:
        header = msgspec.json.decode(raw_header, type=Header)
        identity.decode(header.identity)
    except (ValueError, UnicodeDecodeError):
        raise _damaged(path, "its first line is no header of version 1") from None
    if (header.kept_in == "file") != (header.sealing is not None):
        raise _damaged(path, "its header contradicts itself")
    sealed = b""
    if header.sealing is not None:
        if len(header.sealing.salt) != _SALT_BYTES or len(header.sealing.nonce) != _NONCE_BYTES:
            raise _damaged(path, "its header has salt or nonce of another size")
        encoded, _, digest = rest.partition(b"\n")
        if digest.strip() != _digest(raw_header + b"\n" + encoded + b"\n"):
            raise _damaged(path, "its content does not match its checksum")
        sealed = _decoded(path, encoded)
    return Kept(path, header, raw_header, sealed)


def _decoded(path: Path, encoded: bytes) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        raise _damaged(path, "its second line is no base64") from None


def _create(data_dir: Path, content: bytes) -> None:
    whole = content + _digest(content) + b"\n" if content.count(b"\n") > 1 else content
    if not create_private(data_dir / KEYSTORE_FILE, whole):
        raise _exists(data_dir)


def _exists(data_dir: Path) -> WalletExists:
    path = data_dir / KEYSTORE_FILE
    return WalletExists(
        f"there is a Qubic wallet already: {path}",
        remedy="Use another data folder (QUBIX_DATA_DIR), or move that file away and keep it: it opens its QU.",
    )


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode("ascii")


def _key(passphrase: bytes, sealing: Sealing) -> bytes:
    cost = sealing.cost
    return Scrypt(salt=sealing.salt, length=32, n=2**cost.log_n, r=cost.r, p=cost.p).derive(passphrase)


def _normal(passphrase: str) -> bytes:
    """The same bytes however a keyboard composes its letters."""
    return unicodedata.normalize("NFKC", passphrase).encode("utf-8", "surrogatepass")


def _acceptable(passphrase: str) -> bytes:
    if len(passphrase) < PASSPHRASE_CHARS_MIN:
        raise BadUsage(
            "passphrase",
            f"the passphrase has fewer than {PASSPHRASE_CHARS_MIN} characters",
            "Choose a longer one: who gets the file can try as many as they like.",
        )
    return _normal(passphrase)


def _damaged(path: Path, what: str) -> KeystoreDamaged:
    return KeystoreDamaged(
        f"the keystore {path} is damaged: {what}",
        remedy="Restore it from a copy; or move it away and import the seed with `qubix wallet import`.",
    )


def _no_keyring(problem: Exception) -> KeyringUnavailable:
    """The back end's own words stay out: nothing promises that they do not quote what they were given."""
    return KeyringUnavailable(
        f"the system's keyring cannot be used ({type(problem).__name__})",
        remedy="Unlock it or start its service, or leave --keyring out to use an encrypted file.",
    )
