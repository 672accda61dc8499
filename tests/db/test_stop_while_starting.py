# SPDX-License-Identifier: Apache-2.0
"""A process that waits for its database is stopped as promptly as one that serves."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support_pg import clean_environment

NOBODY_THERE = "postgresql://postgres@/qubix?host="
DEADLINE_S = 20


@pytest.mark.parametrize("module", ["qubix_coordinator", "qubix_coordinator.jobs.verify_process"])
def test_sigterm_ends_the_wait_for_a_database(tmp_path: Path, module: str) -> None:
    env = clean_environment(
        DATABASE_URL=f"{NOBODY_THERE}{tmp_path}",
        QUBIX_DATA_DIR=str(tmp_path),
        QUBIX_HTTP_PORT="0",
        QUBIX_DATABASE_WAIT_S="300",
    )
    process = subprocess.Popen([sys.executable, "-m", module], env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        waiting = next(line for line in process.stderr if "db.waiting" in line)
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.wait(DEADLINE_S) == 0, waiting + rest
    assert "Traceback" not in rest
