# SPDX-License-Identifier: Apache-2.0
"""What the terminal can be told from outside: all that the SDK reads, and where the mesh is."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qubix import settings as sdk
from qubix.errors import BadUsage
from qubix_protocol.settings import SettingsError, load, read_config, setting, tables
from qubix_protocol.units import NETWORKS, Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(sdk.Settings):
    """The tables of the configuration file are `[client]`, and `[tui]` laid over it."""

    bootstrap: tuple[str, ...] = setting(
        "QUBIX_BOOTSTRAP",
        "Who the Mesh screen dials first, as multiaddrs ending in /p2p/…; the coordinator names gateways while it is"
        " up, and those of before are remembered.",
        (),
    )
    network: Network = setting(  # noqa: RUF009 - it returns a dataclass field
        "QUBIX_NETWORK",
        "Network that the Mesh screen listens for when no coordinator was met yet.",
        "devnet",
        choices=NETWORKS,
    )
    coordinator_key: str = setting(
        "QUBIX_COORDINATOR_KEY",
        "Key of the coordinator whose certificates count in the Mesh screen, 64 hex digits.",
        "",
        default_doc="the one pinned for the coordinator's address at the first meeting",
    )
    regions: tuple[str, ...] = setting(
        "QUBIX_TUI_REGIONS",
        "Regions whose offers the Mesh screen listens for.",
        (),
        default_doc="those that the coordinator names, and `local`",
    )

    @property
    def tui_dir(self) -> Path:
        """The log, and what is remembered of the mesh."""
        return self.data_dir / "tui"


def from_environment() -> Settings:
    """Raises `BadUsage`, naming the variable."""
    return from_mapping(os.environ)


def from_mapping(env: Mapping[str, str]) -> Settings:
    def read(path: str) -> str:
        return Path(path).read_text(encoding="utf-8")

    try:
        found = load(Settings, env, tables(read_config(env, read), "client", "tui"))
    except SettingsError as problem:
        raise BadUsage(problem.name, f"{problem.name}: {problem.problem}", problem.remedy) from None
    sdk.checked(found)
    if found.coordinator_key and not _is_key(found.coordinator_key):
        raise BadUsage(
            "QUBIX_COORDINATOR_KEY",
            f"QUBIX_COORDINATOR_KEY: {found.coordinator_key[:80]!r} is no key",
            "Copy the 64 hex digits of coordinator_key from the coordinator's /api/v1/network",
        )
    return found


def _is_key(text: str) -> bool:
    return len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
