# SPDX-License-Identifier: Apache-2.0
"""How the network looks from here: one row that the chain process writes and everybody may read."""

from dataclasses import dataclass
from enum import StrEnum

from qubix_coordinator.db.database import Tx, execute, one

PROBLEM_MAX = 500
SILENT_MS = 60_000
"""A row that nobody has written for so long tells that no chain process runs."""


class ChainState(StrEnum):
    STARTING = "starting"
    """No chain process has looked yet."""
    OK = "ok"
    BEHIND = "behind"
    """The network answers; deposits are still being read, or its archive lags."""
    UNREACHABLE = "unreachable"
    UNTRUSTED = "untrusted"
    """The network's answers contradict themselves or each other: nothing is believed until they do not."""
    REFUSED = "refused"
    """It is another network than the one of this ledger."""


@dataclass(frozen=True, slots=True)
class Look:
    """`since_ms` is when this state began, `checked_ms` the last look."""

    state: ChainState
    problem: str
    since_ms: int
    checked_ms: int
    live_tick: int | None
    epoch: int | None
    processed_tick: int | None
    cursor_tick: int | None

    @property
    def lag_ticks(self) -> int | None:
        """By how many ticks deposits are read behind the live one."""
        if self.live_tick is None or self.cursor_tick is None:
            return None
        return max(0, self.live_tick - self.cursor_tick)


async def read(tx: Tx) -> Look:
    row = await one(
        tx,
        "SELECT state, problem, since_ms, checked_ms, live_tick, epoch, processed_tick, cursor_tick FROM chain_state",
    )
    assert row is not None
    return Look(**{**row, "state": ChainState(row["state"])})


async def write(
    tx: Tx,
    state: ChainState,
    problem: str,
    now_ms: int,
    *,
    live_tick: int | None = None,
    epoch: int | None = None,
    processed_tick: int | None = None,
) -> None:
    """What is None stays as it was."""
    await execute(
        tx,
        "UPDATE chain_state SET since_ms = CASE WHEN state = $1 THEN since_ms ELSE $3 END, state = $1, problem = $2,"
        " checked_ms = $3, live_tick = coalesce($4, live_tick), epoch = coalesce($5, epoch),"
        " processed_tick = coalesce($6, processed_tick)",
        state.value,
        problem[:PROBLEM_MAX],
        now_ms,
        live_tick,
        epoch,
        processed_tick,
    )
