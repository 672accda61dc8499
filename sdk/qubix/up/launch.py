# SPDX-License-Identifier: Apache-2.0
"""Runs as a script between `qubix up` and each of its children: `launch.py PARENT_PID COMMAND…`.

On Linux it asks the kernel to send this process SIGTERM when its parent dies, which lasts through the exec that
follows. Imports nothing of QUBIX, so that it costs milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
