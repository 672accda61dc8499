# SPDX-License-Identifier: Apache-2.0
"""Format and lint are clean, and a spoiled file would be noticed."""

import subprocess
import sys
from pathlib import Path

from tests.architecture.tree import ROOT

CONFIG = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]


def _ruff(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ruff", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_the_tree_is_in_the_house_format(tmp_path: Path) -> None:
    done = _ruff("format", "--check", *CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr
    spoiled = tmp_path / "spoiled.py"
    spoiled.write_text("x=[1 ,2]\n")
    assert _ruff("format", "--check", *CONFIG, str(spoiled)).returncode == 1


def test_the_linter_has_nothing_to_say(tmp_path: Path) -> None:
    done = _ruff("check", *CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr
    spoiled = tmp_path / "spoiled.py"
    spoiled.write_text("from .sibling import thing\n\n\ndef f(x=[]):\n    return thing(x)\n")
    said = _ruff("check", *CONFIG, str(spoiled)).stdout
    assert "TID252" in said
    assert "B006" in said
