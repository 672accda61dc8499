# SPDX-License-Identifier: Apache-2.0
"""What the SDK and the command line can be told from outside."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from qubix.errors import BadUsage
from qubix_protocol.settings import (
    SettingsError,
    coordinator_url_setting,
    http_port_setting,
    load,
    local_url,
    read_config,
    setting,
    tables,
)

TOKEN_FILE = "developer.token"  # noqa: S105  a file's name


def default_data_dir() -> Path:
    return Path("/var/lib/qubix") if os.geteuid() == 0 else Path.home() / ".local/share/qubix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Parsed once by `from_environment`; a `Client` also takes the URL, token and folder as arguments."""

    coordinator_url: str = coordinator_url_setting("The coordinator's HTTP address.")
    http_port: int = http_port_setting()
    token: str = setting(
        "QUBIX_TOKEN",
        "API token.",
        "",
        default_doc="that of the last sign-in, or the file developer.token in the data folder",
        secret=True,
    )
    data_dir: Path = setting(  # noqa: RUF009 - it returns a dataclass field
        "QUBIX_DATA_DIR",
        "Folder of the keys, the pinned coordinators and, on the market's own machine, the developer token.",
        default_factory=default_data_dir,
        default_doc="~/.local/share/qubix (/var/lib/qubix as root)",
    )
    qubic_url: tuple[str, ...] = setting(
        "QUBIX_QUBIC_URL",
        "Base addresses of the Qubic network's API, for payments from the wallet; with several, another one is asked"
        " when one does not answer.",
        (),
        default_doc="that of the market's network; a devnet is looked for on this machine",
    )
    wallet_passphrase: str = setting(
        "QUBIX_WALLET_PASSPHRASE",
        "Passphrase of the Qubic wallet, for scripts. A file or a descriptor shows it to fewer programs.",
        "",
        default_doc="asked for when it is needed",
        secret=True,
    )
    wallet_passphrase_file: Path | None = setting(  # noqa: RUF009 - it returns a dataclass field
        "QUBIX_WALLET_PASSPHRASE_FILE",
        "File (mode 600) with the passphrase of the Qubic wallet on its only line.",
        None,
    )
    wallet_passphrase_fd: int | None = setting(
        "QUBIX_WALLET_PASSPHRASE_FD", "File descriptor with the passphrase of the Qubic wallet.", None, minimum=0
    )
    connect_timeout_s: float = setting(
        "QUBIX_CONNECT_TIMEOUT_S", "Seconds to wait for a connection.", 5.0, minimum=0.1, maximum=300
    )
    timeout_s: float = setting(
        "QUBIX_TIMEOUT_S",
        "Seconds to wait for an answer, or for the next bytes of one.",
        30.0,
        minimum=0.1,
        maximum=3600,
    )
    tries_max: int = setting(
        "QUBIX_TRIES_MAX", "Times a request is sent before its failure is told.", 6, minimum=1, maximum=20
    )
    upload_part_bytes: int = setting(
        "QUBIX_UPLOAD_PART_BYTES",
        "Bytes of an input sent in one request.",
        8 * 1024 * 1024,
        minimum=1024,
        maximum=64 * 1024 * 1024,
    )

    ready_fd: int | None = setting(
        "QUBIX_READY_FD", "File descriptor that gets one JSON line once `qubix up` serves.", None, minimum=0
    )

    @property
    def url(self) -> str:
        return (self.coordinator_url or local_url(self.http_port)).rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether the address is this machine's own: then no proxy is asked."""
        host = urlsplit(self.url).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")


def from_environment() -> Settings:
    """Raises `BadUsage`, naming the variable."""
    return from_mapping(os.environ)


def outside() -> dict[str, str]:
    """The environment as it is now, for processes that are told what this one was told."""
    return dict(os.environ)


def _read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def from_mapping(env: Mapping[str, str], read: Callable[[str], str] = _read_text) -> Settings:
    """The table of the configuration file is `[client]`."""
    try:
        settings = load(Settings, env, tables(read_config(env, read), "client"))
    except SettingsError as problem:
        raise BadUsage(problem.name, f"{problem.name}: {problem.problem}", problem.remedy) from None
    return checked(settings)


def checked(settings: Settings) -> Settings:
    _check_address("QUBIX_COORDINATOR_URL", settings.url)
    for url in settings.qubic_url:
        _check_address("QUBIX_QUBIC_URL", url)
    return settings


def _check_address(name: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise BadUsage(name, f"{url!r} is no HTTP address", "Write it as https://host or http://host:port")
