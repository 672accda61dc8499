# SPDX-License-Identifier: Apache-2.0
"""The browser tab's own code: its vectors are what the Python code makes, and its tests pass."""

import subprocess
from pathlib import Path

from tests.support.scripts import script

ROOT = Path(__file__).resolve().parents[2]


def test_the_vectors_are_fresh() -> None:
    made = script("tab_vectors")
    assert made.FILE.read_text() == made.text(), "run scripts/tab_vectors.py"


def test_the_tests_of_the_web_pages_code_pass() -> None:
    npm, env = script("web_build").npm_command()
    done = subprocess.run(
        [*npm, "run", "test"], cwd=ROOT / "web", env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "fail 0" in done.stdout
