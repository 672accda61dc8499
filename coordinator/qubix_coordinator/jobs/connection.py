# SPDX-License-Identifier: Apache-2.0
"""What a goodbye or a broken connection means for attempts: the node is given less time to come back than silence alone
gets. Its next word, by any way, gives its attempts whole leases again."""

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Tx, execute
from qubix_coordinator.jobs.desk import Desk


async def on_gone(desk: Desk, peer_id: str, incarnation: int) -> None:
    """A live gateway says that the node's connection broke: whoever was killed is noticed before its lease ends. After
    a newer session began, it has moved."""

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


async def on_leaving(desk: Desk, peer_id: str, incarnation: int) -> None:
    """The node's own last word in a session: what it had goes on elsewhere, unless it is back within `leave_s` as a
    page is that was reloaded. After a newer session began, the word is of the past."""

    async def step(tx: Tx) -> None:
        if await accounts.incarnation(tx, peer_id) > incarnation:
            return
        await execute(
            tx,
            "UPDATE attempt SET leaving = true, due_ms = least(due_ms, $2)"
            " WHERE peer_id = $1 AND state IN ('offered', 'running')",
            peer_id,
            desk.now_ms() + round(desk.settings.leave_s * 1000),
        )

    await desk.db.run(step)
