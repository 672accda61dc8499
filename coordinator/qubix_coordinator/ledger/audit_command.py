# SPDX-License-Identifier: Apache-2.0
"""`qubix audit`: exit status 0 when all is clean, 1 when something is wrong, cannot be told or cannot be read, 2 for a
bad argument. What is wrong and what is unknown stand apart in the report."""

import asyncio
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence

from qubix_coordinator import logs
from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import QubixError
from qubix_coordinator.ledger.audit import AuditReport
from qubix_coordinator.ledger.audit_log import audited
from qubix_coordinator.settings import Settings, from_environment_or_exit
from qubix_protocol import usage

# It reads every entry; the settings' limit is for serving.
LONG_S = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = usage.parser(
        "qubix audit",
        "Check the ledger, and everything that hangs on it, against its invariants (I1 to I11).",
        Settings,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args(arguments)
    settings = from_environment_or_exit()
    logs.configure(settings.log_level, as_json=settings.log_json)
    try:
        report = asyncio.run(_audit(settings))
    except QubixError as problem:
        print(f"qubix audit: {problem}. {problem.remedy}", file=sys.stderr)
        return 1
    try:
        print(as_json(report) if chosen.json else as_text(report), flush=True)
    except BrokenPipeError:
        # Whoever reads has left with what they wanted; Python would complain again while closing it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if report.clean else 1


async def _audit(settings: Settings) -> AuditReport:
    db = await Database.connect(dataclasses.replace(settings, statement_timeout_s=LONG_S))
    try:
        return await audited(db, round(time.time() * 1000))
    finally:
        await db.close()


def as_json(report: AuditReport) -> str:
    violations = [{"check": found.check, "what": found.what} for found in report.violations]
    unknown = [{"check": found.check, "what": found.what} for found in report.unknown]
    return json.dumps({"clean": report.clean, "checked": report.checked, "violations": violations, "unknown": unknown})


def as_text(report: AuditReport) -> str:
    lines, width = [], max(len(check.id) for check in report.checks)
    for check in report.checks:
        bad = [found.what for found in report.violations if found.check == check.id]
        unknown = [found.what for found in report.unknown if found.check == check.id]
        word = "BAD" if bad else "???" if unknown else "ok "
        lines.append(f"{word}  {check.id:<{width}} {check.claim}")
        lines += [f"       {what}" for what in (*bad, *unknown)]
    counted = ", ".join(f"{count} {table}" for table, count in report.checked.items())
    verdict = "clean" if report.clean else f"{len(report.violations)} violations, {len(report.unknown)} unknown"
    return "\n".join([*lines, f"ledger {verdict} ({counted} rows)"])


if __name__ == "__main__":
    raise SystemExit(main())
