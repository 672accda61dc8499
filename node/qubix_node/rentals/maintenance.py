# SPDX-License-Identifier: Apache-2.0
"""When this node's devices must be free, as its owner has said: a small file that the running node looks at.

`qubix node --maintenance-in SECONDS` writes it, `--maintenance-off` takes it away; a node that starts is open again.
`--drain` writes one by which the node leaves as soon as nothing runs on it any more.
"""

import json
import logging
from pathlib import Path
from typing import Final

from qubix_node import files
from qubix_node.clock import wall_ms
from qubix_node.errors import CannotWrite

log = logging.getLogger("qubix_node")
_NAME: Final = "maintenance.json"
_WHY: Final = "maintenance"
_TEXT_MAX: Final = 200


class Maintenance:
    """`ends_ms`, by this machine's clock: from then on nothing runs here; None: none is announced."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._path.unlink(missing_ok=True)
        self.ends_ms: int | None = None
        self.why = ""
        self.leave = False
        """Once what runs has come to its end, the node stops."""

    def look(self) -> bool:
        """Whether it is another one than before. Blocks on the disk."""
        before = self.ends_ms
        self.ends_ms, self.why, self.leave = self._read()
        return self.ends_ms != before

    def _read(self) -> tuple[int | None, str, bool]:
        try:
            found = json.loads(self._path.read_bytes())
            return int(found["ends_ms"]), str(found.get("why", _WHY))[:_TEXT_MAX], bool(found.get("leave", False))
        except FileNotFoundError:
            return None, "", False
        except (OSError, ValueError, KeyError, TypeError) as problem:
            log.warning("node.maintenance_unreadable", extra={"reason": str(problem)})
            return self.ends_ms, self.why, self.leave


def announce(folder: Path, after_s: float, why: str, *, leave: bool = False) -> int:
    """For the node that runs on this folder; the time at which it will be free. `leave`: it stops once nothing runs on
    it. Raises `NotRunning`, `CannotWrite`."""
    files.check_running(folder)
    ends_ms = wall_ms() + round(after_s * 1000)
    try:
        said = {"ends_ms": ends_ms, "why": why or _WHY, "leave": leave}
        files.write_atomically(folder / _NAME, json.dumps(said).encode())
    except OSError as problem:
        raise CannotWrite(f"cannot write to {folder}: {problem.strerror}. Run it as the node's user.") from None
    return ends_ms


def call_off(folder: Path) -> None:
    """The node goes on taking work; rentals that were told of their end still end. Raises `NotRunning`."""
    files.check_running(folder)
    (folder / _NAME).unlink(missing_ok=True)
