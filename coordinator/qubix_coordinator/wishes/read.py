# SPDX-License-Identifier: Apache-2.0
"""The devices of an account's nodes, as their owner needs to see them."""

import json
from collections.abc import Iterable
from typing import Final
from uuid import UUID

import msgspec

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.db.database import Database, Row, Tx, rows
from qubix_coordinator.errors import NotFound
from qubix_coordinator.wishes import rules
from qubix_protocol.selftest import Check, CheckStatus
from qubix_protocol.states import Availability, DeviceKind
from qubix_protocol.wishes import DeviceWishView, ProviderDevicesView, ProviderDeviceView, RunningView

DEVICES_MAX: Final = 500
_DEVICES: Final = """
    SELECT l.*, w.revision, w.rate_qu_per_h AS wished_rate, w.paused, w.free_ms, w.why, w.wished_ms, w.taken_revision,
           w.taken_ms, w.problem, t.heard_ms, t.checks
      FROM node n JOIN listing l ON l.peer_id = n.peer_id
      LEFT JOIN device_wish w ON w.peer_id = l.peer_id AND w.device_id = l.device_id
      LEFT JOIN LATERAL (SELECT heard_ms, checks FROM self_test s WHERE s.peer_id = l.peer_id
           AND s.device_id = l.device_id ORDER BY heard_ms DESC, id LIMIT 1) t ON true
     WHERE n.account_id = $1 ORDER BY l.online DESC, l.model, l.id LIMIT $2
"""
_RUNNING: Final = """
    SELECT a.listing_id, a.job_id, NULL::uuid AS rental_id, j.kernel, a.fraction,
           coalesce(a.started_ms, a.created_ms) AS since_ms
      FROM attempt a JOIN job j ON j.id = a.job_id
     WHERE a.listing_id = ANY ($1::uuid[]) AND a.state IN ('offered', 'running')
    UNION ALL
    SELECT r.listing_id, NULL, r.id, '', 0, r.created_ms
      FROM rental r WHERE r.listing_id = ANY ($1::uuid[]) AND r.ended_ms IS NULL
     ORDER BY since_ms
"""


async def devices(db: Database, who: Principal, *, now_ms: int) -> ProviderDevicesView:
    async def step(tx: Tx) -> ProviderDevicesView:
        found = await rows(tx, _DEVICES, who.account_id, DEVICES_MAX)
        running = await rows(tx, _RUNNING, [row["id"] for row in found])
        return ProviderDevicesView(devices=tuple(_device(row, running, now_ms) for row in found))

    return await db.run(step)


async def device(db: Database, who: Principal, listing_id: UUID, *, now_ms: int) -> ProviderDeviceView:
    """Raises NotFound."""
    for one in (await devices(db, who, now_ms=now_ms)).devices:
        if one.listing_id == str(listing_id):
            return one
    raise NotFound("there is no such device of yours", field="listing_id", remedy="GET /provider/devices lists them")


def _device(row: Row, running: Iterable[Row], now_ms: int) -> ProviderDeviceView:
    return ProviderDeviceView(
        listing_id=str(row["id"]),
        provider=row["peer_id"],
        device_id=row["device_id"],
        kind=DeviceKind(row["kind"]),
        model=row["model"],
        memory_bytes=row["memory_bytes"],
        online=row["online"],
        availability=_availability(row),
        rate_qu_per_h=row["rate_qu_per_h"],
        verified=row["verified"],
        reliability=row["reliability"],
        score=row["score"],
        jobs_accepted=row["jobs_accepted"],
        jobs_rejected=row["jobs_rejected"],
        failures=row["failures"],
        backoff_ms=row["backoff_until_ms"] if row["backoff_until_ms"] > now_ms else None,
        notice_s=row["notice_s"],
        browser=row["browser"],
        wish=None if row["revision"] is None else _wish(row),
        running=tuple(_running(one) for one in running if one["listing_id"] == row["id"]),
        tested_ms=row["heard_ms"],
        mend=tuple(_mend(row["checks"])),
    )


def _availability(row: Row) -> Availability:
    if not row["online"]:
        return Availability.OFFLINE
    return Availability.RENTED if row["rental_id"] is not None else Availability(row["availability"])


def _wish(row: Row) -> DeviceWishView:
    return DeviceWishView(
        state=rules.state(row["revision"], row["taken_revision"], row["problem"], online=row["online"]),
        rate_qu_per_h=row["wished_rate"],
        paused=row["paused"],
        free_ms=row["free_ms"],
        why=row["why"],
        wished_ms=row["wished_ms"],
        answered_ms=row["taken_ms"] if row["taken_revision"] == row["revision"] else None,
        problem=row["problem"],
    )


def _running(row: Row) -> RunningView:
    return RunningView(
        job_id=None if row["job_id"] is None else str(row["job_id"]),
        rental_id=None if row["rental_id"] is None else str(row["rental_id"]),
        kernel=row["kernel"],
        fraction=row["fraction"],
        since_ms=row["since_ms"],
    )


def _mend(checks: str | list[object] | None) -> list[Check]:
    found = msgspec.convert(json.loads(checks) if isinstance(checks, str) else checks or (), tuple[Check, ...])
    return [one for one in found if one.status in (CheckStatus.FAIL, CheckStatus.WARN)]
