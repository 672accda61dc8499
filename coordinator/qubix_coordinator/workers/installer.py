# SPDX-License-Identifier: Apache-2.0
"""The one file that a person starts: one template for Linux and macOS, and Windows' around it. Pure.

Every value is quoted for the shell that reads it, and nothing is taken from the network but by its hash.
"""

import base64
import io
import re
import shlex
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qubix_protocol.worker import Manifest, System

TEMPLATES: Final = Path(__file__).parent / "templates"
_SLOT: Final = re.compile(r"@@([A-Z0-9_]+)@@")
_MACHINES: Final = {"linux": "Linux", "macosx": "Darwin", "manylinux": "Linux"}
_LINE: Final = 76
_COMPILED: Final = re.compile(
    r"fastecdsa-[^-]+(?:-[^-]+)?-(cp\d+)-cp\d+-([a-z]+)[0-9_]*?_((?:x86_64|aarch64|arm64)\w*)\.whl"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Of one system."""

    title: str
    uname: str
    file: str
    python_remedy: str
    compiler_remedy: str


PLACES: Final[Mapping[str, Place]] = {
    "linux": Place(
        "Linux",
        "Linux",
        "qubix-worker.sh",
        "Debian, Ubuntu: sudo apt install python3 python3-venv   Fedora: sudo dnf install python3",
        "Debian, Ubuntu: sudo apt install gcc python3-dev libgmp-dev"
        "   Fedora: sudo dnf install gcc python3-devel gmp-devel",
    ),
    "macos": Place(
        "macOS",
        "Darwin",
        "qubix-worker.command",
        "Install Python 3.12 from python.org, or with Homebrew: brew install python@3.12",
        "xcode-select --install   and with Homebrew: brew install gmp; then"
        ' export CPATH="$(brew --prefix)/include" LIBRARY_PATH="$(brew --prefix)/lib"',
    ),
}
WINDOWS_FILE: Final = "qubix-worker.cmd"


@dataclass(frozen=True, slots=True)
class Terms:
    """What one installer is for. `coordinator` is the address without a slash at its end."""

    coordinator: str
    coordinator_key: str
    code: str
    python: str
    """Minor version of the Python that is tried first: ours are compiled for it."""


def installer(system: System, manifest: Manifest, terms: Terms) -> tuple[str, bytes]:
    """Its name, and what is in it."""
    if system == "windows":
        return WINDOWS_FILE, _windows(manifest, terms)
    place = PLACES[system]
    script = script_of(place, manifest, terms)
    return (place.file, script) if system == "linux" else (f"{place.file}.zip", _zipped(place.file, script))


def script_of(place: Place, manifest: Manifest, terms: Terms) -> bytes:
    compiled = compiled_for(manifest)
    pythons = sorted({name.partition("-")[0].removeprefix("py") for name in manifest.requirements})
    pythons.sort(key=lambda minor: minor != terms.python)
    said = "".join(
        f" Python 3.{tag[3:]} on {where.replace('-', ' ')},"
        for tag, _, where in (one.partition("-") for one in compiled)
    )
    values = {
        "TITLE": place.title,
        "FILE": place.file,
        "UNAME": place.uname,
        "COORDINATOR": shlex.quote(terms.coordinator),
        "COORDINATOR_KEY": shlex.quote(terms.coordinator_key),
        "NETWORK": shlex.quote(manifest.network),
        "CODE": shlex.quote(terms.code),
        "VERSION": shlex.quote(manifest.version),
        "PYTHONS": shlex.quote(" ".join(pythons)),
        "PYTHON_REMEDY": shlex.quote(place.python_remedy),
        "COMPILER_REMEDY": shlex.quote(place.compiler_remedy),
        "COMPILED": shlex.quote(" ".join(compiled)),
        "COMPILED_SAID": shlex.quote(said.rstrip(",") or " none"),
        "REQUIREMENTS": "\n".join(
            f"{name} {file.sha256} {file.name}" for name, file in sorted(manifest.requirements.items())
        ),
        "WHEELS": " ".join(f"{file.sha256} {shlex.quote(file.name)}" for file in manifest.wheels),
    }
    return filled((TEMPLATES / "worker.sh").read_text(encoding="utf-8"), values).encode()


def compiled_for(manifest: Manifest) -> list[str]:
    """Where libp2p's compiled part comes ready: `cp311-Linux-x86_64`, as Python, `uname -s` and `uname -m`."""
    found = (_COMPILED.fullmatch(file.name) for file in manifest.wheels)
    return sorted({f"{one[1]}-{_MACHINES.get(one[2], one[2])}-{one[3]}" for one in found if one})


def filled(template: str, values: Mapping[str, str]) -> str:
    """Each slot once over: what a value holds is never read as a slot."""
    return _SLOT.sub(lambda slot: values[slot[1]], template)


def _zipped(name: str, script: bytes) -> bytes:
    """A download loses the right to be started; what a zip file says of it stays."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        entry.external_attr, entry.create_system = 0o100700 << 16, 3
        file.writestr(entry, script)
    return buffer.getvalue()


def _windows(manifest: Manifest, terms: Terms) -> bytes:
    inner = base64.b64encode(script_of(PLACES["linux"], manifest, terms)).decode()
    lines = "\n".join(inner[start : start + _LINE] for start in range(0, len(inner), _LINE))
    text = filled((TEMPLATES / "worker.cmd").read_text(encoding="utf-8"), {"FILE": WINDOWS_FILE, "BASE64": lines})
    return text.replace("\n", "\r\n").encode()
