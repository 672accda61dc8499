# SPDX-License-Identifier: Apache-2.0
"""The checked-out tree, and copies of it that a test may spoil."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE_FOLDERS = {
    "qubix_protocol": "protocol",
    "qubix_kernels": "kernels",
    "qubix_chain": "chain",
    "qubix_mesh": "mesh",
    "qubix_node": "node",
    "qubix_coordinator": "coordinator",
    "qubix": "sdk",
    "qubix_tui": "tui",
}


def repository_files(*patterns: str) -> list[Path]:
    """Tracked files, and new ones that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = (ROOT / name for name in listed.split("\0") if name)
    return sorted(path for path in paths if path.is_file())


def copy_packages(target: Path) -> list[Path]:
    """Copies the packages' sources; returns the folders to put on the import path."""
    for package, folder in PACKAGE_FOLDERS.items():
        shutil.copytree(
            ROOT / folder / package, target / folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return [target / folder for folder in PACKAGE_FOLDERS.values()]


def plant(root: Path, module: str, source: str) -> None:
    """Adds lines to a module of the copy, or makes the module, with the packages above it."""
    package, *inner = module.split(".")
    folder = root / PACKAGE_FOLDERS[package] / package
    if folder.joinpath(*inner).is_dir():
        inner.append("__init__")
    for part in inner[:-1]:
        folder /= part
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
    with (folder / f"{inner[-1]}.py").open("a") as file:
        file.write(f"\n{source}\n")


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of every module of the packages under `root`."""
    for package, folder in PACKAGE_FOLDERS.items():
        base = root / folder
        for path in sorted((base / package).rglob("*.py")):
            name = ".".join(path.relative_to(base).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path
