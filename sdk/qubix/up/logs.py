# SPDX-License-Identifier: Apache-2.0
"""The children's log files: bounded, and their last lines for people."""

import os
import shutil
from pathlib import Path
from typing import BinaryIO, Final

LOG_BYTES_MAX: Final = 16 * 1024 * 1024
_TAIL_BYTES: Final = 16 * 1024


def path_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.log"


def writer(path: Path) -> BinaryIO:
    """Appends. Only the owner may read: what a part prints is not for everybody on the machine."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def tail(path: Path, lines: int = 20, *, start: int = 0) -> str:
    """The last lines of what stands behind byte `start`; "" when there is nothing."""
    try:
        with path.open("rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def trim(path: Path) -> None:
    """Moves a file that has grown too long aside as NAME.log.1; its writer appends, so it goes on here."""
    try:
        if path.stat().st_size > LOG_BYTES_MAX:
            shutil.copy(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)
    except FileNotFoundError:
        return
