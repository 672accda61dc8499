# SPDX-License-Identifier: Apache-2.0
"""What the chain process can be told from outside: the coordinator's settings, and its own."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from qubix_coordinator.settings import EXIT_BAD_SETTINGS, Settings, read_text, refuse_barriers
from qubix_protocol.settings import SettingsError, load, read_config, setting, tables


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSettings(Settings):
    master_file: Path | None = setting(  # noqa: RUF009 - it returns a dataclass field
        "QUBIX_MASTER_FILE",
        "File of the master secret that every key to QU follows from; made at the first start, mode 0600. Empty:"
        " treasury.master in the data folder.",
        None,
    )
    deposit_sources: int = setting(
        "QUBIX_DEPOSIT_SOURCES",
        "How many of the addresses in QUBIX_QUBIC_URL must tell the same before a deposit is credited or a withdrawal"
        " is taken for done: 1 or 2.",
        1,
        choices=(1, 2),
    )
    chain_poll_ms: int = setting(
        "QUBIX_CHAIN_POLL_MS",
        "Milliseconds between looks at the network's tick.",
        500,
        minimum=10,
        maximum=60_000,
    )

    @property
    def master_path(self) -> Path:
        return self.master_file or self.data_dir / "treasury.master"


def from_mappings(env: Mapping[str, str], toml: Mapping[str, object]) -> ChainSettings:
    """The coordinator's table with the chain process's own on top. Raises SettingsError."""
    settings = load(ChainSettings, env, tables(toml, "coordinator", "chain"))
    refuse_barriers(settings)
    if not settings.qubic_url:
        raise SettingsError(
            "QUBIX_QUBIC_URL",
            "is empty, so there is no network to watch",
            "Name one, such as https://rpc.qubic.org, or start a local one with `qubix devnet`",
        )
    for url in settings.qubic_url:
        _check_url(url)
    if len(settings.qubic_url) < settings.deposit_sources:
        raise SettingsError(
            "QUBIX_DEPOSIT_SOURCES",
            f"{settings.deposit_sources} sources must agree, and QUBIX_QUBIC_URL names {len(settings.qubic_url)}",
            "Name a second address there, of somebody else, or set this to 1",
        )
    return settings


def _check_url(text: str) -> None:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError("QUBIX_QUBIC_URL", f"{text[:200]!r} is not an http address", "Write it as https://host")


def from_environment_or_exit() -> ChainSettings:
    """A bad setting is one line on standard error and exit status 2."""
    try:
        return from_mappings(os.environ, read_config(os.environ, read_text))
    except SettingsError as problem:
        print(f"qubix: {problem}", file=sys.stderr)
        raise SystemExit(EXIT_BAD_SETTINGS) from None
