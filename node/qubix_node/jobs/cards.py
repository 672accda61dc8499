# SPDX-License-Identifier: Apache-2.0
"""GPUs as workers get them: one consumer at a time, and nothing of the last one left (trust.md B2)."""

import logging
import os
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from qubix_kernels.box.rules import Gpu
from qubix_node.errors import WorkerLost

log = logging.getLogger("qubix_node")
GONE_S: Final = 60.0
"""After which a driver that still lists a process that has ended is not to be relied on."""
WIPE_S: Final = 60.0
_ASK_S: Final = 0.1
_TRIES: Final = 3

Faulty = Callable[[str, str], Awaitable[None]]
Wipe = Callable[[], Awaitable[None]]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Card:
    """One card. `pids` asks the driver who computes on it (None: it does not tell) and may hang; `lock` is held by who
    uses it. `wipes`: who comes next could read its memory, so it is overwritten before. Once it has a `fault` it is not
    used again."""

    def __init__(
        self,
        gpu: Gpu,
        pids: Callable[[], frozenset[int] | None],
        *,
        gone_s: float = GONE_S,
        pause_s: float = 2.0,
        wipes: bool = True,
    ) -> None:
        self.gpu, self._pids, self._gone_s, self._pause_s, self._wipes = gpu, pids, gone_s, pause_s, wipes
        self.lock = trio.Lock()
        self.dirty = True
        """Its memory may hold somebody's data: at first, whoever's it was before us."""
        self.fault = ""
        self.worker = 0
        """The process that used it last."""

    async def clean(self, wipe: Wipe) -> None:
        """By who holds the lock. Raises `WorkerLost` when the card cannot be used: then it has a fault."""
        if self.fault:
            raise WorkerLost(self.fault)
        if not self.dirty:
            return
        try:
            await self._until_left()
            if self._wipes:
                await self._wipe(wipe)
        except WorkerLost as problem:
            self.fault = str(problem)
            raise
        self.dirty = False

    async def _until_left(self) -> None:
        """Until the driver no longer lists the last worker: its memory is given back only then."""
        with trio.move_on_after(self._gone_s) as waiting:
            while await self._is_there():  # noqa: ASYNC110
                await trio.sleep(_ASK_S)
        if waiting.cancelled_caught:
            raise WorkerLost(f"the driver did not let go of an ended process within {self._gone_s:g} s")

    async def _is_there(self) -> bool:
        """It may have been killed and hang in the driver still."""
        if not self.worker:
            return False
        if is_alive(self.worker):
            return True
        users = await trio.to_thread.run_sync(self._pids, abandon_on_cancel=True)  # type: ignore[call-arg]
        return self.worker in (users or ())

    async def _wipe(self, wipe: Wipe) -> None:
        for attempt in range(_TRIES):
            try:
                with trio.fail_after(WIPE_S):
                    return await wipe()
            except (WorkerLost, trio.TooSlowError) as problem:
                reason = str(problem) or f"it took longer than {WIPE_S:g} s"
                log.warning("card.not_wiped", extra={"device": self.gpu.uuid, "reason": reason})
                if attempt + 1 < _TRIES:
                    await trio.sleep(self._pause_s)
        raise WorkerLost(f"its memory cannot be overwritten: {reason}")
