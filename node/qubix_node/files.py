# SPDX-License-Identifier: Apache-2.0
"""Small files that must be whole or absent, and the lock that keeps two nodes off one folder."""

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from qubix_node.errors import AlreadyRunning, CannotWrite, NotRunning


def write_atomically(path: Path, data: bytes) -> None:
    """Readable by the owner alone; after a crash the file holds the old bytes or the new, never a mix."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in it durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_plain(path: Path) -> BinaryIO:
    """A file that a worker wrote, for reading: never through a link to somewhere else, and never a pipe that waits.

    Raises OSError.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    return os.fdopen(handle, "rb")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder for this process; the kernel lets go of it however the process ends. Raises `Fatal`."""
    with _lock_file(folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(
                f"another node uses {folder}. Stop it, or give this one its own folder with QUBIX_DATA_DIR."
            ) from None
        yield


def check_running(folder: Path) -> None:
    """Raises `NotRunning` unless a node has the folder."""
    try:
        with locked(folder):
            pass
    except AlreadyRunning:
        return
    raise NotRunning(f"no node runs on {folder}. Name the node's data folder with QUBIX_DATA_DIR or --data-dir.")


def _lock_file(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return (folder / "lock").open("a")
    except OSError as problem:
        raise CannotWrite(
            f"cannot write to {folder}: {problem.strerror}. Set QUBIX_DATA_DIR to a folder of yours."
        ) from None
