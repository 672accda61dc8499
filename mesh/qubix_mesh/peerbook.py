# SPDX-License-Identifier: Apache-2.0
"""Addresses worth dialling again: what the mesh falls back on when every bootstrap address is gone."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qubix_mesh.addresses import PeerAddress, parse_peer
from qubix_mesh.errors import BadAddress
from qubix_mesh.files import replace_json

log = logging.getLogger("qubix_mesh")

PEERS_MAX: Final = 64
AGE_S_MAX: Final = 30 * 86_400
"""An address that did not answer for so long is somebody else's by now."""
_REFRESH_S: Final = 3600
_FILE_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Known:
    address: PeerAddress
    seen_s: int


class PeerBook:
    """Newest first, one address a peer, at most `PEERS_MAX`, none older than `AGE_S_MAX`. A damaged file is an empty
    book; the log says so. Threads may share one."""

    def __init__(self, path: Path, clock_s: Callable[[], float] = time.time) -> None:
        self._path, self._clock_s = path, clock_s
        self._known = _read(path, int(clock_s()))
        self._writing = threading.Lock()

    def remembered(self) -> tuple[str, ...]:
        return tuple(str(known.address) for known in self._fresh())

    def remember(self, address: str) -> None:
        """It answered now: put at the front and saved. Raises `BadAddress`, or OSError when the folder cannot be
        written."""
        new = _Known(parse_peer(address), int(self._clock_s()))
        with self._writing:
            self._remember(new)

    def _remember(self, new: _Known) -> None:
        if self._known and self._known[0].address == new.address and new.seen_s - self._known[0].seen_s < _REFRESH_S:
            return
        others = [known for known in self._fresh() if known.address.peer_id != new.address.peer_id]
        self._known = [new, *others][:PEERS_MAX]
        told = [{"address": str(one.address), "seen_s": one.seen_s} for one in self._known]
        replace_json(self._path, told)

    def to_dial(self, bootstrap: Iterable[str]) -> tuple[str, ...]:
        """The bootstrap addresses, then the remembered ones of other peers. Raises `BadAddress` for the former."""
        first = {address.peer_id: address for address in map(parse_peer, bootstrap)}
        rest = [known.address for known in self._fresh() if known.address.peer_id not in first]
        return tuple(str(address) for address in (*first.values(), *rest))

    def _fresh(self) -> list[_Known]:
        oldest_s = self._clock_s() - AGE_S_MAX
        return [known for known in self._known if known.seen_s >= oldest_s]


def _read(path: Path, now_s: int) -> list[_Known]:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return []
    try:
        return _unique(data, now_s)
    except (ValueError, BadAddress) as error:
        log.warning("mesh.peerbook_unreadable", extra={"path": str(path), "reason": str(error)})
        return []


def _unique(data: bytes, now_s: int) -> list[_Known]:
    if len(data) > _FILE_BYTES_MAX:
        raise BadAddress("the file is too large")
    loaded: Any = json.loads(data)
    if not isinstance(loaded, list):
        raise BadAddress("it is not a list of addresses")
    found = {known.address.peer_id: known for known in (_entry(one, now_s) for one in reversed(loaded[:PEERS_MAX]))}
    return list(reversed(found.values()))


def _entry(entry: Any, now_s: int) -> _Known:
    """A bare address was written before ages were kept, or by hand: as if it had answered just now. So is a time that
    has not come yet: the clock was wrong then or is now."""
    if isinstance(entry, str):
        return _Known(parse_peer(entry), now_s)
    if isinstance(entry, dict) and isinstance(entry.get("address"), str) and isinstance(entry.get("seen_s"), int):
        return _Known(parse_peer(entry["address"]), min(entry["seen_s"], now_s))
    raise BadAddress("it is not a list of addresses")
