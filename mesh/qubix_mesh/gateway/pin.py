# SPDX-License-Identifier: Apache-2.0
"""Whose certificates this gateway believes: the key of the coordinator that it was linked with first, and its regions,
so that a gateway that starts while the coordinator is away relays offers all the same."""

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from qubix_mesh.gateway.errors import BadPin
from qubix_protocol.units import Network

log = logging.getLogger("qubix_gateway")


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    network: Network
    coordinator_key: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    topics: tuple[str, ...] = ()

    @property
    def key(self) -> bytes:
        return bytes.fromhex(self.coordinator_key)


def load(path: Path, network: Network) -> Pin | None:
    """None before the first link, or when the file is of another network. Raises `BadPin`: whom to believe must be a
    person's choice."""
    try:
        pin = msgspec.json.decode(path.read_bytes(), type=Pin)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadPin(f"{path} cannot be read ({error}). Delete it to trust the coordinator anew.") from error
    return pin if pin.network == network else None


def save(path: Path, pin: Pin) -> None:
    """A disk that cannot be written costs no more than the memory of it: the log says so."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w") as file:
            json.dump(msgspec.to_builtins(pin), file, indent=1)
        Path(name).replace(path)
    except OSError as error:
        log.warning("gateway.pin_not_saved", extra={"reason": str(error)})
