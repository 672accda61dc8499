# SPDX-License-Identifier: Apache-2.0
"""One child process: its start, its ready line, its log, its end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from qubix.up import logs

_LAUNCHER: Final = str(Path(__file__).with_name("launch.py"))
_READY_BYTES_MAX: Final = 64 * 1024
BARE: Final = (sys.executable, "-I", "-S")
"""A Python without site packages, for the scripts that must start in milliseconds."""


class Child:
    """Leads a process group of its own, so that a terminal's Ctrl-C reaches `qubix up` alone."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.name, self.log = name, log
        self.info: dict[str, Any] | None = None
        self._line = b""
        self._swept = False
        logs.trim(log)
        self._log_start = logs.size(log)
        self.ready_fd, write = os.pipe()
        os.set_blocking(self.ready_fd, False)
        try:
            with logs.writer(log) as out:
                self._popen = subprocess.Popen(
                    [*BARE, _LAUNCHER, str(os.getpid()), *command],
                    env={**env, "QUBIX_READY_FD": str(write)},
                    pass_fds=[write],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
        except BaseException:
            os.close(self.ready_fd)
            raise
        finally:
            os.close(write)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """Its exit status once it has ended (negative: the signal), with nothing of its group left."""
        status = self._popen.poll()
        if status is not None:
            self._sweep()
        return status

    def last_words(self) -> str:
        """The end of what it said itself; what earlier ones left in the file is not its."""
        return logs.tail(self.log, start=self._log_start) or "(it said nothing)"

    def read_ready(self) -> bool:
        """Takes what came on the pipe; whether that is all there will be. `info` is set by a whole ready line."""
        try:
            more = os.read(self.ready_fd, 4096)
        except BlockingIOError:
            return False
        self._line += more
        if b"\n" in self._line:
            with contextlib.suppress(ValueError):
                found = json.loads(self._line.partition(b"\n")[0])
                self.info = found if isinstance(found, dict) else None
        ended = not more or b"\n" in self._line or len(self._line) > _READY_BYTES_MAX
        if ended:
            self.close_pipe()
        return ended

    def close_pipe(self) -> None:
        if self.ready_fd >= 0:
            os.close(self.ready_fd)
            self.ready_fd = -1

    def terminate(self) -> None:
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and its whole group, and waits for the kernel to say so."""
        self._sweep()
        self._popen.wait()

    def _sweep(self) -> None:
        """Once: later the number may be somebody else's."""
        if self._swept:
            return
        self._swept = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
