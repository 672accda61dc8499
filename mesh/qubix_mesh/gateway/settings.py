# SPDX-License-Identifier: Apache-2.0
"""What the gateway can be told from outside."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qubix_mesh.addresses import parse_listen, parse_peer
from qubix_mesh.adverts import BURST, PER_S
from qubix_mesh.errors import BadAddress
from qubix_protocol.link import LINK_PATH
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


def default_data_dir() -> Path:
    return Path("/var/lib/qubix") if os.geteuid() == 0 else Path.home() / ".local/share/qubix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Parsed once at start by `from_environment`; tests construct it with keyword arguments."""

    token: str = setting(
        "QUBIX_GATEWAY_TOKEN", "Shared secret that admits this gateway to the coordinator.", secret=True
    )
    coordinator_url: str = coordinator_url_setting("Where the coordinator answers, http:// or https://.")
    http_port: int = http_port_setting()
    network: Network = setting(  # noqa: RUF009  it returns a dataclass field
        "QUBIX_NETWORK", "Network of the market; the coordinator must serve the same.", "devnet", choices=NETWORKS
    )
    listen: tuple[str, ...] = setting(
        "QUBIX_GATEWAY_LISTEN", "Multiaddrs to listen on for nodes, plain TCP.", ("/ip4/127.0.0.1/tcp/0",)
    )
    bootstrap: tuple[str, ...] = setting(
        "QUBIX_BOOTSTRAP", "Multiaddrs of other gateways or nodes to keep a connection to, with /p2p/<peer id>.", ()
    )
    data_dir: Path = setting(  # noqa: RUF009  it returns a dataclass field
        "QUBIX_DATA_DIR",
        "Folder for the key and the remembered addresses.",
        default_factory=default_data_dir,
        default_doc="~/.local/share/qubix (/var/lib/qubix as root)",
    )
    key_file_override: Path | None = setting(  # noqa: RUF009  it returns a dataclass field
        "QUBIX_GATEWAY_KEY_FILE",
        "File with the 32-byte Ed25519 seed; created with mode 0600 if it is missing.",
        None,
        default_doc="gateway.key in the data folder",
    )
    peers_max: int = setting("QUBIX_GATEWAY_PEERS_MAX", "Most nodes connected at once.", 300, minimum=1, maximum=10_000)
    first_word_s: float = setting(
        "QUBIX_GATEWAY_FIRST_WORD_S", "Seconds a node has to answer its challenge.", 30.0, minimum=0.05, maximum=3600
    )
    link_patience_s: float = setting(
        "QUBIX_GATEWAY_LINK_PATIENCE_S",
        "Seconds without the coordinator after which nodes are sent away, to find it through another gateway.",
        3.0,
        minimum=0.05,
        maximum=3600,
    )
    peer_frames_per_s: float = setting(
        "QUBIX_GATEWAY_PEER_FRAMES_PER_S",
        "Frames a second one node may send in the long run; beyond it, it is read more slowly.",
        200.0,
        minimum=1,
        maximum=100_000,
    )
    peer_frames_burst: int = setting(
        "QUBIX_GATEWAY_PEER_FRAMES_BURST", "Frames one node may send at once.", 400, minimum=1, maximum=100_000
    )
    peer_queue_frames: int = setting(
        "QUBIX_GATEWAY_PEER_QUEUE_FRAMES",
        "Frames that wait for one node, each way; a node over it is disconnected.",
        256,
        minimum=1,
        maximum=100_000,
    )
    queue_bytes_max: int = setting(
        "QUBIX_GATEWAY_QUEUE_BYTES_MAX",
        "Bytes that wait for the coordinator, over all nodes.",
        16 * 1024 * 1024,
        minimum=1024 * 1024,
        maximum=1024**3,
    )
    gossip_queue: int = setting(
        "QUBIX_GATEWAY_GOSSIP_QUEUE",
        "Gossip messages that wait; the newest are kept.",
        2048,
        minimum=1,
        maximum=100_000,
    )
    gossip_per_s: float = setting(
        "QUBIX_GATEWAY_GOSSIP_PER_S",
        "Gossip messages a second accepted of one author in the long run.",
        PER_S,
        minimum=0.01,
        maximum=1000,
    )
    gossip_burst: int = setting(
        "QUBIX_GATEWAY_GOSSIP_BURST",
        "Gossip messages accepted of one author at once.",
        BURST,
        minimum=1,
        maximum=10_000,
    )
    log_level: str = setting(
        "QUBIX_LOG_LEVEL", "Least severe log lines to write.", "INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR")
    )
    ready_fd: int | None = setting(
        "QUBIX_READY_FD", "File descriptor that gets one JSON line once the process serves.", None, minimum=0
    )

    @property
    def key_file(self) -> Path:
        return self.key_file_override or self.data_dir / "gateway.key"

    @property
    def pin_file(self) -> Path:
        return self.data_dir / "coordinator.json"

    @property
    def link_url(self) -> str:
        scheme, _, rest = self.coordinator_url.partition("://")
        return f"{'wss' if scheme == 'https' else 'ws'}://{rest.rstrip('/')}{LINK_PATH}"


def from_mapping(env: Mapping[str, str], toml: Mapping[str, object] | None = None) -> Settings:
    """`toml` is the whole configuration file; the gateway's table is `[gateway]`.

    Raises `SettingsError`, also for an address that cannot be one.
    """
    settings = load_at_coordinator(Settings, env, tables(toml or {}, "gateway"))
    _check("QUBIX_GATEWAY_LISTEN", settings.listen, parse_listen, "Give plain TCP addresses like /ip4/0.0.0.0/tcp/4001")
    _check("QUBIX_BOOTSTRAP", settings.bootstrap, parse_peer, "Copy the address that the other gateway prints")
    return settings


def _check(name: str, addresses: tuple[str, ...], parse: object, remedy: str) -> None:
    assert callable(parse)
    for address in addresses:
        try:
            parse(address)
        except BadAddress as error:
            raise SettingsError(name, str(error), remedy) from error


def from_environment() -> Settings:
    return from_mapping(os.environ, read_config(os.environ, lambda path: Path(path).read_text(encoding="utf-8")))
