# SPDX-License-Identifier: Apache-2.0
"""The demonstration's market: `qubix up` as a process, in a folder that may be temporary, gone afterwards."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from qubix.errors import BadSettings, StartFailed
from qubix.up import logs, rules
from qubix.up.child import Child

READY_S: Final = 240.0
STOP_S: Final = 15.0
RATE_QU_PER_H: Final = 3_600_000
"""1,000 QU a second: jobs of milliseconds then cost enough for a fee to show."""
_OWN = frozenset(
    [
        "QUBIX_COORDINATOR_URL",
        "QUBIX_DATA_DIR",
        "QUBIX_HTTP_PORT",
        "QUBIX_QUBIC_URL",
        "QUBIX_READY_FD",
        "QUBIX_TOKEN",
    ]
)
_FAST: Final = {
    "QUBIX_DEVNET_TICK_MS": "200",
    "QUBIX_CHAIN_POLL_MS": "100",
    "QUBIX_WITHDRAWAL_TICKS_AHEAD": "6",
    "QUBIX_WITHDRAWAL_ADDRESS_DELAY_S": "0",
    "QUBIX_RESERVES_FRESH_S": "1",
}
"""What keeps people waiting, for good reasons, where money is real. Not laid over what is set outside."""


@contextmanager
def folder(given: Path | None) -> Iterator[Path]:
    """The given folder, or one that is removed at the end."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.absolute()
        return
    made = Path(tempfile.mkdtemp(prefix="qubix-demo-"))
    try:
        made.chmod(0o755)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def running(data_dir: Path, outside: Mapping[str, str], say: Callable[[str], None]) -> Iterator[Mapping[str, Any]]:
    """What `qubix up` says of the market once it is ready: `url`, `qubic_url`. `say` gets each line that it prints.
    Raises `StartFailed`."""
    log = data_dir / "up.log"
    log.unlink(missing_ok=True)
    env = _FAST | {name: value for name, value in outside.items() if name not in _OWN}
    command = [
        sys.executable,
        "-m",
        "qubix",
        "up",
        "--data-dir",
        str(data_dir),
        "--port",
        "0",
        "--rate",
        str(RATE_QU_PER_H),
    ]
    child = Child("up", command, env | {"PYTHONUNBUFFERED": "1"}, log)
    lines = _NewLines(log, say)
    try:
        info = _wait_ready(child, lines, data_dir)
        yield info
    finally:
        _stop(child)
        lines.tell()


class _NewLines:
    """Tells whole lines of a growing file, each once."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path, self._say, self._told = path, say, 0

    def tell(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._told)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._told += len(whole) + len(newline)
        for line in whole.decode(errors="replace").splitlines():
            self._say(line)


def _wait_ready(child: Child, lines: _NewLines, data_dir: Path) -> dict[str, object]:
    end = time.monotonic() + READY_S
    while not (child.read_ready() and child.info is not None):
        lines.tell()
        if child.status is not None:
            kind = BadSettings if child.status == rules.BAD_SETTINGS else StartFailed
            raise kind("the market did not start", remedy="Mend what stands above.")
        if time.monotonic() > end:
            raise StartFailed(
                f"the market was not open within {READY_S:g} s\n{tails(data_dir)}", remedy="See its logs."
            )
        time.sleep(0.05)
    lines.tell()
    return child.info


def _stop(child: Child) -> None:
    child.terminate()
    end = time.monotonic() + STOP_S
    while child.status is None and time.monotonic() < end:
        time.sleep(0.02)
    child.kill()
    child.close_pipe()


def tails(data_dir: Path, lines: int = 15) -> str:
    """The last words of every part."""
    found = sorted((data_dir / "logs").glob("*.log"))
    return "\n".join(f"--- {path.stem}{os.linesep}{logs.tail(path, lines)}" for path in found)
