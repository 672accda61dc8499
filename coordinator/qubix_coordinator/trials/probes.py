# SPDX-License-Identifier: Apache-2.0
"""Test artifacts by which a node measures its way to the store.

A node may send a few small ones in its own name and read back what it sent, all of it (trust D1: signed for one method,
digest and size, and a digest alone opens nothing); they are no input and no result of anything, and are removed after
minutes.
"""

from typing import Final
from uuid import UUID

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.artifacts import service as artifacts
from qubix_coordinator.artifacts.uploads import Uploads
from qubix_coordinator.db.database import Database, Tx, execute, one, value
from qubix_coordinator.errors import Forbidden, LimitExceeded
from qubix_protocol.selftest import ProbeRequest

LIFE_MS: Final = 10 * 60_000
LIVE_MAX: Final = 4
"""Of one node within that time: bounds what it can have stored, and how often."""
SWEPT_MAX: Final = 1_000


def writer(peer_id: str) -> str:
    """In whose name it is uploaded."""
    return f"probe:{peer_id}"


async def may_access(tx: Tx, peer_id: str, request: ProbeRequest, *, now_ms: int) -> UUID:
    """The account whose artifact it is. Raises Forbidden or LimitExceeded."""
    known = await one(
        tx,
        "SELECT account_id, size_bytes FROM probe WHERE peer_id = $1 AND digest = $2 AND began_ms > $3",
        peer_id,
        request.digest,
        now_ms - LIFE_MS,
    )
    if known is not None:
        if known["size_bytes"] != request.size_bytes:
            raise Forbidden("the test artifact has another size", field="size_bytes", remedy="Sign the size it has")
        account_id: UUID = known["account_id"]
        if request.method == "GET" and await artifacts.sent_by(tx, account_id, request.digest, writer(peer_id)) is None:
            # The account may keep the very same content for other reasons, or have it and not have paid for it.
            raise _not_sent()
        return account_id
    if request.method != "PUT":
        raise _not_sent()
    return await _begin(tx, peer_id, request, now_ms)


def _not_sent() -> Forbidden:
    return Forbidden("this is no test artifact of yours", field="digest", remedy="Send all of it first")


async def _begin(tx: Tx, peer_id: str, request: ProbeRequest, now_ms: int) -> UUID:
    account_id = await accounts.account_of_node(tx, peer_id)
    await accounts.lock_account(tx, account_id)
    if await value(tx, "SELECT count(*) FROM probe WHERE peer_id = $1", peer_id) >= LIVE_MAX:
        raise LimitExceeded(
            f"this node has {LIVE_MAX} test artifacts already", field="digest", remedy="Test again in some minutes"
        )
    await execute(
        tx,
        "INSERT INTO probe (peer_id, digest, account_id, size_bytes, began_ms) VALUES ($1, $2, $3, $4, $5)",
        peer_id,
        request.digest,
        account_id,
        request.size_bytes,
        now_ms,
    )
    return account_id


async def sweep(db: Database, uploads: Uploads, *, now_ms: int) -> int:
    """Removes what has had its time; gives how many. An artifact that is anything else as well stays."""

    async def step(tx: Tx) -> bool:
        old = await one(
            tx,
            "SELECT peer_id, digest, account_id FROM probe WHERE began_ms <= $1 ORDER BY began_ms LIMIT 1"
            " FOR UPDATE SKIP LOCKED",
            now_ms - LIFE_MS,
        )
        if old is None:
            return False
        peer_id, digest, account_id = old["peer_id"], bytes(old["digest"]), old["account_id"]
        if await artifacts.only_sent_by(tx, account_id, digest, writer(peer_id)):
            await uploads.store.delete(account_id, digest)
            await artifacts.forget(tx, account_id, digest)
        else:
            await artifacts.forget_writer(tx, account_id, digest, writer(peer_id))
        await execute(tx, "DELETE FROM probe WHERE peer_id = $1 AND digest = $2", peer_id, digest)
        return True

    removed = 0
    while removed < SWEPT_MAX and await db.run(step):
        removed += 1
    return removed
