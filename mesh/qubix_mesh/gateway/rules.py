# SPDX-License-Identifier: Apache-2.0
"""Pure decisions: how long a frame may wait for company, and how a batch is put together."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from qubix_protocol.link import FromGateway, FromPeer, Gossip, PeerDown, PeerUp

AT_ONCE_S: Final = 0.0
COALESCE_S: Final = 0.010
TELEMETRY_S: Final = 0.250
BATCH_ITEMS: Final = 64
BATCH_BYTES: Final = 1024 * 1024
FRAMES_PER_ITEM: Final = 256

_PATIENCE: Final = {"telemetry": TELEMETRY_S, "heartbeat": COALESCE_S}


def patience_s(envelope_type: str) -> float:
    """How long an envelope of this type may wait. Nothing overtakes: who waits leaves before whoever came later."""
    return _PATIENCE.get(envelope_type, AT_ONCE_S)


def is_telemetry(envelope_type: str) -> bool:
    return envelope_type == "telemetry"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to tell the coordinator: a change of a connection, or a frame of a node."""

    peer_id: str
    item: PeerUp | PeerDown | bytes
    telemetry: bool = False

    @property
    def size(self) -> int:
        return len(self.item) if isinstance(self.item, bytes) else 0


def assemble(entries: Iterable[Entry], gossip: Iterable[Gossip]) -> tuple[FromGateway, ...]:
    """Frames of one peer that follow each other become one item; the order within each peer is kept."""
    items: list[FromGateway] = []
    open_at: dict[str, int] = {}
    for entry in entries:
        at = open_at.get(entry.peer_id)
        if not isinstance(entry.item, bytes):
            open_at.pop(entry.peer_id, None)
            items.append(entry.item)
        elif at is not None and _has_room(items[at]):
            items[at] = _extended(items[at], entry.item)
        else:
            open_at[entry.peer_id] = len(items)
            items.append(FromPeer(peer_id=entry.peer_id, frames=(entry.item,)))
    return (*items, *gossip)


def _has_room(item: FromGateway) -> bool:
    return isinstance(item, FromPeer) and len(item.frames) < FRAMES_PER_ITEM


def _extended(item: FromGateway, frame: bytes) -> FromGateway:
    assert isinstance(item, FromPeer)
    return FromPeer(peer_id=item.peer_id, frames=(*item.frames, frame))
