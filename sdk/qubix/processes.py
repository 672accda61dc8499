# SPDX-License-Identifier: Apache-2.0
"""The other parts' commands: found by entry point, started as processes of their own, never imported."""

import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Final

from qubix.errors import StartFailed

GROUP: Final = "qubix.processes"
_EXTRAS: Final = {"gateway": "mesh", "node": "node", "tui": "tui"}


def modules() -> dict[str, str]:
    """Module by command name."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


def command(name: str, *args: str, part: str = "") -> list[str]:
    """What starts it, or a `part` of it that is a command of its own. Raises `StartFailed` when it is not installed."""
    module = modules().get(name)
    if module is None or find_spec(module.partition(".")[0]) is None:
        extra = _EXTRAS.get(name, "coordinator")
        raise StartFailed(f"the {name} is not installed here", remedy=f"Run: pip install 'qubix[{extra}]'")
    return [sys.executable, "-m", f"{module}.{part}" if part else module, *args]
