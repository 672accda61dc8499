# SPDX-License-Identifier: Apache-2.0
"""Runs as a script beside `qubix up` and outlives it: when `up` ends without having stopped its children (kill -9, out
of memory), this stops them, with everything that they have started in their process groups.

Reads `+PID` and `-PID` lines from standard input; the end of the input is the end of `up`. A child's process id is
its process group. Imports nothing of QUBIX.
"""

import contextlib
import os
import signal
import sys
import time

PATIENCE_S = 4.0


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: list[int] = []
    for line in sys.stdin:
        pid = int(line[1:])
        if line.startswith("+"):
            groups.append(pid)
        elif pid in groups:
            groups.remove(pid)
    stop(groups)


def stop(groups: list[int]) -> None:
    """SIGTERM to each leader, last started first; SIGKILL to what is left of the groups."""
    for pid in reversed(groups):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + PATIENCE_S
    while groups and time.monotonic() < end:
        groups = [pid for pid in groups if _alive(pid)]
        time.sleep(0.05)
    for pid in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main()
