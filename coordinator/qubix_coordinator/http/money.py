# SPDX-License-Identifier: Apache-2.0
"""The ledger's answers as the API shows them."""

from collections.abc import Sequence

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import InvalidInput
from qubix_coordinator.http.context import Context
from qubix_coordinator.ledger import read
from qubix_coordinator.ledger.audit import Violation
from qubix_coordinator.ledger.audit_log import audited
from qubix_coordinator.ledger.tell import account_view
from qubix_protocol.api import AccountView, AuditView, StatementLine, StatementView
from qubix_protocol.units import TEXT_MAX

_VIOLATIONS_MAX = 100
_CHECK_S = 10.0
"""Somebody waits for the answer; the command takes longer, and so tells more of a large ledger."""


async def account(db: Database, who: Principal) -> AccountView:
    return await db.run(lambda tx: account_view(tx, who.account_id, tuple(sorted(who.scopes))))


async def statement(db: Database, who: Principal, *, after: str | None, limit: int) -> StatementView:
    """`after` is the `next` of the page before."""
    if after is not None and not (after.isascii() and after.isdigit() and len(after) < 19):
        raise InvalidInput("after", "not the `next` of a statement", "Send the `next` of the page before, or nothing")
    before = None if after is None else int(after)
    found = await db.run(lambda tx: read.statement(tx, who.account_id, before=before, limit=limit))
    lines = tuple(
        StatementLine(
            id=line.id,
            at_ms=round(line.posted_at.timestamp() * 1000),
            kind=line.kind,
            cause=line.cause,
            amount_qu=line.amount_qu,
        )
        for line in found
    )
    return StatementView(lines=lines, next=str(lines[-1].id) if len(lines) == limit else None)


async def audit(context: Context) -> AuditView:
    found = await audited(context.db, context.now_ms(), check_s=_CHECK_S)
    return AuditView(
        clean=found.clean,
        checked=dict(found.checked),
        violations=_said(found.violations),
        unknown=_said(found.unknown),
    )


def _said(found: Sequence[Violation]) -> tuple[str, ...]:
    return tuple(f"{one.check}: {one.what}"[:TEXT_MAX] for one in found[:_VIOLATIONS_MAX])
