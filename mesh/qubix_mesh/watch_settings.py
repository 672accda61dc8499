# SPDX-License-Identifier: Apache-2.0
"""What `qubix mesh` can be told from outside."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qubix_mesh.addresses import parse_peer
from qubix_mesh.errors import BadAddress
from qubix_protocol.settings import (
    SettingsError,
    coordinator_url_setting,
    http_port_setting,
    load_at_coordinator,
    read_config,
    setting,
    tables,
)
from qubix_protocol.units import NETWORKS, Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Parsed once at start by `from_environment`; tests construct it with keyword arguments."""

    network: Network = setting("QUBIX_NETWORK", "Network of the market.", "devnet", choices=NETWORKS)  # noqa: RUF009
    coordinator_url: str = coordinator_url_setting(
        "The coordinator's HTTP address: asked for its key and for whom to dial; what it said is remembered."
    )
    http_port: int = http_port_setting()
    coordinator_key: str = setting(
        "QUBIX_COORDINATOR_KEY",
        "The coordinator's public key, 64 hexadecimal digits, where the coordinator was never reached from here.",
        "",
    )
    bootstrap: tuple[str, ...] = setting(
        "QUBIX_BOOTSTRAP", "Multiaddrs of gateways or relays to dial first, with /p2p/<peer id>.", ()
    )
    data_dir: Path = setting(  # noqa: RUF009  it returns a dataclass field
        "QUBIX_DATA_DIR",
        "Folder for what is remembered; the watcher's part is `mesh` inside it.",
        default_factory=lambda: Path.home() / ".local/share/qubix",
        default_doc="~/.local/share/qubix",
    )

    @property
    def folder(self) -> Path:
        return self.data_dir / "mesh"


def from_mapping(env: Mapping[str, str], toml: Mapping[str, object] | None = None) -> Settings:
    """`toml` is the whole configuration file; the watcher's table is `[mesh]`. Raises `SettingsError`."""
    settings = load_at_coordinator(Settings, env, tables(toml or {}, "mesh"))
    if not re.fullmatch("([0-9a-f]{64})?", settings.coordinator_key):
        raise SettingsError(
            "QUBIX_COORDINATOR_KEY", "it is no key", "Copy the 64 digits that GET /api/v1/network shows"
        )
    for address in settings.bootstrap:
        try:
            parse_peer(address)
        except BadAddress as error:
            raise SettingsError("QUBIX_BOOTSTRAP", str(error), "Copy the address that a gateway prints") from error
    return settings


def from_environment() -> Settings:
    return from_mapping(os.environ, read_config(os.environ, lambda path: Path(path).read_text(encoding="utf-8")))
