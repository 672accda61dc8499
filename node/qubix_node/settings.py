# SPDX-License-Identifier: Apache-2.0
"""What a node can be told from outside."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qubix_kernels.box.machine import WISHES
from qubix_mesh.addresses import parse_listen, parse_peer
from qubix_mesh.errors import BadAddress
from qubix_protocol import barriers
from qubix_protocol.settings import (
    SettingsError,
    coordinator_url_setting,
    http_port_setting,
    load_at_coordinator,
    read_config,
    setting,
    tables,
)
from qubix_protocol.units import NETWORKS, RATE_QU_PER_H_MAX, RENTAL_S_MAX, Network

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
GIB = 1024**3


def _default_data_dir() -> Path:
    return Path.home() / ".local/share/qubix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Parsed once at start by `from_environment`; tests construct it with keyword arguments."""

    data_dir: Path = setting(  # noqa: RUF009 - it returns a dataclass field
        "QUBIX_DATA_DIR",
        "Folder that holds everything this installation keeps; the node's part is `node` inside it.",
        default_factory=_default_data_dir,
        default_doc="~/.local/share/qubix",
    )
    key_file: Path | None = setting(  # noqa: RUF009 - as above
        "QUBIX_NODE_KEY_FILE",
        "File with the node's identity key, made at first start; empty: `node.key` in the data folder.",
        None,
    )
    coordinator_url: str = coordinator_url_setting("The coordinator's HTTP address.")
    http_port: int = http_port_setting()
    coordinator_key: str = setting(
        "QUBIX_COORDINATOR_KEY",
        "Public key of the coordinator to enrol with, 64 hexadecimal digits; empty: the one that its address gives at"
        " first contact.",
        "",
    )
    bootstrap: tuple[str, ...] = setting(
        "QUBIX_BOOTSTRAP",
        "Gateways and relays to dial first and to keep a connection to, as multiaddrs ending in /p2p/…; the coordinator"
        " names more.",
        (),
    )
    network: Network = setting("QUBIX_NETWORK", "Network to work for.", "devnet", choices=NETWORKS)  # noqa: RUF009
    devices: str = setting(
        "QUBIX_NODE_DEVICES",
        "What to offer: auto (GPUs, or the CPU where there is none), gpu, or cpu.",
        "auto",
        choices=("auto", "gpu", "cpu"),
    )
    rate_qu_per_h: int = setting(
        "QUBIX_NODE_RATE_QU_PER_H",
        "Price of one device for an hour, in QU.",
        100_000,
        minimum=0,
        maximum=RATE_QU_PER_H_MAX,
    )
    pairing_code: str = setting(
        "QUBIX_PAIRING_CODE",
        "Code of the account that this node is to belong to, made on the page Share my GPU; it serves once, within ten"
        " minutes, and counts when the node's fingerprint is confirmed there.",
        "",
        secret=True,
    )
    region: str = setting("QUBIX_NODE_REGION", "Region to offer in; empty: the one the coordinator gives.", "")
    country: str = setting(
        "QUBIX_NODE_COUNTRY",
        "Where this machine stands, as two letters of ISO 3166 (DE, US); empty: not said. The coordinator shows what it"
        " finds by the node's address instead, where it finds anything.",
        "",
    )
    notice_s: int = setting(
        "QUBIX_NODE_NOTICE_S",
        "How long before maintenance its owner promises to say so, in seconds; 0: no promise.",
        0,
        minimum=0,
        maximum=RENTAL_S_MAX,
    )
    relay: bool = setting(
        "QUBIX_NODE_RELAY",
        "Pass the offers of the whole region on to whoever connects, so that the market is seen with every gateway"
        " gone; needs QUBIX_NODE_LISTEN.",
        False,
    )
    announce: tuple[str, ...] = setting(
        "QUBIX_NODE_ANNOUNCE",
        "Multiaddrs under which others reach a relay, without a peer id; empty: those that it listens on.",
        (),
    )
    threads: int = setting(
        "QUBIX_NODE_THREADS", "Threads of a CPU kernel; 0: one for each core.", 0, minimum=0, maximum=1024
    )
    jobs_parallel: int = setting(
        "QUBIX_NODE_JOBS_PARALLEL", "Jobs one device runs at a time.", 1, minimum=1, maximum=64
    )
    memory_bytes: int = setting(
        "QUBIX_NODE_MEMORY_BYTES",
        "Most memory one worker may use; 0: three quarters of the machine's.",
        0,
        minimum=0,
    )
    box: str = setting(
        "QUBIX_NODE_BOX",
        "The box around jobs: auto (where this machine can make one, else limited child processes: the offer says it),"
        " require (do not start without), or limited (never).",
        "auto",
        choices=WISHES,
    )
    disk_bytes: int = setting(
        "QUBIX_NODE_DISK_BYTES", "Most disk for the inputs and results of running jobs.", 50 * GIB, minimum=1024
    )
    cache_bytes: int = setting(
        "QUBIX_NODE_CACHE_BYTES", "Disk for inputs kept after a job, for the next one.", 4 * GIB, minimum=0
    )
    listen: tuple[str, ...] = setting(
        "QUBIX_NODE_LISTEN", "Multiaddrs to listen on; none: the node only dials out.", ()
    )
    log_level: str = setting("QUBIX_LOG_LEVEL", "Least severe log lines to write.", "INFO", choices=LOG_LEVELS)
    allow_fallback_adapters: bool = setting(
        "QUBIX_ALLOW_FALLBACK_ADAPTERS",
        "Offer software that takes a GPU's place (lavapipe, SwiftShader) as if it were one, marked as such, for tests;"
        " never on the main network.",
        False,
    )
    barriers: Path | None = setting(  # noqa: RUF009 - it returns a dataclass field
        "QUBIX_BARRIERS",
        "Unix socket of a test that may hold this process at named steps of a job; never on the main network.",
        None,
    )
    key_log: Path | None = setting(  # noqa: RUF009 - it returns a dataclass field
        "QUBIX_NODE_KEY_LOG",
        "File that gets the keys of each control session, for a test that reads along; never on the main network.",
        None,
    )
    ready_fd: int | None = setting(
        "QUBIX_READY_FD", "File descriptor that gets one JSON line once the node is in the market.", None, minimum=0
    )

    @property
    def node_dir(self) -> Path:
        return self.data_dir / "node"

    @property
    def key_path(self) -> Path:
        return self.key_file or self.data_dir / "node.key"


