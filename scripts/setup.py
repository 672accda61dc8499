# SPDX-License-Identifier: Apache-2.0
"""Makes `.venv` from the lock file of this Python version. Run by `make setup` and `make setup-test`.

Needs nothing but Python's standard library. Checks for what pip would only miss minutes later (a C compiler, Python.h,
gmp.h), installs it through apt as root or says exactly what to run. Does nothing when nothing has changed.
"""

from __future__ import annotations

import argparse
import ctypes.util
import fcntl
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WEB_BUILD = Path(__file__).resolve().with_name("web_build.py")
SUPPORTED = ((3, 11), (3, 12), (3, 13))
CANDIDATES = ("python3.11", "python3", "python3.12", "python3.13")
STAMP_NAME = "qubix-setup.json"
LOG_NAME = "qubix-setup.log"
PROBE_TIMEOUT_S = 30

# What an installation needs beside Python, in the order in which it is told.
COMPILER = "a C compiler"
HEADERS = "Python's headers (Python.h)"
GMP = "the GMP library's headers (gmp.h)"
VENV = "Python's venv module with ensurepip"
BOX = "bubblewrap (bwrap), which confines jobs"
NEEDS = (COMPILER, HEADERS, GMP, VENV, BOX)
# What the tests need as well.
BROWSER = "Chromium, which the tests of the web pages drive"
VULKAN = "a Vulkan driver (Mesa's has one without a card), which shaders are tried on"
TEST_NEEDS = (BROWSER, VULKAN)
WITHOUT = {
    BOX: "this machine can run the catalogue only",
    BROWSER: "the tests of the web pages fail",
    VULKAN: "the tests of WebGPU back ends fail",
}
"""What can be done without, and what that means: what cannot be installed from here is told and stops nothing."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
VULKAN_DRIVERS = ("/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d")

# Per package manager: how to install, and the packages for each need ({minor} is the Python version, such as 3.11).
INSTALL_COMMANDS = {"apt-get": "apt-get install -y", "dnf": "dnf install -y", "brew": "brew install"}
PACKAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "apt-get": {
        COMPILER: ("gcc", "libc6-dev"),
        HEADERS: ("python{minor}-dev",),
        GMP: ("libgmp-dev",),
        VENV: ("python{minor}-venv",),
        BOX: ("bubblewrap",),
        BROWSER: ("chromium",),
        VULKAN: ("libvulkan1", "mesa-vulkan-drivers"),
    },
    "dnf": {
        COMPILER: ("gcc",),
        HEADERS: ("python{minor}-devel",),
        GMP: ("gmp-devel",),
        VENV: ("python{minor}",),
        BOX: ("bubblewrap",),
        BROWSER: ("chromium",),
        VULKAN: ("vulkan-loader", "mesa-vulkan-drivers"),
    },
    "brew": {
        COMPILER: ("gcc",),
        HEADERS: ("python@{minor}",),
        GMP: ("gmp",),
        VENV: ("python@{minor}",),
        BOX: (),
        BROWSER: ("chromium",),
        VULKAN: (),
    },
}

# Runs in the interpreter that is being looked at, and prints what we have to know about it.
PROBE = """
import importlib.util, json, os, sys, sysconfig
print(json.dumps({
    "command": getattr(sys, "_base_executable", None) or sys.executable,
    "version": list(sys.version_info[:3]),
    "prefix": sys.base_prefix,
    "include": sysconfig.get_paths()["include"],
    "compiler": sysconfig.get_config_var("CC") or "cc",
    "has_venv": all(importlib.util.find_spec(name) is not None for name in ("venv", "ensurepip")),
}))
"""


class SetupFailed(Exception):
    """Its text says what is wrong and what to do next."""


@dataclass(frozen=True)
class Interpreter:
    """A Python outside any virtual environment, as it describes itself."""

    command: str
    version: tuple[int, int, int]
    prefix: str
    include: str
    compiler: str
    has_venv: bool

    @property
    def minor(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def full(self) -> str:
        return ".".join(str(part) for part in self.version)


@dataclass(frozen=True)
class Machine:
    is_root: bool
    package_manager: str | None


@dataclass(frozen=True)
class Plan:
    """What to do about missing needs: `commands` to run now, or `remedy` for a person; both empty when all is there."""

    commands: tuple[tuple[str, ...], ...] = ()
    remedy: str = ""


def is_supported(version: tuple[int, int, int]) -> bool:
    return version[:2] in SUPPORTED


def packages_for(missing: tuple[str, ...], manager: str, minor: str) -> tuple[str, ...]:
    return tuple(name.format(minor=minor) for need in missing for name in PACKAGES[manager][need])


def install_line(packages: tuple[str, ...], machine: Machine) -> str:
    manager = machine.package_manager or ""
    sudo = "" if machine.is_root or manager == "brew" else "sudo "
    return f"{sudo}{INSTALL_COMMANDS[manager]} {' '.join(packages)}"


def plan(missing: tuple[str, ...], python: Interpreter, machine: Machine) -> Plan:
    """Decides: as root with apt the machine is mended here, otherwise a person is told what to run."""
    if not missing:
        return Plan()
    if HEADERS in missing and machine.package_manager != "brew" and python.prefix != "/usr":
        return Plan(remedy=_foreign_python_remedy(python))
    if machine.package_manager is None:
        return Plan(
            remedy=f"Missing: {', '.join(missing)}. Install with your system's package manager, then run again."
        )
    packages = packages_for(missing, machine.package_manager, python.minor)
    if machine.is_root and machine.package_manager == "apt-get":
        install = ("apt-get", "install", "-y", "--no-install-recommends", *packages)
        return Plan(commands=(("apt-get", "update"), install))
    return Plan(remedy=_remedy(missing, packages, machine))


def _foreign_python_remedy(python: Interpreter) -> str:
    """No system package carries the headers of a Python that was built by hand."""
    return (
        f"{python.command} (Python {python.full}) has no Python.h in {python.include}, "
        "and no system package can add it.\n"
        "Use another Python with its headers:  make setup PYTHON=/usr/bin/python3"
    )


def _remedy(missing: tuple[str, ...], packages: tuple[str, ...], machine: Machine) -> str:
    lines = [
        f"Missing: {', '.join(missing)}. Run this, then the same command again:",
        f"    {install_line(packages, machine)}",
    ]
    if machine.package_manager == "brew" and GMP in missing:
        lines.append('    export CPATH="$(brew --prefix)/include" LIBRARY_PATH="$(brew --prefix)/lib"')
    return "\n".join(lines)


def probe_interpreter(command: str) -> Interpreter | None:
    """None when there is no such command or it is no working Python (a pyenv shim without a version, say)."""
    try:
        done = subprocess.run(
            [command, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=True
        )
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Interpreter(**{**found, "version": tuple(found["version"])})


def choose_interpreter(wanted: str | None) -> Interpreter:
    """The one asked for, or the first supported candidate on the PATH."""
    tried = []
    for command in (wanted,) if wanted else CANDIDATES:
        python = probe_interpreter(command)
        if python and is_supported(python.version):
            return python
        tried.append(f"{command} is {python.full}" if python else f"{command} does not run")
    raise SetupFailed(
        f"QUBIX needs Python 3.11, 3.12 or 3.13 ({'; '.join(tried)}).\n"
        "Install one (Debian, Ubuntu: apt-get install python3 python3-dev python3-venv), or name one: "
        "make setup PYTHON=/path/to/python3.12"
    )


def compiler_of(python: Interpreter) -> list[str]:
    """The command pip will compile with."""
    return shlex.split(os.environ.get("CC") or python.compiler)


def compiles(compiler: list[str], source: str, *flags: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        command = [*compiler, "-x", "c", "-", "-o", str(Path(folder) / "probe"), *flags]
        try:
            done = subprocess.run(
                command, input=source, text=True, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
    return done.returncode == 0


def needs_of(level: str) -> tuple[str, ...]:
    return (*NEEDS, *TEST_NEEDS) if level == "test" else NEEDS


def missing_needs(python: Interpreter, level: str = "run") -> tuple[str, ...]:
    """Looks at this machine. Without a compiler gmp.h cannot be tried, and counts as missing."""
    compiler = compiler_of(python)
    has_compiler = compiles(compiler, "int main(void) { return 0; }")
    present = {
        COMPILER: has_compiler,
        HEADERS: (Path(python.include) / "Python.h").is_file(),
        GMP: has_compiler and compiles(compiler, "#include <gmp.h>\nint main(void) { return 0; }", "-lgmp"),
        VENV: python.has_venv,
        BOX: sys.platform != "linux" or shutil.which("bwrap") is not None,
        BROWSER: any(map(shutil.which, BROWSERS)),
        VULKAN: sys.platform != "linux" or has_vulkan(),
    }
    return tuple(need for need in needs_of(level) if not present[need])


def has_vulkan() -> bool:
    """The loader, and a driver that it would find."""
    drivers = [file for folder in VULKAN_DRIVERS for file in Path(folder).glob("*.json")]
    return ctypes.util.find_library("vulkan") is not None and bool(drivers)


def this_machine() -> Machine:
    manager = next((name for name in INSTALL_COMMANDS if shutil.which(name)), None)
    return Machine(is_root=os.geteuid() == 0, package_manager=manager)


def provide_needs(python: Interpreter, level: str = "run") -> None:
    """Raises SetupFailed when something is missing that cannot be installed from here."""
    missing, machine = missing_needs(python, level), this_machine()
    decided = plan(missing, python, machine)
    if decided.remedy and set(missing) <= set(WITHOUT):
        means = "; ".join(WITHOUT[need] for need in missing)
        say(f"Going on without {', '.join(missing)}: {means}. {decided.remedy}")
        return
    if decided.remedy:
        raise SetupFailed(decided.remedy)
    if not decided.commands:
        return
    say(f"Missing: {', '.join(missing)}. Installing: {' '.join(packages_for(missing, 'apt-get', python.minor))}")
    for command in decided.commands:
        run_apt(command)
    again = probe_interpreter(python.command)
    still = missing_needs(again, level) if again else needs_of(level)
    if still:
        raise SetupFailed(f"Still missing after installing: {', '.join(still)}. See apt's messages above.")


def run_apt(command: tuple[str, ...]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run([*command, "-qq"], env=environment, check=False)
    if done.returncode != 0:
        raise SetupFailed(f"`{' '.join(command)}` failed. Mend what it says above, then run the same command again.")


def lock_file(root: Path, minor: str, level: str) -> Path:
    """`level` is run or test; the test lock holds everything the run lock holds."""
    return root / "requirements" / (f"py{minor}.txt" if level == "run" else f"py{minor}-test.txt")


def model_lock(root: Path) -> Path:
    """Wheels that tests read model files from; installed without what they depend on."""
    return root / "requirements" / "models.txt"


def node_lock(root: Path) -> Path:
    """The wheel that brings node to machines that have none, to build the web pages with."""
    return root / "requirements" / "node.txt"


def web_build() -> Any:
    """The module that builds the web pages, as the package's build loads it."""
    spec = importlib.util.spec_from_file_location("qubix_web_build", WEB_BUILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fingerprint(root: Path, version: str, level: str) -> str:
    """Changes whenever an environment made earlier would no longer be the right one (moved folders break scripts)."""
    digest = hashlib.sha256(f"{root}\0{version}\0".encode())
    models = (model_lock(root),) if level == "test" else ()
    for path in (lock_file(root, minor_of(version), level), root / "pyproject.toml", *models):
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def minor_of(version: str) -> str:
    return ".".join(version.split(".")[:2])


def venv_version(venv: Path) -> str | None:
    """The full version in pyvenv.cfg, or None when the environment is absent or its Python is gone."""
    if not (venv / "bin" / "python").exists():
        return None
    with suppress(OSError):
        for line in (venv / "pyvenv.cfg").read_text().splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "version":
                return value.strip()
    return None


def read_stamp(venv: Path) -> dict[str, str]:
    try:
        stamp = json.loads((venv / STAMP_NAME).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def is_current(root: Path, venv: Path, level: str) -> bool:
    version = venv_version(venv)
    if version is None or not lock_file(root, minor_of(version), level).is_file():
        return False
    return read_stamp(venv).get(level) == fingerprint(root, version, level)


def write_stamp(root: Path, venv: Path, version: str, level: str) -> None:
    levels = ("run", "test") if level == "test" else ("run",)
    stamp = {name: fingerprint(root, version, name) for name in levels}
    (venv / STAMP_NAME).write_text(json.dumps(stamp))


def is_usable(venv: Path, python: Interpreter) -> bool:
    """Same Python, made in this very folder (scripts hold their absolute path), and its pip runs."""
    pip = venv / "bin" / "pip"
    if venv_version(venv) != python.full or not pip.is_file():
        return False
    return str(venv) in pip.read_text() and succeeds([str(pip), "--version"])


def make_venv(venv: Path, python: Interpreter) -> None:
    """Keeps a working environment of the same Python; replaces any other."""
    if is_usable(venv, python):
        return
    if venv.exists():
        say("Removing the old .venv: it was made by another Python or in another folder.")
        shutil.rmtree(venv)
    advice = "Could not create .venv: look at the message above, or name another Python with PYTHON=/path/to/python3."
    logged(venv.parent, [python.command, "-m", "venv", str(venv)], advice)


def succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def install(root: Path, venv: Path, minor: str, level: str) -> None:
    """Locked packages first, each checked by its hash; then this project, from its folders."""
    lock = lock_file(root, minor, level)
    count = sum("==" in line for line in lock.read_text().splitlines())
    say(f"Installing {count} packages from {lock.relative_to(root)} (a minute or two the first time) ...")
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    advice = "Look at the network and the package index pip is set to, then run the same command again."
    logged(root, [*pip, "--require-hashes", "-r", str(lock)], advice, venv / LOG_NAME)
    if level == "test":
        models = ["--no-deps", "--require-hashes", "-r", str(model_lock(root))]
        logged(root, [*pip, *models], advice, venv / LOG_NAME)
    if web_build().npm_of_system() is None:
        logged(root, [*pip, "--require-hashes", "-r", str(node_lock(root))], advice, venv / LOG_NAME)
    # The web pages are built afterwards: without npm's registry everything else still runs.
    own = [*pip, "--no-deps", "--no-build-isolation", "-e", str(root)]
    logged(root, own, advice, venv / LOG_NAME, QUBIX_SKIP_WEB="1")


def build_web(root: Path, venv: Path) -> None:
    """Does nothing when they are built already; a build that fails is told and stops nothing."""
    hook = web_build()
    if not (root / "web").is_dir() or hook.is_built(root, hook.digest(root / "web")):
        return
    say("Building the web pages ...")
    command = [str(venv / "bin" / "python"), str(WEB_BUILD)]
    try:
        logged(root, command, "Everything else runs without them; the next `make setup` tries again.", venv / LOG_NAME)
    except SetupFailed as failure:
        say(f"The web pages are not built:\n{failure}")


def logged(folder: Path, command: list[str], advice: str, log: Path | None = None, **env: str) -> None:
    """Runs quietly; on failure shows the end of what was said, and `advice`."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if log:
        with log.open("a") as file:
            file.write(f"$ {shlex.join(command)}\n{done.stdout}\n")
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-25:])
        where = f" All of it: {log}" if log else ""
        raise SetupFailed(f"{tail}\n\n`{shlex.join(command)}` failed.{where}\n{advice}")


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """One setup at a time in this folder; the kernel drops the lock with the process."""
    folder = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another setup is running in this folder; waiting for it ...")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def say(text: str) -> None:
    print(text, flush=True)


def setup(root: Path, level: str, wanted: str | None) -> None:
    venv = root / ".venv"
    with only_one(root):
        if is_current(root, venv, level) and not wanted:
            build_web(root, venv)
            return
        began = time.monotonic()
        python = choose_interpreter(wanted)
        if is_current(root, venv, level) and venv_version(venv) == python.full:
            build_web(root, venv)
            return
        say(f"Setting up QUBIX in .venv with Python {python.full} ({python.command})")
        provide_needs(python, level)
        make_venv(venv, python)
        install(root, venv, python.minor, level)
        write_stamp(root, venv, python.full, level)
        build_web(root, venv)
        say(f"Ready after {time.monotonic() - began:.0f} s.")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make .venv from the lock files.")
    parser.add_argument("--test", action="store_true", help="install what the tests need as well")
    parser.add_argument("--python", help="the Python to use instead of the first supported one found")
    options = parser.parse_args()
    try:
        setup(ROOT, "test" if options.test else "run", options.python or None)
    except SetupFailed as failure:
        print(f"make setup: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
