# SPDX-License-Identifier: Apache-2.0
"""Secrets kept as files in the data folder: 32 random bytes, mode 0600, made once."""

import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from qubix_coordinator.errors import Unavailable

KEY_BYTES: Final = 32


def derive(key: bytes, purpose: bytes, *, salt: bytes | None = None) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=b"qubix/" + purpose).derive(key)


def load_or_create(path: Path) -> bytes:
    """The key in the file. Two processes that start at once agree on one: the first to link its file wins."""
    if not path.exists():
        write_once(path, secrets.token_bytes(KEY_BYTES))
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise Unavailable(
            f"{path} has {len(key)} bytes and not the {KEY_BYTES} of a key",
            remedy="Restore it from a backup: without it, what it protects is lost",
        )
    return key


def write_once(path: Path, data: bytes) -> bool:
    """Writes a private file that appears whole or not at all; False, unchanged, when it is there already."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.link(name, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(name)
    return True
