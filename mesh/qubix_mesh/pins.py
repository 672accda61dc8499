# SPDX-License-Identifier: Apache-2.0
"""Whose certificates are believed, in a small file: the coordinator's key that was met first, and what goes with it."""

import logging
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from qubix_mesh.errors import BadPin
from qubix_mesh.files import replace_json
from qubix_protocol.units import Network

log = logging.getLogger("qubix_mesh")


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """Subclasses keep more beside it."""

    network: Network
    coordinator_key: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

    @property
    def key(self) -> bytes:
        return bytes.fromhex(self.coordinator_key)


P = TypeVar("P", bound=Pin)


def load(path: Path, kind: type[P], network: Network) -> P | None:
    """None when nothing was kept of this network. Raises `BadPin` for a damaged file: whom to believe must be a
    person's choice."""
    try:
        pin = msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadPin(f"{path} cannot be read ({error}). Delete it to trust the coordinator anew.") from error
    return pin if pin.network == network else None


def save(path: Path, pin: Pin) -> None:
    """A disk that cannot be written costs no more than the memory of it: the log says so."""
    try:
        replace_json(path, msgspec.to_builtins(pin))
    except OSError as error:
        log.warning("mesh.pin_not_saved", extra={"path": str(path), "reason": str(error)})
