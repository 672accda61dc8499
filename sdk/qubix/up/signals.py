# SPDX-License-Identifier: Apache-2.0
"""Signals as something that can be waited for together with pipes, in one thread and without races."""

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Final

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Wakeups:
    """`stop` is set by SIGINT, SIGTERM or SIGHUP; `wait` returns early on these and when a child ends."""

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Only in the main thread."""
        before = {number: signal.getsignal(number) for number in (*_STOPPING, signal.SIGCHLD)}
        descriptor = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        try:
            for number in _STOPPING:
                signal.signal(number, self._note)
            signal.signal(signal.SIGCHLD, lambda number, frame: None)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(descriptor)
            self._read.close()
            self._write.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.stop = signal.Signals(number)

    def wait(self, timeout_s: float, descriptors: Sequence[int] = ()) -> None:
        """Returns when one of `descriptors` can be read, a signal came, or the time is over."""
        ready, _, _ = select.select([self._read.fileno(), *descriptors], [], [], max(0.0, timeout_s))
        if self._read.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._read.fileno(), 4096)
