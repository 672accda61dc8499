# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and SIGINT, from the first moment: a process that still waits for its database stops as promptly as one that
serves.
"""

import asyncio
import contextlib
import signal
from collections.abc import Iterator


class StopSignal:
    """Made by the main task. Until `started` a signal cancels that task; from then on it sets `asked`."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._starting = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._hear)

    def started(self) -> None:
        self._starting = None

    def _hear(self) -> None:
        self.asked.set()
        if self._starting is not None:
            self._starting.cancel()


@contextlib.contextmanager
def stopped_while_starting() -> Iterator[None]:
    """Around the event loop's run: being told to stop during the start is a clean end."""
    with contextlib.suppress(asyncio.CancelledError):
        yield
