# SPDX-License-Identifier: Apache-2.0
"""What runs beside the screens: all of it ends, and is waited for, before the terminal does."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Tasks:
    """`failed` hears of an error that a task did not expect."""

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def stop(self, *which: asyncio.Task[Any]) -> None:
        """These, or all."""
        tasks = list(which or self._running)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._failed(error)
