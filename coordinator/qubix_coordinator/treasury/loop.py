# SPDX-License-Identifier: Apache-2.0
"""The loop: on each new tick deposits are read, swept, and withdrawals paid. What fails of one holds up no other."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from qubix_chain.rpc.errors import ChainError, Untrusted
from qubix_coordinator.deposits import pool, scan, status, sweep
from qubix_coordinator.deposits.desk import ChainDesk
from qubix_coordinator.deposits.status import ChainState
from qubix_coordinator.errors import Unavailable, WrongNetwork

log = logging.getLogger(__name__)
ROUNDS_MAX: Final = 50
"""Steps of reading before withdrawals have their turn again, however far behind deposits are."""
BEHIND_TICKS: Final = 120
"""Deposits that are read so far behind the live tick are late."""
HOLDINGS_TICKS: Final = 10
RETRY_MAX_S: Final = 10.0
STILL_S: Final = 5.0
"""Without a new tick the network is looked at this often all the same."""


class Loop:
    """`further` are rounds of others on each new tick; they raise nothing but what the database does."""

    def __init__(
        self,
        desk: ChainDesk,
        check: Callable[[], Awaitable[None]],
        further: Sequence[Callable[[], Awaitable[None]]] = (),
        *,
        poll_s: float,
    ) -> None:
        self._desk, self._check, self._further, self._poll_s = desk, check, further, poll_s
        self._checked = False
        self._tick = -1
        self._looked_s = 0.0
        self._holdings_tick = -HOLDINGS_TICKS
        self._failures = 0
        self._said: tuple[ChainState, str] | None = None

    async def run(self) -> None:
        """Until cancelled, which is safe at any moment. Raises TurnLost."""
        while True:
            try:
                await self.round()
            except Unavailable:
                await self._desk.db.until_back()
            await asyncio.sleep(min(RETRY_MAX_S, self._poll_s * 2.0 ** min(self._failures, 8)))

    async def round(self) -> None:
        """One look, and all that follows from it."""
        try:
            if not self._checked:
                await self._check()
                self._checked = True
            info = await self._desk.chain.tick_info()
        except WrongNetwork as problem:
            await self._note(ChainState.REFUSED, f"{problem}. {problem.remedy}")
            self._failures += 1
            return
        except ChainError as problem:
            await self._fail(problem)
            return
        now_s = asyncio.get_running_loop().time()
        if info.tick == self._tick and now_s < self._looked_s + STILL_S:
            return
        self._tick, self._looked_s = info.tick, now_s
        await self._deposits()
        for others in self._further:
            await others()

    async def _deposits(self) -> None:
        desk = self._desk
        try:
            await desk.run(lambda tx: pool.fill(tx, desk.signer))
            for _ in range(ROUNDS_MAX):
                if not (await scan.step(desk)).behind:
                    break
            info = await desk.chain.tick_info()
            processed = await desk.chain.last_processed_tick()
            await sweep.step(desk, info, processed)
            if info.tick >= self._holdings_tick + HOLDINGS_TICKS:
                await sweep.look_at_holdings(desk)
                self._holdings_tick = info.tick
        except ChainError as problem:
            await self._fail(problem)
            return
        self._failures = 0
        look = await desk.db.run(status.read)
        behind = info.tick - (look.cursor_tick or 0)
        state = ChainState.BEHIND if behind > BEHIND_TICKS else ChainState.OK
        problem_text = f"deposits are read {behind} ticks behind the network" if state is ChainState.BEHIND else ""
        await self._note(state, problem_text, live_tick=info.tick, epoch=info.epoch, processed_tick=processed.tick)

    async def _fail(self, problem: ChainError) -> None:
        self._failures += 1
        state = ChainState.UNTRUSTED if isinstance(problem, Untrusted) else ChainState.UNREACHABLE
        await self._note(state, str(problem) or type(problem).__name__)

    async def _note(
        self,
        state: ChainState,
        problem: str,
        *,
        live_tick: int | None = None,
        epoch: int | None = None,
        processed_tick: int | None = None,
    ) -> None:
        """A change is logged once; ERROR where a person must act."""
        if self._said is None or self._said[0] is not state:
            acts = state in (ChainState.UNTRUSTED, ChainState.REFUSED)
            level = logging.ERROR if acts else logging.WARNING if problem else logging.INFO
            log.log(level, "chain.state", extra={"state": state.value, "problem": problem})
        self._said = (state, problem)
        now_ms = self._desk.now_ms()
        await self._desk.run(
            lambda tx: status.write(
                tx, state, problem, now_ms, live_tick=live_tick, epoch=epoch, processed_tick=processed_tick
            )
        )
