# SPDX-License-Identifier: Apache-2.0
"""The identity on disk: 32 bytes, readable by its owner alone."""

import os
import secrets
from pathlib import Path

from qubix_mesh.gateway.errors import BadKeyFile

_SEED_BYTES = 32


def load_or_create(path: Path) -> bytes:
    """The seed in the file, or a new one written there. Raises `BadKeyFile`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _create(path)
    except FileExistsError:
        pass
    except OSError as error:
        raise BadKeyFile(
            f"{path} cannot be written: {error.strerror}. Set QUBIX_GATEWAY_KEY_FILE or mend it"
        ) from error
    return _read(path)


def _create(path: Path) -> None:
    """Under another name first: a crash must not leave half a key."""
    if path.exists():
        raise FileExistsError
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(_SEED_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    finally:
        draft.unlink()


def _read(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode & 0o777
        with path.open("rb") as file:
            seed = file.read(_SEED_BYTES + 1)
    except OSError as error:
        raise BadKeyFile(f"{path} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise BadKeyFile(f"{path} is open to others (mode {mode:o}); run: chmod 600 {path}")
    if len(seed) != _SEED_BYTES:
        raise BadKeyFile(f"{path} does not hold a key of {_SEED_BYTES} bytes; remove it to get a new identity")
    return seed
