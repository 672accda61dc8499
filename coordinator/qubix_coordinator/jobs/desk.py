# SPDX-License-Identifier: Apache-2.0
"""What every job service needs, bound once in the composition root and passed as the first argument."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from qubix_coordinator.clock import Clock
from qubix_coordinator.db.database import Database
from qubix_coordinator.settings import Settings
from qubix_protocol.keys import SigningKey
from qubix_protocol.units import Network


@dataclass(frozen=True, slots=True)
class Desk:
    """`key` is the coordinator's own: it signs settlements, and consumers' orders are addressed to it."""

    db: Database
    settings: Settings
    clock: Clock
    key: SigningKey
    network: Network
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after a commit that gives the engine something to do at once."""

    luck: Callable[[], float] = random.SystemRandom().random
    """In [0, 1), anew each time: what decides between providers that are alike."""

    def now_ms(self) -> int:
        return round(self.clock.now().timestamp() * 1000)
