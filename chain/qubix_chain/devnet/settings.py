# SPDX-License-Identifier: Apache-2.0
"""What the devnet can be told from outside."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qubix_chain.devnet import faults, rules
from qubix_chain.devnet.clock import TICK_MS_MAX, TICK_MS_MIN
from qubix_protocol.settings import SettingsError, load, read_config, setting, tables
from qubix_protocol.units import NETWORKS, Network


def default_data_dir() -> Path:
    return Path("/var/lib/qubix") if os.geteuid() == 0 else Path.home() / ".local/share/qubix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Parsed once at start by `from_environment`; tests construct it with keyword arguments."""

    port: int = setting(
        "QUBIX_DEVNET_PORT", "Port of 127.0.0.1 to answer on; 0 takes a free one.", 8610, minimum=0, maximum=65535
    )
    tick_ms: int = setting(
        "QUBIX_DEVNET_TICK_MS", "Milliseconds that a tick takes.", 1000, minimum=TICK_MS_MIN, maximum=TICK_MS_MAX
    )
    paused: bool = setting(
        "QUBIX_DEVNET_PAUSED", "Whether the clock stands until it is told to go on or to step.", False
    )
    archive_lag: int = setting(
        "QUBIX_DEVNET_ARCHIVE_LAG", "Final ticks that the archive does not tell yet.", 2, minimum=0, maximum=10_000
    )
    tick_slots: int = setting(
        "QUBIX_DEVNET_TICK_SLOTS",
        "Most transactions in one tick; beyond it the lowest priority goes.",
        rules.TICK_SLOTS,
        minimum=1,
        maximum=rules.TICK_SLOTS,
    )
    seed: int = setting(
        "QUBIX_DEVNET_SEED",
        "Draws the faults and the faucet's identity; the same seed gives the same history.",
        0,
        minimum=0,
        maximum=2**53,
    )
    fault_rates: tuple[str, ...] = setting(
        "QUBIX_DEVNET_FAULTS", "Faults by their rate, such as empty_tick=0.02,drop_transaction=0.01.", ()
    )
    network: Network = setting(  # noqa: RUF009  it returns a dataclass field
        "QUBIX_NETWORK", "Network of the market; a devnet serves no other than its own.", "devnet", choices=NETWORKS
    )
    data_dir: Path = setting(  # noqa: RUF009  it returns a dataclass field
        "QUBIX_DATA_DIR",
        "Folder that keeps the devnet's ledger, in devnet/.",
        default_factory=default_data_dir,
        default_doc="~/.local/share/qubix (/var/lib/qubix as root)",
    )
    log_level: str = setting(
        "QUBIX_LOG_LEVEL", "Least severe log lines to write.", "INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR")
    )
    ready_fd: int | None = setting(
        "QUBIX_READY_FD", "File descriptor that gets one JSON line once the process serves.", None, minimum=0
    )

    @property
    def ledger_file(self) -> Path:
        return self.data_dir / "devnet" / "ledger.sqlite"

    @property
    def rates(self) -> dict[faults.Fault, float]:
        return faults.parse_rates(self.fault_rates)


def from_mapping(env: Mapping[str, str], toml: Mapping[str, object] | None = None) -> Settings:
    """`toml` is the whole configuration file; the devnet's table is `[devnet]`. Raises `SettingsError`."""
    settings = load(Settings, env, tables(toml or {}, "devnet"))
    if settings.network != "devnet":
        raise SettingsError(
            "QUBIX_NETWORK",
            f"a devnet never serves a market of the network {settings.network!r}",
            "Set QUBIX_QUBIC_URL to that network's address, or QUBIX_NETWORK to devnet",
        )
    try:
        faults.parse_rates(settings.fault_rates)
    except ValueError as problem:
        raise SettingsError("QUBIX_DEVNET_FAULTS", str(problem), "Write it as empty_tick=0.02,no_peers=0.1") from None
    return settings


def from_environment() -> Settings:
    return from_mapping(os.environ, read_config(os.environ, lambda path: Path(path).read_text(encoding="utf-8")))