def from_environment(overrides: Mapping[str, str]) -> Settings:
    """`overrides` are variables set on the command line. Raises `SettingsError`."""
    env = {**os.environ, **overrides}
    return from_mappings(env, read_config(env, lambda path: Path(path).read_text(encoding="utf-8")))


def from_mappings(env: Mapping[str, str], toml: Mapping[str, object]) -> Settings:
    """`toml` is the whole configuration file; the node's table is `[node]`."""
    settings = load_at_coordinator(Settings, env, tables(toml, "node"))
    if not re.fullmatch("([0-9a-f]{64})?", settings.coordinator_key):
        raise SettingsError(
            "QUBIX_COORDINATOR_KEY", "it is no key", "Write the 64 digits that GET /api/v1/network gives"
        )
    if problem := barriers.forbidden(settings.barriers, settings.network):
        raise SettingsError("QUBIX_BARRIERS", problem, "Leave it unset")
    if settings.key_log is not None and settings.network == "main":
        raise SettingsError("QUBIX_NODE_KEY_LOG", "keys of the main network are not written down", "Leave it unset")
    if settings.allow_fallback_adapters and settings.network == "main":
        raise SettingsError("QUBIX_ALLOW_FALLBACK_ADAPTERS", "software is no GPU on the main network", "Leave it unset")
    _check_addresses(settings)
    if settings.relay and not settings.listen:
        raise SettingsError(
            "QUBIX_NODE_RELAY", "a relay must be reached", "Set QUBIX_NODE_LISTEN, like /ip4/0.0.0.0/tcp/4001"
        )
    if not re.fullmatch("([A-Z]{2})?", settings.country):
        raise SettingsError("QUBIX_NODE_COUNTRY", f"{settings.country!r} is no country", "Write two letters, like DE")
    return settings


def _check_addresses(settings: Settings) -> None:
    for name, texts, parse in (
        ("QUBIX_BOOTSTRAP", settings.bootstrap, parse_peer),
        ("QUBIX_NODE_LISTEN", settings.listen, parse_listen),
        ("QUBIX_NODE_ANNOUNCE", settings.announce, parse_listen),
    ):
        for text in texts:
            try:
                parse(text)
            except BadAddress as error:
                raise SettingsError(name, str(error), "Write multiaddrs, separated by commas") from None
