# SPDX-License-Identifier: Apache-2.0
"""One `qubix up` on a data folder: a lock that the kernel gives back however its holder ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qubix.errors import StartFailed

LOCK_FILE: Final = "up.lock"


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Raises `StartFailed` naming the process that holds it."""
    with (data_dir / LOCK_FILE).open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StartFailed(
                f"a market is running on {data_dir} already (process {file.read(20).strip() or 'unknown'})",
                remedy="Use it, stop it with Ctrl-C where it runs, or give --data-dir another folder.",
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
