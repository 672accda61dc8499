# SPDX-License-Identifier: Apache-2.0
"""An event loop of its own in a thread, for tests whose own thread has Playwright's."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")
PATIENCE_S = 30


class Background:
    def __enter__(self) -> Self:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(_cancelled())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_S)
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for it. Raises what it raises, and TimeoutError."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)


async def _cancelled() -> None:
    """Whatever still runs is asked to end, and waited for."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
