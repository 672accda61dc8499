# SPDX-License-Identifier: Apache-2.0
"""`mypy --strict` accepts every package; a package with one untyped function is refused under the same settings."""

import subprocess
import sys
from pathlib import Path

from tests.architecture.tree import ROOT


def _mypy(*words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--no-error-summary",
        *words,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)


def test_types_are_strict_and_sound() -> None:
    for words in ([], ["bench", "scripts", "tests/architecture"]):
        done = _mypy("--sqlite-cache", "--cache-dir", str(ROOT / ".mypy_cache" / "tests"), *words)
        assert done.returncode == 0, done.stdout + done.stderr


def test_an_untyped_function_is_refused(tmp_path: Path) -> None:
    spoiled = tmp_path / "spoiled.py"
    spoiled.write_text("def f(x):\n    return x\n")
    done = _mypy("--cache-dir", str(tmp_path / "cache"), str(spoiled))
    assert done.returncode == 1
    assert "no-untyped-def" in done.stdout
