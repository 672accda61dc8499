# SPDX-License-Identifier: Apache-2.0
"""`qubix audit`: exit status 0 when the ledger is clean, 1 when it is not or cannot be read, 2 for a bad argument."""

import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Sequence

from qubix_coordinator import logs
from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import QubixError
from qubix_coordinator.ledger.audit import AuditReport, audit_now
from qubix_coordinator.settings import Settings, from_environment_or_exit
from qubix_protocol import usage

# It reads every entry; the settings' limit is for serving.
LONG_S = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = usage.parser("qubix audit", "Check the ledger against its own entries.", Settings)
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
        return await audit_now(db)
    finally:
        await db.close()


def as_json(report: AuditReport) -> str:
    violations = [{"check": found.check, "what": found.what} for found in report.violations]
    return json.dumps({"clean": report.clean, "checked": report.checked, "violations": violations})


def as_text(report: AuditReport) -> str:
    lines = []
    for check in report.checks:
        bad = [found.what for found in report.violations if found.check == check.id]
        lines.append(f"{'ok ' if not bad else 'BAD'}  {check.id:<8} {check.claim}")
        lines += [f"       {what}" for what in bad]
    counted = ", ".join(f"{count} {table}" for table, count in report.checked.items())
    verdict = "clean" if report.clean else f"{len(report.violations)} violations"
    return "\n".join([*lines, f"ledger {verdict} ({counted} rows)"])


if __name__ == "__main__":
    raise SystemExit(main())
