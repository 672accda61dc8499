# SPDX-License-Identifier: Apache-2.0
"""Rules about source text, each with a planted violation: purity, the environment, licence lines, addresses, links."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.architecture.source_rules import environment_reads, impurities
from tests.architecture.tree import PACKAGE_FOLDERS, ROOT, copy_packages, plant, repository_files

SPDX = "# SPDX-License-Identifier: Apache-2.0\n"
# Written so that they do not find themselves.
ADDRESSES = re.compile(
    r"py[p]i\.org|python[h]osted|npm[j]s\.(org|com)|npm[m]irror|deb\.debia[n]|crate[s]\.io/api|"
    r"(?<![\w.~-])/(?:wor[k]|far[m])/|/tm[p]/(?:w/|bash_jobs)|/roo[t]/\.|/hom[e]/\w+/"
)
UNFINISHED = re.compile(r"\b(?:TOD[O]|FIXM[E])\b|pytest\.ski[p]|mark\.(?:ski[p]|xfai[l])")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

IMPURE = {
    "qubix_coordinator.planted.rules": ("import time", "imports time"),
    "qubix_kernels.planted.spec": ("import random", "imports random"),
    "qubix_protocol.planted_os": ("from os import urandom", "imports os.urandom"),
    "qubix_mesh.planted.rules": ("from datetime import datetime\nNOW = datetime.now()", "calls datetime.now"),
    "qubix_node.planted.rules": ("TEXT = open('x').read()", "calls open"),
    "qubix_node.planted_log.rules": ("import logging", "imports logging"),
    "qubix_protocol.planted_path": ("def read(path):\n    return path.read_text()", "calls path.read_text"),
}


def test_rules_specs_and_protocol_are_pure() -> None:
    assert impurities(ROOT) == []


@pytest.mark.parametrize("module", sorted(IMPURE))
def test_an_impure_line_is_caught(module: str, tmp_path: Path) -> None:
    copy_packages(tmp_path)
    line, message = IMPURE[module]
    plant(tmp_path, module, line)
    planted = [found for found in impurities(tmp_path) if found.startswith(f"{module}:")]
    assert len(planted) == 1
    assert planted[0].endswith(message)


def test_only_settings_and_entry_points_read_the_environment() -> None:
    assert environment_reads(ROOT) == []


@pytest.mark.parametrize(
    "line", ["import os\nX = os.environ['A']", "import os\nX = os.getenv('A')", "from os import environ"]
)
def test_an_environment_read_elsewhere_is_caught(line: str, tmp_path: Path) -> None:
    copy_packages(tmp_path)
    plant(tmp_path, "qubix_node.planted_reader", line)
    plant(tmp_path, "qubix_node.planted.settings", line)
    found = [what for what in environment_reads(tmp_path) if "planted" in what]
    assert len(found) == 1
    assert found[0].startswith("qubix_node.planted_reader:")


def _without_licence(paths: Iterable[Path]) -> list[str]:
    return [str(path) for path in paths if not path.read_text().startswith(SPDX)]


def test_every_python_file_names_its_licence(tmp_path: Path) -> None:
    sources = repository_files("*.py")
    assert len(sources) > 50
    assert _without_licence(sources) == []
    planted = tmp_path / "planted.py"
    planted.write_text('"""Says what it is, but not under which terms."""\n')
    assert _without_licence([planted]) == [str(planted)]


def _lines_with(pattern: re.Pattern[str], paths: Iterable[Path]) -> list[str]:
    found = []
    for path in paths:
        text = path.read_text(errors="replace")
        found += [f"{path}:{n}: {line.strip()}" for n, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
    return found


@pytest.mark.parametrize(
    "planted",
    [
        "index-url = https://py" + "pi.org/simple",
        "data = '/wor" + "k/main'",
        "see /tm" + "p/w/brief",
        "/hom" + "e/ann/x",
    ],
)
def test_no_registry_host_and_no_machine_path(planted: str, tmp_path: Path) -> None:
    assert _lines_with(ADDRESSES, repository_files()) == []
    spoiled = tmp_path / "spoiled.toml"
    spoiled.write_text(f"fine = 1\n{planted}\n")
    assert len(_lines_with(ADDRESSES, [spoiled])) == 1


def test_nothing_is_left_for_later_and_no_test_is_left_out(tmp_path: Path) -> None:
    assert _lines_with(UNFINISHED, repository_files("*.py", "*.sql")) == []
    spoiled = tmp_path / "spoiled.py"
    spoiled.write_text("# TOD" + "O: later\n@pytest.mark.ski" + "p\n")
    assert len(_lines_with(UNFINISHED, [spoiled])) == 2


def test_every_part_has_a_readme() -> None:
    folders = [*PACKAGE_FOLDERS.values(), "bench"]
    assert [folder for folder in folders if not (ROOT / folder / "README.md").is_file()] == []


def _dead_links(page: Path) -> list[str]:
    targets = [target.partition("#")[0] for target in LINK.findall(page.read_text())]
    local = [target for target in targets if target and "://" not in target and not target.startswith("mailto:")]
    return [f"{page}: {target}" for target in local if not (page.parent / target).exists()]


def test_links_between_pages_lead_somewhere(tmp_path: Path) -> None:
    pages = repository_files("*.md")
    assert ROOT / "README.md" in pages
    assert [dead for page in pages for dead in _dead_links(page)] == []
    spoiled = tmp_path / "page.md"
    spoiled.write_text("[a page](nowhere.md) and [another](https://example.org/x)")
    assert _dead_links(spoiled) == [f"{spoiled}: nowhere.md"]
