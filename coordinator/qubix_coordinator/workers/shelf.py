# SPDX-License-Identifier: Apache-2.0
"""The files that a worker is installed from, each found by its SHA-256 and never changed; made once a process."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from qubix_coordinator.workers import wheels
from qubix_coordinator.workers.wheels import Wheel
from qubix_protocol.keys import SigningKey
from qubix_protocol.units import Network
from qubix_protocol.worker import Manifest, SignedManifest, WorkerFile, signed_bytes

LOCKS: Final = Path(__file__).parent / "locks"
_EXTRA_WHEEL: Final = re.compile(r"[A-Za-z0-9_.+]+(-[A-Za-z0-9_.+]+){4,5}\.whl")
_HASH: Final = "    --hash=sha256:"


@dataclass(frozen=True, slots=True)
class Shelf:
    files: Mapping[tuple[str, str], bytes]
    """By SHA-256 in hexadecimal digits, and name."""
    manifest: Manifest
    signed: SignedManifest

    def file(self, sha256: str, name: str) -> bytes | None:
        return self.files.get((sha256, name))


def filled(key: SigningKey, network: Network, more: Path) -> Shelf:
    """`more`: a folder in which the operator may put wheels for other systems and Pythons. Takes a second or two."""
    own, compiled = wheels.own(), wheels.compiled()
    made = [own, *([compiled] if compiled else []), *_of_operator(more)]
    files = {(wheel.sha256, wheel.file): wheel.data for wheel in made}
    requirements = {}
    for name, lock in locks().items():
        data = pinned(lock, made).encode()
        found = _described(f"requirements-{name}.txt", data)
        files[found.sha256, found.name] = data
        requirements[name] = found
    manifest = Manifest(
        network=network,
        version=own.version,
        requirements=requirements,
        wheels=tuple(_described(wheel.file, wheel.data) for wheel in made),
    )
    raw = msgspec.json.encode(manifest).decode()
    return Shelf(files, manifest, SignedManifest(manifest=raw, signature=key.sign(signed_bytes(raw)).hex()))


def locks() -> dict[str, str]:
    """By name: `py3.11` for any system, `py3.11-cuda13` where an NVIDIA driver is."""
    found = {path.stem: path.read_text(encoding="utf-8") for path in sorted(LOCKS.glob("*.txt"))}
    return {
        name: merged(found[base], text) if (base := name.partition("-")[0]) != name else text
        for name, text in found.items()
    }


def merged(base: str, more: str) -> str:
    """The base, where `more` adds packages or replaces them."""
    entries = _entries(base) | _entries(more)
    return "".join(entries[name] for name in sorted(entries))


def _entries(lock: str) -> dict[str, str]:
    """By the package's name: its line, and the hashes below it."""
    found: dict[str, str] = {}
    name = ""
    for line in lock.splitlines(keepends=True):
        if not line.startswith(" "):
            name = line.partition("==")[0]
            found[name] = ""
        found[name] += line
    return found


def pinned(lock: str, made: list[Wheel]) -> str:
    """The lock, with our own wheels in it by their hashes. A package that we have a wheel of keeps the others' hashes:
    where ours does not fit the machine, the index's source is built."""
    lines = []
    for line in lock.splitlines():
        lines.append(line)
        name, _, rest = line.partition("==")
        fitting = (one for one in made if (one.name, one.version) == (name, rest.split(" ")[0]))
        lines.extend(f"{_HASH}{one.sha256} \\" for one in fitting)
    own = made[0]
    return "\n".join([*lines, f"{own.name}=={own.version} \\", f"{_HASH}{own.sha256}", ""])


def _of_operator(folder: Path) -> list[Wheel]:
    found = []
    for path in sorted(folder.glob("*.whl")) if folder.is_dir() else ():
        if _EXTRA_WHEEL.fullmatch(path.name):
            name, version = path.name.split("-")[:2]
            found.append(Wheel(name.replace("_", "-").lower(), version, path.name, path.read_bytes()))
    return found


def _described(name: str, data: bytes) -> WorkerFile:
    return WorkerFile(name=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
