# SPDX-License-Identifier: Apache-2.0
"""What this node asks for an hour of a device: its setting, until its owner says otherwise while it runs.

`qubix node --set-rate QU` writes a small file that the running node looks at. It is kept over restarts for as long as
the setting is what it was then: whoever changes the setting means the setting.
"""

import json
import logging
from pathlib import Path
from typing import Final

from qubix_node import files
from qubix_node.clock import wall_ms
from qubix_node.errors import CannotWrite
from qubix_protocol.units import RATE_QU_PER_H_MAX

log = logging.getLogger("qubix_node")
LOOK_S: Final = 1.0
_NAME: Final = "rate.json"


class Price:
    def __init__(self, folder: Path, setting_qu_per_h: int) -> None:
        self._path, self._setting = folder / _NAME, setting_qu_per_h
        self._said: str | None = None
        self.qu_per_h = setting_qu_per_h
        self.look()

    @property
    def word(self) -> str:
        """All that was said of the price on this machine: another word is another time that somebody said something."""
        return f"{self._setting} {self._said or ''}"

    def look(self) -> bool:
        """Whether it is another one than before. Blocks on the disk."""
        before = self.qu_per_h
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            text = ""
        except (OSError, UnicodeDecodeError) as problem:
            log.warning("node.rate_unreadable", extra={"reason": str(problem)})
            return False
        if text != self._said:
            self._said = text
            self.qu_per_h = self._read(text)
        return self.qu_per_h != before

    def _read(self, text: str) -> int:
        if not text:
            return self._setting
        try:
            found = json.loads(text)
            rate, instead = int(found["rate_qu_per_h"]), int(found["setting_qu_per_h"])
        except (ValueError, KeyError, TypeError) as problem:
            log.warning("node.rate_unreadable", extra={"reason": str(problem)})
            return self.qu_per_h
        return rate if instead == self._setting and 0 <= rate <= RATE_QU_PER_H_MAX else self._setting


def announce(folder: Path, rate_qu_per_h: int, setting_qu_per_h: int) -> None:
    """For the node that runs on this folder. Raises `NotRunning`, `CannotWrite`."""
    files.check_running(folder)
    # With the time: the same price said again is said anew.
    said = {"rate_qu_per_h": rate_qu_per_h, "setting_qu_per_h": setting_qu_per_h, "at_ms": wall_ms()}
    try:
        files.write_atomically(folder / _NAME, json.dumps(said).encode())
    except OSError as problem:
        raise CannotWrite(f"cannot write to {folder}: {problem.strerror}. Run it as the node's user.") from None
