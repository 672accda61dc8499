# SPDX-License-Identifier: Apache-2.0
"""Which coordinator was met at which address: the key is remembered at the first meeting and another one is refused."""

from pathlib import Path
from typing import Final

import msgspec

from qubix.errors import CoordinatorChanged, KeyFileRefused
from qubix.files import read_private, replace_private
from qubix_protocol.api import NetworkView
from qubix_protocol.units import Network

PINS_FILE: Final = "coordinators.json"


class Pin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    network: Network
    coordinator_key: str


def check(data_dir: Path, url: str, view: NetworkView) -> None:
    """Raises `CoordinatorChanged`; remembers an address that is new."""
    path = data_dir / PINS_FILE
    pins = _read(path)
    found = Pin(view.network, view.coordinator_key)
    known = pins.get(url)
    if known is None:
        replace_private(path, msgspec.json.format(msgspec.json.encode(pins | {url: found})))
    elif known != found:
        raise CoordinatorChanged(
            f"the coordinator at {url} is not the one of before (key {found.coordinator_key[:16]}… on {found.network}; "
            f"remembered {known.coordinator_key[:16]}… on {known.network}): nothing was sent to it",
            remedy=f"If the market was set up anew, remove {url} from {path}; otherwise somebody else answers there.",
        )


def known_keys(data_dir: Path) -> frozenset[str]:
    """The keys, in hex, of every coordinator that was met from here."""
    return frozenset(pin.coordinator_key for pin in _read(data_dir / PINS_FILE).values())


def pinned(data_dir: Path, url: str) -> Pin | None:
    """The coordinator that was met at this address; None: none was."""
    return _read(data_dir / PINS_FILE).get(url)


def _read(path: Path) -> dict[str, Pin]:
    content = read_private(path)
    if content is None:
        return {}
    try:
        return msgspec.json.decode(content, type=dict[str, Pin])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KeyFileRefused(f"{path} cannot be read ({error})", remedy=f"Correct {path}, or move it away.") from None
