# SPDX-License-Identifier: Apache-2.0
"""Addresses worth dialling again: what the mesh falls back on when every bootstrap address is gone."""

import json
import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from qubix_mesh.addresses import PeerAddress, parse_peer
from qubix_mesh.errors import BadAddress

log = logging.getLogger("qubix_mesh")

PEERS_MAX: Final = 64
_FILE_BYTES_MAX: Final = 64 * 1024


class PeerBook:
    """Newest first, one address a peer, at most `PEERS_MAX`. A damaged file is an empty book; the log says so."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)

    def remembered(self) -> tuple[str, ...]:
        return tuple(str(address) for address in self._known)

    def remember(self, address: str) -> None:
        """Put at the front and saved. Raises `BadAddress`, or OSError when the folder cannot be written."""
        new = parse_peer(address)
        if self._known[:1] == [new]:
            return
        others = [known for known in self._known if known.peer_id != new.peer_id]
        self._known = [new, *others][:PEERS_MAX]
        _write(self._path, self._known)

    def to_dial(self, bootstrap: Iterable[str]) -> tuple[str, ...]:
        """The bootstrap addresses, then the remembered ones of other peers. Raises `BadAddress` for the former."""
        first = {address.peer_id: address for address in map(parse_peer, bootstrap)}
        rest = [known for known in self._known if known.peer_id not in first]
        return tuple(str(address) for address in (*first.values(), *rest))


def _read(path: Path) -> list[PeerAddress]:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return []
    try:
        return _unique(data)
    except (ValueError, BadAddress) as error:
        log.warning("mesh.peerbook_unreadable", extra={"path": str(path), "reason": str(error)})
        return []


def _unique(data: bytes) -> list[PeerAddress]:
    if len(data) > _FILE_BYTES_MAX:
        raise BadAddress("the file is too large")
    loaded: Any = json.loads(data)
    if not isinstance(loaded, list) or not all(isinstance(text, str) for text in loaded):
        raise BadAddress("it is not a list of addresses")
    found = {address.peer_id: address for address in map(parse_peer, reversed(loaded[:PEERS_MAX]))}
    return list(reversed(found.values()))


def _write(path: Path, known: list[PeerAddress]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump([str(address) for address in known], file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
