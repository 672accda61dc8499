# SPDX-License-Identifier: Apache-2.0
"""The task that carries spot checks on. Replicas run one each on the same database; every step is one transaction that
looks again under the locks."""

import logging
from typing import Final
from uuid import UUID

from qubix_coordinator.db.database import Tx, rows
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.spots import flow

log = logging.getLogger(__name__)
TICK_S: Final = 0.5
BATCH: Final = 64


class Engine:
    """`await Engine(desk).run()` in the app's task group; cancelling it is safe at any moment."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def run(self) -> None:
        await self._desk.db.every(TICK_S, self.tick)

    async def tick(self) -> None:
        """One round of everything; tests call it directly with a clock of their own."""
        desk, now_ms = self._desk, self._desk.now_ms()
        for key in await desk.db.run(lambda tx: to_look_at(tx, now_ms)):
            try:
                await desk.db.run(lambda tx, key=key: flow.advance(desk, tx, key))  # type: ignore[misc]
            except Unavailable:
                raise
            except Exception:  # whatever is wrong with one, the others go on
                log.exception("spot.step_failed", extra={"attempt": str(key)})


async def to_look_at(tx: Tx, now_ms: int) -> list[UUID]:
    """The open ones, and those with a re-run that is not paid yet."""
    found = await rows(
        tx,
        "SELECT attempt_id FROM spot_check WHERE ended_ms IS NULL AND look_ms <= $1"
        " UNION SELECT r.attempt_id FROM spot_rerun r JOIN spot_check c USING (attempt_id)"
        " WHERE NOT r.settled AND c.look_ms <= $1 LIMIT $2",
        now_ms,
        BATCH,
    )
    return [UUID(str(row["attempt_id"])) for row in found]
