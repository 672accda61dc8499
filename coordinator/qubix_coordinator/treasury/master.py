# SPDX-License-Identifier: Apache-2.0
"""One master secret, and every key to QU that follows from it.

Derivation 1: for a purpose (`hot`, or `deposit/` and the index in decimal) take 110 bytes of
K12(secret ‖ "qubix/treasury/1/" ‖ purpose); each little-endian pair of bytes modulo 26 is a letter of a 55-letter Qubic
seed. So whoever has the file can open each identity in any Qubic wallet, without this program.

The file is one line of text: `qubix-master-1` and 64 hex digits. It is the money: whoever reads it can take all of it,
and when it is lost, so is all of it. Keep a copy where neither this machine nor its backups of the database are.
"""

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from qubix_chain import crypto
from qubix_chain.k12 import k12
from qubix_chain.transaction import Transaction
from qubix_coordinator.deposits.ports import Signed
from qubix_coordinator.errors import Fault

DERIVATION: Final = 1
SECRET_BYTES: Final = 32
_HEAD: Final = f"qubix-master-{DERIVATION}"
_SEED_LETTERS: Final = 55


class BadMaster(Fault):
    """The file of the master secret cannot be used."""


def seed_of(secret: bytes, purpose: str) -> str:
    stream = k12(secret + f"qubix/treasury/{DERIVATION}/{purpose}".encode("ascii"), 2 * _SEED_LETTERS)
    pairs = (int.from_bytes(stream[at : at + 2], "little") for at in range(0, len(stream), 2))
    return "".join(chr(ord("a") + pair % 26) for pair in pairs)


def open_or_make(path: Path) -> tuple[bytes, bool]:
    """The secret, and whether it is new. Raises BadMaster: unreadable, readable by others, or not such a file."""
    try:
        return _read(path), False
    except FileNotFoundError:
        return _make(path), True
    except OSError as problem:
        raise BadMaster(f"{path} cannot be read: {problem.strerror}", remedy="Run this as its owner") from None


def _read(path: Path) -> bytes:
    found = path.stat()
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise BadMaster(f"others may read {path}", remedy=f"If nobody has, run: chmod 600 {path}")
    head, _, digits = path.read_text(encoding="ascii", errors="replace").strip().partition(" ")
    try:
        secret = bytes.fromhex(digits)
    except ValueError:
        secret = b""
    if head != _HEAD or len(secret) != SECRET_BYTES:
        raise BadMaster(f"{path} is not a master secret of this version", remedy="Put your copy of it back there")
    return secret


def _make(path: Path) -> bytes:
    """Whole or not at all, and never over another one."""
    secret = secrets.token_bytes(SECRET_BYTES)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of a name that no start before this one has used: one that was killed here leaves its draft behind.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="ascii") as out:
            out.write(f"{_HEAD} {secret.hex()}\n")
            out.flush()
            os.fsync(out.fileno())
        os.link(draft, path)
    except FileExistsError:
        return _read(path)
    except OSError as problem:
        raise BadMaster(f"{path} cannot be made: {problem.strerror}", remedy="Name another QUBIX_MASTER_FILE") from None
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return secret


class MasterSigner:
    """`deposits.ports.Signer`, from a master secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._hot = crypto.subseed(seed_of(secret, "hot"))
        self._hot_key = crypto.public_key(crypto.private_key(self._hot))

    def __repr__(self) -> str:
        return "MasterSigner(…)"

    @property
    def hot_public_key(self) -> bytes:
        return self._hot_key

    def deposit_public_key(self, index: int) -> bytes:
        return crypto.public_key(crypto.private_key(self._deposit(index)))

    def sign_payment(self, *, destination: bytes, amount_qu: int, tick: int) -> Signed:
        return _signed(self._hot, self._hot_key, destination, amount_qu, tick)

    def sign_sweep(self, index: int, *, amount_qu: int, tick: int) -> Signed:
        return _signed(self._deposit(index), self.deposit_public_key(index), self._hot_key, amount_qu, tick)

    def _deposit(self, index: int) -> bytes:
        return crypto.subseed(seed_of(self._secret, f"deposit/{index}"))


def _signed(subseed: bytes, source: bytes, destination: bytes, amount_qu: int, tick: int) -> Signed:
    made = Transaction.build(source=source, destination=destination, amount=amount_qu, tick=tick).sign(subseed)
    return Signed(made.to_bytes(), made.id, source, destination, amount_qu, tick)
