# SPDX-License-Identifier: Apache-2.0
"""The watchdog: what the kernel does not bound by itself, looked at now and then, by the zygote, from outside."""

import os
import resource
import signal
import time
from collections.abc import Sequence
from typing import Final, Literal

from qubix_kernels.box.rules import ENTRIES_MAX, THREADS_MAX, Limits

Cause = Literal["", "time", "processor", "memory", "disk", "threads"]
PERIOD_S: Final = 0.2
_PAGE: Final = resource.getpagesize()
_BLOCK: Final = 512
_THREADS_FIELD, _RESIDENT_FIELD = 17, 21
"""Of /proc/PID/stat, counted after the name, which may hold anything (proc(5))."""


class Watched:
    """One worker since its fork, and the folders that it may fill; `cause` says what it was ended for."""

    def __init__(self, pid: int, folders: Sequence[str], limits: Limits) -> None:
        self.pid, self._folders, self.limits = pid, folders, limits
        self._since_s = time.monotonic()
        self.cause: Cause = ""

    def over(self) -> Cause:
        """The limit that it is over now, if any."""
        limits = self.limits
        if limits.wall_s and time.monotonic() - self._since_s > limits.wall_s:
            return "time"
        threads, resident_bytes = _threads_and_memory(self.pid)
        if threads > THREADS_MAX:
            return "threads"
        if limits.memory_bytes and resident_bytes > limits.memory_bytes:
            return "memory"
        if limits.disk_bytes and is_over(self._folders, limits.disk_bytes):
            return "disk"
        return ""

    def ended(self, status: int, used_s: float) -> Cause:
        """What it was ended for. Process 1 of a namespace hears no SIGXCPU, only the SIGKILL that follows it."""
        over = 0 < self.limits.cpu_s <= used_s
        if not self.cause and (status == -signal.SIGXCPU or (status == -signal.SIGKILL and over)):
            self.cause = "processor"
        return self.cause


def _threads_and_memory(pid: int) -> tuple[int, int]:
    """Zeros where the system does not tell, or the process has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0, 0
    return int(fields[_THREADS_FIELD]), int(fields[_RESIDENT_FIELD]) * _PAGE


def is_over(folders: Sequence[str], limit_bytes: int) -> bool:
    """Whether they take more of the disk than that, or have more entries than any job makes. Follows no link."""
    total, entries, waiting = 0, 0, list(folders)
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    entries += 1
                    total += _size_of(entry)
                    if total > limit_bytes or entries > ENTRIES_MAX:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            continue  # it was there a moment ago
    return False


def _size_of(entry: "os.DirEntry[str]") -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * _BLOCK
    except OSError:
        return 0
