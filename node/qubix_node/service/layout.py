# SPDX-License-Identifier: Apache-2.0
"""What lies where in a worker's own folder. Nothing of it is anywhere else, but for the service's one file."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qubix_node.files import write_atomically

_LINE: Final = re.compile(r"(QUBIX_[A-Z0-9_]+)=([^\n\r\x00]*)")
NAME: Final = "qubix-worker"


@dataclass(frozen=True, slots=True)
class Layout:
    root: Path

    @property
    def versions(self) -> Path:
        return self.root / "versions"

    @property
    def current(self) -> Path:
        """A link to the version that runs."""
        return self.root / "current"

    @property
    def settings(self) -> Path:
        return self.root / "settings.env"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def key(self) -> Path:
        return self.data / "node.key"

    @property
    def log(self) -> Path:
        return self.root / "worker.log"

    @property
    def pid(self) -> Path:
        return self.root / "worker.pid"

    @property
    def command(self) -> Path:
        """`qubix-worker`: everything that there is to say to this worker."""
        return self.root / "bin" / NAME

    def python(self, version: str | None = None) -> Path:
        home = self.current if version is None else self.versions / version
        return home / "bin" / "python"

    @property
    def version(self) -> str:
        """Of what runs; "" when nothing is installed."""
        return Path(os.readlink(self.current)).name if self.current.is_symlink() else ""


def write_settings(layout: Layout, values: Mapping[str, str]) -> None:
    """Over what a person has added: theirs stay. Raises ValueError for what no line can hold."""
    kept = {**read_settings(layout), **values}
    lines = [f"{name}={value}" for name, value in kept.items()]
    for line in lines:
        if not _LINE.fullmatch(line):
            raise ValueError(f"{line!r} is no setting")
    head = "# Read when the worker starts. More settings: docs/settings.md, such as QUBIX_NODE_RATE_QU_PER_H=90000\n"
    write_atomically(layout.settings, (head + "\n".join(lines) + "\n").encode())


def read_settings(layout: Layout) -> dict[str, str]:
    if not layout.settings.is_file():
        return {}
    found = (_LINE.fullmatch(line.strip()) for line in layout.settings.read_text(encoding="utf-8").splitlines())
    return {match[1]: match[2] for match in found if match}


def write_command(layout: Layout) -> None:
    layout.command.parent.mkdir(parents=True, exist_ok=True)
    root = str(layout.root).replace("'", "'\\''")
    text = f"#!/bin/sh\nexec '{root}/current/bin/python' -m qubix_node.service --root '{root}' \"$@\"\n"
    write_atomically(layout.command, text.encode())
    layout.command.chmod(0o700)


def switch(layout: Layout, version: str) -> None:
    """In one step, so that a service that starts meanwhile finds the one or the other."""
    fresh = layout.root / ".current.new"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(Path("versions") / version)
    fresh.replace(layout.current)
