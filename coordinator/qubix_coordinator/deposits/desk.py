# SPDX-License-Identifier: Apache-2.0
"""What everything that acts on the chain needs, bound once by the chain process and passed as the first argument."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from qubix_coordinator.clock import Clock
from qubix_coordinator.db.database import Database, Tx, value
from qubix_coordinator.deposits.ports import Chain, Signer
from qubix_coordinator.errors import Fault
from qubix_coordinator.settings import Settings

T = TypeVar("T")


class TurnLost(Fault):
    """Another chain process has taken over: this one must stop."""


async def take_turn(tx: Tx) -> int:
    """Ends the turn of whoever had it; the number of ours."""
    return int(await value(tx, "UPDATE chain_lease SET fence = fence + 1 RETURNING fence"))


@dataclass(frozen=True, slots=True)
class ChainDesk:
    """`fence` is the number of this process's turn."""

    db: Database
    chain: Chain
    signer: Signer
    settings: Settings
    clock: Clock
    network: str
    fence: int

    async def run(self, step: Callable[[Tx], Awaitable[T]]) -> T:
        """`db.run` for all that only one process may do at a time. Raises TurnLost when it is no longer this one."""

        async def fenced(tx: Tx) -> T:
            fence = await value(tx, "SELECT fence FROM chain_lease FOR SHARE")
            if fence != self.fence:
                raise TurnLost("another chain process has taken over", remedy="Leave one of them running")
            return await step(tx)

        return await self.db.run(fenced)

    def now_ms(self) -> int:
        return round(self.clock.now().timestamp() * 1000)
