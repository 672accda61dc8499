# SPDX-License-Identifier: Apache-2.0
"""Small private files (keys, tokens, pins): never readable by others, never half-written."""

import os
import stat
import tempfile
from pathlib import Path

from qubix.errors import KeyFileRefused

_BYTES_MAX = 64 * 1024


def read_private(path: Path) -> bytes | None:
    """The file's content; None when there is none. Raises `KeyFileRefused` when others can read it."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise KeyFileRefused(
                    f"{path} can be read or changed by others (mode {mode:04o})", remedy=f"Run: chmod 600 {path}"
                )
            return file.read(_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise _cannot("read", path, problem) from None


def create_private(path: Path, content: bytes) -> bool:
    """Writes a new file (0600) whole or not at all; False when it was there already."""
    try:
        written = _write_beside(path, content)
        try:
            os.link(written, path)
        except FileExistsError:
            return False
        finally:
            os.unlink(written)
    except OSError as problem:
        raise _cannot("write", path, problem) from None
    return True


def replace_private(path: Path, content: bytes) -> None:
    try:
        os.replace(_write_beside(path, content), path)
    except OSError as problem:
        raise _cannot("write", path, problem) from None


def replace_file(path: Path, content: bytes) -> None:
    """Any file, whole or as it was. Raises OSError."""
    os.replace(_write_beside(path, content), path)


def _write_beside(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return name


def _cannot(verb: str, path: Path, problem: OSError) -> KeyFileRefused:
    return KeyFileRefused(
        f"cannot {verb} {path}: {problem.strerror}",
        remedy="Set QUBIX_DATA_DIR to a folder of your own, or correct the owner of this one.",
    )
