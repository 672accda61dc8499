# SPDX-License-Identifier: Apache-2.0
"""What was done on an account's nodes: attempts at jobs and rentals, newest first."""

import re
from typing import Final
from uuid import UUID

from qubix_coordinator.accounts.rules import Principal
from qubix_coordinator.db.database import Database, Row
from qubix_coordinator.errors import InvalidInput
from qubix_protocol.earnings import WorkKind, WorksView, WorkView
from qubix_protocol.states import REASON_TEXT, RENTAL_REASON_TEXT, Reason, RentalReason

PAGE_MAX: Final = 200
_AFTER: Final = re.compile(r"([0-9]{1,16})\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_NEWEST: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"
_PEERS: Final = "(SELECT peer_id FROM node WHERE account_id = $1)"
_BEFORE: Final = (
    "started_ms IS NOT NULL AND (created_ms, id) < ($2, $3::uuid) ORDER BY created_ms DESC, id DESC LIMIT $4"
)
_PAGE: Final = f"""
    SELECT * FROM (
        (SELECT 'job' AS kind, a.id, a.job_id, a.rental_id, a.listing_id, a.peer_id, a.model, j.kernel, a.state,
                a.reason, a.created_ms, a.started_ms, a.ended_ms, a.billed_ms, a.rate_qu_per_h, a.paid_qu, a.fee_qu,
                a.owed_qu,
                coalesce((SELECT sum(d.from_provider_qu) FROM dispute d WHERE d.attempt_id = a.id), 0)::bigint
                    AS taken_back_qu
           FROM (SELECT * FROM attempt WHERE peer_id IN {_PEERS} AND {_BEFORE}) a JOIN job j ON j.id = a.job_id)
        UNION ALL
        (SELECT 'rental', r.id, NULL, r.id, r.listing_id, r.peer_id, r.model, '', r.state, r.reason, r.created_ms,
                r.started_ms, r.ended_ms, r.billed_ms, r.rate_qu_per_h, r.paid_qu, r.fee_qu, 0, 0
           FROM rental r WHERE r.peer_id IN {_PEERS} AND r.{_BEFORE})
    ) AS work ORDER BY created_ms DESC, id DESC LIMIT $4
"""  # noqa: S608 - our own words from above alone


async def work(db: Database, who: Principal, *, after: str | None = None, limit: int = 50) -> WorksView:
    """Newest first; `after` is the `next` of the page before. Raises InvalidInput."""
    created_ms, key = _position(after)
    count = max(1, min(limit, PAGE_MAX))
    found = await db.fetch(_PAGE, who.account_id, created_ms, key, count + 1)
    shown = found[:count]
    following = f"{shown[-1]['created_ms']}.{shown[-1]['id']}" if len(found) > count else None
    return WorksView(work=tuple(_view(row) for row in shown), next=following)


def _position(after: str | None) -> tuple[int, UUID]:
    if not after:
        return 2**62, UUID(_NEWEST)
    found = _AFTER.fullmatch(after)
    if found is None:
        raise InvalidInput("after", "it is not a position in the list", "Use the `next` of the page before")
    return int(found[1]), UUID(found[2])


def _view(row: Row) -> WorkView:
    kind = WorkKind(row["kind"])
    text = (
        REASON_TEXT[Reason(row["reason"])] if kind is WorkKind.JOB else RENTAL_REASON_TEXT[RentalReason(row["reason"])]
    )
    return WorkView(
        kind=kind,
        work_id=str(row["id"]),
        job_id=_id(row["job_id"]),
        rental_id=_id(row["rental_id"]),
        listing_id=str(row["listing_id"]),
        provider=row["peer_id"],
        model=row["model"],
        kernel=row["kernel"],
        state=row["state"],
        reason=row["reason"],
        reason_text=text,
        created_ms=row["created_ms"],
        started_ms=row["started_ms"],
        ended_ms=row["ended_ms"],
        billed_ms=row["billed_ms"],
        rate_qu_per_h=row["rate_qu_per_h"],
        paid_qu=row["paid_qu"],
        fee_qu=row["fee_qu"],
        owed_qu=row["owed_qu"],
        taken_back_qu=row["taken_back_qu"],
    )


def _id(key: UUID | None) -> str | None:
    return None if key is None else str(key)
