# SPDX-License-Identifier: Apache-2.0
"""Pages that are generated, or that promise something about the tree, are true."""

import os
import re
import subprocess
import sys

from tests.architecture.tree import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()


def _generated_settings() -> str:
    """In a process of its own, without settings of this shell, so that a default is a default."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QUBIX_")}
    code = "import sys; sys.path.insert(0, 'scripts'); import docs_settings; sys.stdout.write(docs_settings.page())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_the_settings_page_is_fresh() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == _generated_settings(), "run: make docs"


def test_every_setting_is_documented_and_says_nothing_of_one_machine() -> None:
    rows = [line.split(" | ") for line in _generated_settings().splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    assert [row for row in rows if len(row[3].strip(" |")) < 10] == []
    assert [row for row in rows if str(ROOT) in row[2]] == []


def test_every_make_command_in_the_pages_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    named = {word for page in pages for word in re.findall(r"`make ([a-z-]+)", page.read_text())}
    assert {"demo", "test"} <= named
    assert named <= targets


def test_the_check_of_a_clean_clone_is_the_readme_command() -> None:
    script = ROOT / ".ci" / "run"
    assert script.read_text().rstrip().endswith("exec make test")
    assert os.access(script, os.X_OK)


def test_every_supported_python_is_declared_once() -> None:
    """pyproject.toml, set-up, and the lock script agree on the versions there are locks for."""
    locked = sorted(path.stem.removeprefix("py") for path in (ROOT / "requirements").glob("py3.*[0-9].txt"))
    pythons = re.search(r"pythons=\(([^)]*)\)", (ROOT / "scripts" / "lock.sh").read_text())
    assert pythons is not None
    assert pythons[1].split() == locked == ["3.11", "3.12", "3.13"]
    assert 'requires-python = ">=3.11,<3.14"' in (ROOT / "pyproject.toml").read_text()
