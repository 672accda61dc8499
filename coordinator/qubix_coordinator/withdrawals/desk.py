# SPDX-License-Identifier: Apache-2.0
"""What every withdrawal service needs, bound once in a composition root and passed as the first argument."""

from dataclasses import dataclass

from qubix_coordinator.clock import Clock
from qubix_coordinator.db.database import Database
from qubix_coordinator.settings import Settings


@dataclass(frozen=True, slots=True)
class Desk:
    db: Database
    settings: Settings
    clock: Clock

    def now_ms(self) -> int:
        return round(self.clock.now().timestamp() * 1000)
