# SPDX-License-Identifier: Apache-2.0
"""What makes ticks: time, unless it is paused; then only whoever asks for them."""

import asyncio
import logging
from typing import Final

from qubix_chain.devnet.faults import SLOW_FACTOR
from qubix_chain.devnet.network import Network

log = logging.getLogger(__name__)
TICK_MS_MIN: Final = 10
TICK_MS_MAX: Final = 600_000


class Clock:
    """`run` is one task's; the others may be called at any moment between its waits."""

    def __init__(self, network: Network, *, tick_ms: int, paused: bool) -> None:
        self._network = network
        self.tick_ms, self.paused = tick_ms, paused
        self._told = asyncio.Event()

    def pause(self) -> None:
        self.paused = True
        self._told.set()

    def resume(self) -> None:
        self.paused = False
        self._told.set()

    def set_speed(self, tick_ms: int) -> None:
        self.tick_ms = tick_ms
        self._told.set()

    async def run(self) -> None:
        """Until cancelled. A tick that cannot be written ends it with the error."""
        while True:
            if self.paused:
                await self._told.wait()
                self._told.clear()
            elif not await self._told_within(self.tick_ms * (SLOW_FACTOR if self._network.slow() else 1)):
                self._network.step()

    async def _told_within(self, wait_ms: int) -> bool:
        """Whether somebody changed the clock meanwhile; the tick then begins anew."""
        try:
            async with asyncio.timeout(wait_ms / 1000):
                await self._told.wait()
        except TimeoutError:
            return False
        self._told.clear()
        return True
