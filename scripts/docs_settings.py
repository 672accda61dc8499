# SPDX-License-Identifier: Apache-2.0
"""Writes docs/settings.md from the Settings class of each process: `make docs`. A test keeps the page fresh."""

import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import qubix.settings
import qubix_chain.devnet.settings
import qubix_coordinator.jobs.verify_settings
import qubix_coordinator.settings
import qubix_coordinator.treasury.settings
import qubix_mesh.gateway.settings
import qubix_mesh.watch_settings
import qubix_node.settings
import qubix_tui.settings
from qubix_protocol.settings import Row, describe

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
PROCESSES: tuple[tuple[str, type[Any]], ...] = (
    ("Coordinator", qubix_coordinator.settings.Settings),
    ("Verifier (and all of the coordinator's)", qubix_coordinator.jobs.verify_settings.VerifierSettings),
    ("Chain process (and all of the coordinator's)", qubix_coordinator.treasury.settings.ChainSettings),
    ("Gateway", qubix_mesh.gateway.settings.Settings),
    ("Watcher of the mesh", qubix_mesh.watch_settings.Settings),
    ("Node", qubix_node.settings.Settings),
    ("Devnet", qubix_chain.devnet.settings.Settings),
    ("SDK and command line", qubix.settings.Settings),
    ("Terminal (and all of the SDK's)", qubix_tui.settings.Settings),
)
HEAD = """# Settings

Every process reads its settings once, at the start: from the environment, and from the TOML file that `QUBIX_CONFIG`
names, where its table is `[coordinator]`, `[verifier]` and `[chain]` (laid over `[coordinator]`), `[gateway]`,
`[mesh]`, `[node]`, `[devnet]`, `[client]`, or `[tui]` (laid over `[client]`). The environment wins. A value that cannot
be used ends the process with exit status 2 and a line that names the variable, the problem and the remedy. Units stand
at the end of a name. This page is generated: change the Settings class, then run `make docs`.
"""


def table(rows: list[Row]) -> str:
    lines = ["| variable | type | default | what it is |", "|---|---|---|---|"]
    for row in rows:
        kind = row.type.removeprefix("typing.Literal").strip("[]").replace("'", "")
        cells = (f"`{row.env}`", kind, f"`{row.default}`", row.doc)
        lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def own_rows(cls: type[Any]) -> list[Row]:
    """Without what a class inherits from another process's settings: that stands in its own table."""
    inherited = {row.env for base in cls.__mro__[1:] if is_dataclass(base) for row in describe(base)}
    return [row for row in describe(cls) if row.env not in inherited]


def page() -> str:
    sections = [f"## {title}\n\n{table(own_rows(cls))}\n" for title, cls in PROCESSES]
    return "\n".join([HEAD, *sections])


def main() -> int:
    PAGE.write_text(page())
    print(f"wrote {PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
