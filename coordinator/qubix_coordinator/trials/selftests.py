# SPDX-License-Identifier: Apache-2.0
"""Self-tests: heard from nodes, asked for by owners, read by everybody with the time at which they were heard."""

import json
import logging
from typing import Final
from uuid import UUID

import msgspec

from qubix_coordinator.accounts import pairings
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.db.database import Database, Row, Tx, execute, one, value
from qubix_coordinator.errors import Conflict, Forbidden, LimitExceeded
from qubix_coordinator.jobs import flow
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.market import service as market
from qubix_coordinator.market.tables import Listing
from qubix_coordinator.trials import engine, standing
from qubix_protocol.selftest import Check, SelfTest, SelfTestAsk, SelfTestView, summary
from qubix_protocol.units import DEVICES_MAX

log = logging.getLogger(__name__)
KEPT: Final = 20
"""Of one device; the newest."""
ASK_MS: Final = 30_000
"""Between two questions about one device."""


async def on_selftest(desk: Desk, peer_id: str, message: SelfTest) -> None:
    """The same test once more changes nothing. Raises LimitExceeded for a node that makes up devices."""

    now_ms = desk.now_ms()

    async def step(tx: Tx) -> None:
        await _check_room(tx, peer_id, message.device_id)
        await execute(
            tx,
            "INSERT INTO self_test (id, peer_id, device_id, at_ms, heard_ms, took_ms, quick, whole, passed, checks)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb) ON CONFLICT (id) DO NOTHING",
            UUID(message.test_id),
            peer_id,
            message.device_id,
            message.at_ms,
            now_ms,
            message.took_ms,
            message.quick,
            message.full and not message.quick,
            message.passed,
            msgspec.json.encode(message.checks).decode(),
        )
        await execute(
            tx,
            "DELETE FROM self_test WHERE id IN (SELECT id FROM self_test WHERE peer_id = $1 AND device_id = $2"
            " ORDER BY heard_ms DESC, id OFFSET $3)",
            peer_id,
            message.device_id,
            KEPT,
        )
        await standing.refresh(desk, tx, peer_id)
        await pairings.tell(tx, peer_id, now_ms=now_ms)
        if message.passed and message.full:
            await engine.plan_first(desk, tx, peer_id)

    await desk.db.run(step)
    log.info(
        "selftest.heard",
        extra={"peer": peer_id, "device": message.device_id, "passed": message.passed, "said": summary(message.checks)},
    )


async def _check_room(tx: Tx, peer_id: str, device_id: str) -> None:
    others = await value(
        tx,
        "SELECT count(DISTINCT device_id) FROM self_test WHERE peer_id = $1 AND device_id <> $2",
        peer_id,
        device_id,
    )
    if others >= DEVICES_MAX:
        raise LimitExceeded(
            f"this node has tested {DEVICES_MAX} devices already",
            field="device_id",
            remedy="Test the devices that are there, each under the id it had before",
        )


async def ask(db: Database, who: Principal, listing_id: UUID, *, quick: bool, now_ms: int) -> SelfTestView:
    """The node is asked when this commits. Raises NotFound, Forbidden, Conflict."""
    peer_id, device_id = await market.device_of(db, listing_id)

    async def step(tx: Tx) -> None:
        await _check_owner(tx, who, peer_id)
        await _check_reachable(tx, listing_id)
        asked_ms = await value(
            tx,
            "SELECT asked_ms FROM self_test_ask WHERE peer_id = $1 AND device_id = $2 FOR UPDATE",
            peer_id,
            device_id,
        )
        if asked_ms is not None and now_ms < asked_ms + ASK_MS:
            raise Conflict(
                "a self-test of this device was asked for a moment ago",
                field="listing_id",
                remedy=f"Read its outcome with GET; ask again after {ASK_MS // 1000} s",
            )
        await execute(
            tx,
            "INSERT INTO self_test_ask (peer_id, device_id, asked_ms) VALUES ($1, $2, $3)"
            " ON CONFLICT (peer_id, device_id) DO UPDATE SET asked_ms = excluded.asked_ms",
            peer_id,
            device_id,
            now_ms,
        )
        await flow.tell(tx, peer_id, SelfTestAsk(device_id=device_id, quick=quick))

    await db.run(step)
    return await view(db, listing_id, now_ms=now_ms)


async def _check_owner(tx: Tx, who: Principal, peer_id: str) -> None:
    if who.may(Scope.OPERATOR) or await accounts.account_of_node(tx, peer_id) == who.account_id:
        return
    raise Forbidden(
        "this device is another account's",
        field="listing_id",
        remedy="On its machine: `qubix selftest`. Anybody may read the last one with GET",
    )


async def _check_reachable(tx: Tx, listing_id: UUID) -> None:
    if not await Listing.filter(id=listing_id, online=True).using_db(tx).exists():
        raise Conflict(
            "the node of this device cannot be reached now",
            field="listing_id",
            remedy="Start it with `qubix node`, or test it on its machine with `qubix selftest`",
        )


async def view(db: Database, listing_id: UUID, *, now_ms: int) -> SelfTestView:
    """Raises NotFound for a listing that there is not; one that was never tested says so."""
    peer_id, device_id = await market.device_of(db, listing_id)

    async def step(tx: Tx) -> tuple[Row | None, int | None, Listing]:
        newest = await one(
            tx,
            "SELECT heard_ms, took_ms, quick, whole, passed, checks FROM self_test"
            " WHERE peer_id = $1 AND device_id = $2 ORDER BY heard_ms DESC, id LIMIT 1",
            peer_id,
            device_id,
        )
        asked_ms = await value(
            tx, "SELECT asked_ms FROM self_test_ask WHERE peer_id = $1 AND device_id = $2", peer_id, device_id
        )
        return newest, asked_ms, await Listing.filter(id=listing_id).using_db(tx).get()

    newest, asked_ms, listing = await db.run(step)
    found = SelfTestView(listing_id=str(listing_id), verified=listing.verified, score=listing.score, asked_ms=asked_ms)
    return found if newest is None else _tested(found, newest, now_ms)


def _tested(found: SelfTestView, row: Row, now_ms: int) -> SelfTestView:
    checks = row["checks"]
    return msgspec.structs.replace(
        found,
        at_ms=row["heard_ms"],
        age_ms=max(0, now_ms - row["heard_ms"]),
        took_ms=row["took_ms"],
        quick=row["quick"],
        full=row["whole"],
        passed=row["passed"],
        checks=msgspec.convert(json.loads(checks) if isinstance(checks, str) else checks, tuple[Check, ...]),
    )
