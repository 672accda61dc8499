# SPDX-License-Identifier: Apache-2.0
"""What a broken connection means for attempts: the node is given less time to come back than silence alone gets."""

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Tx, execute
from qubix_coordinator.jobs.desk import Desk


async def on_gone(desk: Desk, peer_id: str, incarnation: int) -> None:
    """A live gateway says that the node's connection broke: whoever was killed is noticed before its lease ends.

    Its next word, by any way, gives its attempts whole leases again. A newer session means that it has moved.
    """

    async def step(tx: Tx) -> None:
        if await accounts.incarnation(tx, peer_id) > incarnation:
            return
        await execute(
            tx,
            "UPDATE attempt SET due_ms = $2 WHERE peer_id = $1 AND state = 'running' AND due_ms > $2",
            peer_id,
            desk.now_ms() + round(desk.settings.return_s * 1000),
        )

    await desk.db.run(step)
