# SPDX-License-Identifier: Apache-2.0
"""What a thread makes for a task is undone when nobody takes it any more."""

import asyncio
import threading

import pytest

from qubix_coordinator.threads import made

pytestmark = pytest.mark.asyncio
DEADLINE_S = 60.0


async def test_what_is_made_for_a_cancelled_task_is_undone_and_what_is_taken_is_not() -> None:
    begun, go_on, undone = asyncio.Event(), threading.Event(), asyncio.Queue[str]()
    loop = asyncio.get_running_loop()

    def make() -> str:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(DEADLINE_S)
        return "a file"

    async with asyncio.timeout(DEADLINE_S):
        task = asyncio.create_task(made(make, undone.put_nowait))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert undone.empty(), "it is not made yet"
        go_on.set()
        assert await undone.get() == "a file"
        assert await made(make, undone.put_nowait) == "a file"
        assert undone.empty()


async def test_what_cannot_be_made_says_why() -> None:
    def make() -> str:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        await made(make, lambda _: None)
