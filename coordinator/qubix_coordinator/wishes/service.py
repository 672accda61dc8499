# SPDX-License-Identifier: Apache-2.0
"""Wishes are kept, told to nodes until they answer, and what they answer is kept beside."""

import logging
from typing import Final
from uuid import UUID

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.db.database import Database, Row, Tx, execute, one, rows, value
from qubix_coordinator.errors import Conflict, Forbidden, InvalidInput
from qubix_coordinator.jobs import flow
from qubix_coordinator.market import service as market
from qubix_coordinator.wishes import rules
from qubix_coordinator.wishes.rules import Wish
from qubix_protocol.wishes import DeviceWish, DeviceWishBody, DeviceWishTaken

log = logging.getLogger(__name__)
REMINDED_MAX: Final = 500


async def wish(db: Database, who: Principal, listing_id: UUID, body: DeviceWishBody, *, now_ms: int) -> None:
    """The node is told when this commits, and again until it answers. Asking for what is so already tells nobody.

    Raises NotFound, Forbidden (another account's device), InvalidInput (nothing is asked for), Conflict (a tab).
    """
    if body == DeviceWishBody():
        raise InvalidInput("body", "nothing is asked for", "Give rate_qu_per_h, paused or free_in_s")
    peer_id, device_id = await market.device_of(db, listing_id)

    async def step(tx: Tx) -> None:
        await _check_owner(tx, who, peer_id)
        if await value(tx, "SELECT browser FROM listing WHERE id = $1", listing_id):
            raise Conflict(
                "this device is shared by a browser's tab, which takes no word from afar",
                field="listing_id",
                remedy="Set its price, or hold it, on the page that shares it",
            )
        await accounts.lock_account(tx, who.account_id)
        row = await one(tx, "SELECT * FROM device_wish WHERE peer_id = $1 AND device_id = $2", peer_id, device_id)
        before = Wish() if row is None else _wish(row)
        after = rules.changed(before, body, now_ms)
        if row is not None and after == before:
            return
        revision = 1 if row is None else row["revision"] + 1
        await execute(
            tx,
            "INSERT INTO device_wish (peer_id, device_id, revision, rate_qu_per_h, paused, free_ms, why, wished_by,"
            " wished_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (peer_id, device_id) DO UPDATE SET"
            " revision = $3, rate_qu_per_h = $4, paused = $5, free_ms = $6, why = $7, wished_by = $8, wished_ms = $9,"
            " problem = '', refusals = 0, again_ms = NULL",
            peer_id,
            device_id,
            revision,
            after.rate_qu_per_h,
            after.paused,
            after.free_ms,
            after.why,
            who.account_id,
            now_ms,
        )
        await _tell(tx, peer_id, device_id, revision, after)

    await db.run(step)


async def _check_owner(tx: Tx, who: Principal, peer_id: str) -> None:
    if await accounts.account_of_node(tx, peer_id) != who.account_id:
        raise Forbidden(
            "this device is another account's",
            field="listing_id",
            remedy="Sign in to the account of its node: on its machine, `qubix provider login`",
        )


async def _tell(tx: Tx, peer_id: str, device_id: str, revision: int, wish: Wish) -> None:
    message = DeviceWish(
        device_id=device_id,
        revision=revision,
        rate_qu_per_h=wish.rate_qu_per_h,
        paused=wish.paused,
        free_ms=wish.free_ms,
        why=wish.why,
    )
    await flow.tell(tx, peer_id, message)


async def on_taken(db: Database, peer_id: str, message: DeviceWishTaken, *, now_ms: int) -> None:
    """What a node says of the newest wish; of an older one it says nothing that counts."""

    async def step(tx: Tx) -> None:
        row = await one(
            tx,
            "SELECT * FROM device_wish WHERE peer_id = $1 AND device_id = $2 AND revision = $3 FOR UPDATE",
            peer_id,
            message.device_id,
            message.revision,
        )
        if row is None or (row["taken_revision"] == message.revision and not row["problem"] and not message.problem):
            return
        refusals = row["refusals"] + 1 if message.problem else 0
        await execute(
            tx,
            "UPDATE device_wish SET taken_revision = $3, taken_ms = $4, problem = $5, refusals = $6, again_ms = $7"
            " WHERE peer_id = $1 AND device_id = $2",
            peer_id,
            message.device_id,
            message.revision,
            now_ms,
            message.problem,
            refusals,
            rules.again_ms(refusals, now_ms) if refusals else None,
        )

    await db.run(step)
    log.info("wish.answered", extra={"peer": peer_id, "device": message.device_id, "problem": message.problem})


async def on_hello(db: Database, peer_id: str) -> None:
    """All of them, also those that were answered: the node may have lost its folder since."""

    async def step(tx: Tx) -> None:
        for row in await rows(tx, "SELECT * FROM device_wish WHERE peer_id = $1 ORDER BY device_id", peer_id):
            await _tell(tx, peer_id, row["device_id"], row["revision"], _wish(row))

    await db.run(step)


async def remind(tx: Tx, *, now_ms: int) -> None:
    """Those that nobody has answered are told again, where the node can be reached; those that were refused, after a
    while that grows with each refusal. One that is being changed just now is left to whoever changes it."""
    found = await rows(
        tx,
        "SELECT w.* FROM device_wish w WHERE (w.taken_revision IS DISTINCT FROM w.revision OR w.again_ms <= $2)"
        " AND EXISTS (SELECT FROM listing l WHERE l.peer_id = w.peer_id AND l.online) ORDER BY w.wished_ms LIMIT $1"
        " FOR UPDATE OF w SKIP LOCKED",
        REMINDED_MAX,
        now_ms,
    )
    for row in found:
        if row["again_ms"] is not None:
            await execute(
                tx,
                "UPDATE device_wish SET again_ms = $3 WHERE peer_id = $1 AND device_id = $2",
                row["peer_id"],
                row["device_id"],
                rules.again_ms(row["refusals"], now_ms),
            )
        await _tell(tx, row["peer_id"], row["device_id"], row["revision"], _wish(row))


def _wish(row: Row) -> Wish:
    return Wish(row["rate_qu_per_h"], row["paused"], row["free_ms"], row["why"])
