# SPDX-License-Identifier: Apache-2.0
"""The audit of a market of real processes, as a test judges it."""

import json
import subprocess
import sys
from collections.abc import Mapping


def audit(env: Mapping[str, str]) -> None:
    """Nothing is wrong. Whether the chain holds what is owed nobody can tell in a market without one."""
    done = subprocess.run(
        [sys.executable, "-m", "qubix_coordinator.ledger.audit_command", "--json"],
        env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    found: dict[str, list[dict[str, str]]] = json.loads(done.stdout)
    assert found["violations"] == [], done.stdout
    assert {one["check"] for one in found["unknown"]} <= {"I8-read"}, done.stdout
