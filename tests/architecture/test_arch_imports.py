# SPDX-License-Identifier: Apache-2.0
"""The import contracts of .importlinter hold, and each of them catches a violation planted in a copy of the tree."""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, copy_packages, plant

COMMAND = [
    sys.executable,
    "-c",
    "from importlinter.cli import lint_imports_command; lint_imports_command()",
    "--no-logo",
]

# contract → (module to spoil, the line it gets, what the report must name)
VIOLATIONS = {
    "parts": ("qubix_protocol.units", "import qubix_kernels.base", "qubix_protocol.units -> qubix_kernels.base"),
    "coordinator": (
        "qubix_coordinator.market.rules",
        "import qubix_coordinator.jobs.planted",
        "qubix_coordinator.market.rules -> qubix_coordinator.jobs.planted",
    ),
    "libp2p": ("qubix_node.planted_libp2p", "import libp2p", "qubix_node.planted_libp2p -> libp2p"),
    "quart": ("qubix_coordinator.jobs.planted_web", "import quart", "qubix_coordinator.jobs.planted_web -> quart"),
    "trio": ("qubix_coordinator.jobs.planted_trio", "import trio", "qubix_coordinator.jobs.planted_trio -> trio"),
    "asyncio": (
        "qubix_mesh.planted_asyncio",
        "def late() -> None:\n    import asyncio",
        "qubix_mesh.planted_asyncio -> asyncio",
    ),
    "numba": ("qubix_kernels.planted.cuda", "import numba", "qubix_kernels.planted.cuda -> numba"),
    "cuda": ("qubix_kernels.tasks", "import qubix_kernels.cuda", "qubix_kernels.tasks -> qubix_kernels.cuda"),
    "wgpu": ("qubix_kernels.planted.webgpu", "import wgpu", "qubix_kernels.planted.webgpu -> wgpu"),
    "webgpu": ("qubix_kernels.zygote", "import qubix_kernels.webgpu", "qubix_kernels.zygote -> qubix_kernels.webgpu"),
    "money": (
        "qubix_coordinator.market.planted_money",
        "from qubix_coordinator.ledger.post import post",
        "qubix_coordinator.market.planted_money",
    ),
    "sdk": ("qubix.planted_sdk", "import qubix_node", "qubix.planted_sdk -> qubix_node"),
    "tui": ("qubix_tui.planted_tui", "import trio", "qubix_tui.planted_tui -> trio"),
}
# Further modules that spoil a contract, beside the one above.
MORE_VIOLATIONS = {
    "qubix_tui.planted_parts": ("parts", "import qubix_node", "qubix_tui.planted_parts -> qubix_node"),
    "qubix_chain.rpc.planted_web": ("quart", "import quart", "qubix_chain.rpc.planted_web -> quart"),
    "qubix_chain.devnet.planted_engine": ("quart", "import quart", "qubix_chain.devnet.planted_engine -> quart"),
}
ALLOWED = {
    "qubix_kernels.cuda": "import numba",
    "qubix_kernels.planted.cuda": "import qubix_kernels.cuda",
    "qubix_kernels.webgpu": "import wgpu",
    "qubix_kernels.planted.webgpu": "import qubix_kernels.webgpu",
    "qubix_mesh.planted_allowed": "import libp2p",
    "qubix_tui.mesh.thread": "import trio, qubix_mesh",
    "qubix_coordinator.http.planted_allowed": "import quart",
    "qubix_chain.devnet.http.planted_allowed": "import quart",
    "qubix_coordinator.jobs.planted_allowed": "import qubix_coordinator.ledger.post",
    "qubix_coordinator.jobs.planted": "",
    "qubix_coordinator.ledger.post": "",
    "qubix_kernels.base": "",
}


def _lint(root: Path, folders: list[Path]) -> subprocess.CompletedProcess[str]:
    """Runs on the packages in `folders`, which come before the installed ones."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "COLUMNS": "300"}
    command = [*COMMAND, "--no-cache", "--config", str(ROOT / ".importlinter")]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=300)


def _contract_names() -> dict[str, str]:
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    prefix = "importlinter:contract:"
    return {name.removeprefix(prefix): config[name]["name"] for name in config.sections() if name.startswith(prefix)}


def _verdicts(report: str) -> dict[str, str]:
    flat = " ".join(report.split())
    names = _contract_names()
    found = {key: re.search(rf"{re.escape(name)} (KEPT|BROKEN)", flat) for key, name in names.items()}
    return {key: match[1] if match else "NOT CHECKED" for key, match in found.items()}


def test_every_contract_has_a_planted_violation() -> None:
    assert set(VIOLATIONS) == set(_contract_names())


def test_the_tree_keeps_every_contract() -> None:
    done = _lint(ROOT, [])
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(_verdicts(done.stdout).values()) == {"KEPT"}


def test_what_the_rules_allow_is_not_flagged(tmp_path: Path) -> None:
    folders = copy_packages(tmp_path)
    for module, line in ALLOWED.items():
        plant(tmp_path, module, line)
    done = _lint(tmp_path, folders)
    assert set(_verdicts(done.stdout).values()) == {"KEPT"}, done.stdout + done.stderr


@pytest.fixture(scope="module")
def spoiled_report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One copy with every violation in it: each contract has to find its own."""
    root = tmp_path_factory.mktemp("spoiled")
    folders = copy_packages(root)
    for module in ("qubix_coordinator.jobs.planted", "qubix_coordinator.ledger.post", "qubix_kernels.base"):
        plant(root, module, "")
    for module, line, _ in VIOLATIONS.values():
        plant(root, module, line)
    for module, (_, line, _) in MORE_VIOLATIONS.items():
        plant(root, module, line)
    return _lint(root, folders).stdout


@pytest.mark.parametrize("contract", sorted(VIOLATIONS))
def test_a_planted_violation_is_caught(contract: str, spoiled_report: str) -> None:
    assert _verdicts(spoiled_report)[contract] == "BROKEN"
    assert VIOLATIONS[contract][2] in re.sub(r"\s+", " ", spoiled_report)


@pytest.mark.parametrize("module", sorted(MORE_VIOLATIONS))
def test_a_further_violation_is_caught(module: str, spoiled_report: str) -> None:
    contract, _, told = MORE_VIOLATIONS[module]
    assert _verdicts(spoiled_report)[contract] == "BROKEN"
    assert told in re.sub(r"\s+", " ", spoiled_report)


def test_a_capability_without_a_layer_is_caught(tmp_path: Path) -> None:
    """The layers are exhaustive: a new folder in the coordinator cannot escape the rules by not being named."""
    folders = copy_packages(tmp_path)
    for module in ("qubix_coordinator.planted_capability", "qubix_coordinator.ledger.post"):
        plant(tmp_path, module, "")
    report = _lint(tmp_path, folders).stdout
    assert _verdicts(report)["coordinator"] == "BROKEN"
    assert "planted_capability" in report
