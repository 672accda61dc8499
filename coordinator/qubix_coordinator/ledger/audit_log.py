# SPDX-License-Identifier: Apache-2.0
"""Audits that were made, and the one that is made every night."""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from qubix_coordinator.db.database import Database, Tx, execute, one, value
from qubix_coordinator.ledger.audit import CHECK_S, AuditReport, Check, Violation, audit_all

log = logging.getLogger(__name__)
NIGHT_MS = 23 * 3_600_000
_LOCK = 0x61756474


@dataclass(frozen=True, slots=True)
class Run:
    """Findings by the check's id."""

    at_ms: int
    took_ms: int
    violations: dict[str, int]
    unknown: dict[str, int]


async def audited(db: Database, now_ms: int, *, check_s: float = CHECK_S) -> AuditReport:
    """Audits everything and keeps what came of it."""
    report = await db.run(lambda tx: _audited(tx, now_ms, check_s), "repeatable_read")
    _tell(report)
    return report


async def nightly(db: Database, now_ms: int, *, check_s: float = CHECK_S) -> AuditReport | None:
    """Audits when nobody has for a day; one replica at a time, the others go on with something else. `check_s` must be
    less than the pool waits for a statement: else what is slow would look like a lost connection."""

    async def step(tx: Tx) -> AuditReport | None:
        if not await value(tx, "SELECT pg_try_advisory_xact_lock($1)", _LOCK):
            return None
        made = await last(tx)
        if made is not None and now_ms - made.at_ms < NIGHT_MS:
            return None
        return await _audited(tx, now_ms, check_s)

    report = await db.run(step, "repeatable_read")
    if report is not None:
        _tell(report)
    return report


async def _audited(tx: Tx, now_ms: int, check_s: float) -> AuditReport:
    began = time.monotonic()
    report = await audit_all(tx, now_ms, check_s=check_s)
    await _keep(tx, report, now_ms, round((time.monotonic() - began) * 1000))
    return report


def _tell(report: AuditReport) -> None:
    for kind, findings in (("violation", report.violations), ("unknown", report.unknown)):
        for found in findings[:20]:
            log.log(
                logging.ERROR if kind == "violation" else logging.WARNING,
                f"audit.{kind}",
                extra={"check": found.check, "what": found.what},
            )


async def last(tx: Tx) -> Run | None:
    row = await one(tx, "SELECT at_ms, took_ms, violations, unknown FROM audit_run ORDER BY id DESC LIMIT 1")
    if row is None:
        return None
    return Run(row["at_ms"], row["took_ms"], json.loads(row["violations"]), json.loads(row["unknown"]))


async def _keep(tx: Tx, report: AuditReport, now_ms: int, took_ms: int) -> None:
    await execute(
        tx,
        "INSERT INTO audit_run (at_ms, took_ms, violations, unknown) VALUES ($1, $2, $3::text::jsonb, $4::text::jsonb)",
        now_ms,
        took_ms,
        json.dumps(_counted(report.checks, report.violations)),
        json.dumps(_counted(report.checks, report.unknown)),
    )


def _counted(checks: Iterable[Check], found: Iterable[Violation]) -> dict[str, int]:
    counts = Counter(one.check for one in found)
    return {check.id: counts[check.id] for check in checks}
