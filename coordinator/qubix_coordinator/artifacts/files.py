# SPDX-License-Identifier: Apache-2.0
"""Files opened by a thread for a task that may be cancelled meanwhile."""

import asyncio
from collections.abc import Callable
from typing import IO


async def opened(opener: Callable[[], IO[bytes]]) -> IO[bytes]:
    """A thread cannot be stopped: when this is cancelled, what the thread then opens is closed at once."""
    opening = asyncio.ensure_future(asyncio.to_thread(opener))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise


def _close(opening: "asyncio.Future[IO[bytes]]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
