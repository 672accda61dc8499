# SPDX-License-Identifier: Apache-2.0
"""What a thread makes for a task that may be cancelled meanwhile."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def made(make: Callable[[], T], undo: Callable[[T], None]) -> T:
    """A thread cannot be stopped: when this is cancelled, what the thread then makes is undone at once."""
    making = asyncio.ensure_future(asyncio.to_thread(make))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:

        def nobody_takes_it(ended: "asyncio.Future[T]") -> None:
            if not ended.cancelled() and ended.exception() is None:
                undo(ended.result())

        making.add_done_callback(nobody_takes_it)
        raise
