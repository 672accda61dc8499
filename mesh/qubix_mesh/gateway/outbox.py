# SPDX-License-Identifier: Apache-2.0
"""What waits for the coordinator: one line in order for connections and frames, and the newest gossip beside it."""

from collections import Counter, deque
from itertools import islice

import trio

from qubix_mesh.gateway import rules
from qubix_mesh.gateway.rules import Entry
from qubix_mesh.queues import NewestQueue
from qubix_protocol.link import FromGateway, Gossip, PeerDown, PeerUp


class Outbox:
    """Bounded per peer and over all. Control over its bound is refused; telemetry and gossip keep the newest."""

    def __init__(self, *, frames_per_peer: int, bytes_max: int, gossip_max: int) -> None:
        self._frames_per_peer = frames_per_peer
        self._bytes_max = bytes_max
        self._line: deque[Entry] = deque()
        self._waiting: Counter[str] = Counter()
        self._bytes = 0
        self._gossip: NewestQueue[Gossip] = NewestQueue(gossip_max)
        self._due_s = float("inf")
        self._changed = trio.Event()
        self.telemetry_dropped = 0

    def __len__(self) -> int:
        return len(self._line) + len(self._gossip)

    @property
    def gossip_dropped(self) -> int:
        return self._gossip.dropped

    def put_change(self, change: PeerUp | PeerDown) -> None:
        """Always accepted: at most two a connection, and connections are bounded."""
        self._line.append(Entry(change.peer_id, change))
        self._wake(rules.AT_ONCE_S)

    def put_frame(self, peer_id: str, frame: bytes, envelope_type: str) -> bool:
        """False when it is refused: its peer must be disconnected, so that it starts afresh."""
        entry = Entry(peer_id, frame, rules.is_telemetry(envelope_type))
        if not self._has_room(entry) and not (entry.telemetry and self._forget_telemetry(peer_id)):
            self.telemetry_dropped += entry.telemetry
            return entry.telemetry
        self._line.append(entry)
        self._waiting[peer_id] += 1
        self._bytes += entry.size
        self._wake(rules.patience_s(envelope_type))
        return True

    def put_gossip(self, message: Gossip) -> None:
        self._gossip.put(message)
        self._wake(rules.TELEMETRY_S)

    def clear(self) -> None:
        """For a link that is gone: what waited was said in sessions that are over."""
        self._line.clear()
        self._waiting.clear()
        self._gossip.take_all()
        self._bytes = 0
        self._due_s = float("inf")

    async def next_batch(self) -> tuple[FromGateway, ...]:
        """Waits until something is due or a batch is full; never empty."""
        while not self._ready():
            with trio.move_on_at(self._due_s):
                await self._changed.wait()
        return rules.assemble(self._take_line(), self._take_gossip())

    def _ready(self) -> bool:
        return len(self) > 0 and (trio.current_time() >= self._due_s or len(self) >= rules.BATCH_ITEMS)

    def _take_line(self) -> list[Entry]:
        taken: list[Entry] = []
        size = 0
        while self._line and len(taken) < rules.BATCH_ITEMS and (not taken or size < rules.BATCH_BYTES):
            entry = self._line.popleft()
            size += entry.size
            taken.append(entry)
            self._forget(entry)
        if not self._line:
            self._due_s = float("inf")
        return taken

    def _take_gossip(self) -> list[Gossip]:
        waiting = self._gossip.take_all()
        taken = list(islice(waiting, rules.BATCH_ITEMS))
        for message in waiting[len(taken) :]:
            self.put_gossip(message)
        return taken

    def _has_room(self, entry: Entry) -> bool:
        return self._waiting[entry.peer_id] < self._frames_per_peer and self._bytes + entry.size <= self._bytes_max

    def _forget_telemetry(self, peer_id: str) -> bool:
        """Makes room for the peer's newest sample by its oldest one."""
        for place, entry in enumerate(self._line):
            if entry.telemetry and entry.peer_id == peer_id:
                del self._line[place]
                self._forget(entry)
                self.telemetry_dropped += 1
                return True
        return False

    def _forget(self, entry: Entry) -> None:
        if not isinstance(entry.item, bytes):
            return
        self._bytes -= entry.size
        self._waiting[entry.peer_id] -= 1
        if self._waiting[entry.peer_id] <= 0:
            del self._waiting[entry.peer_id]

    def _wake(self, patience_s: float) -> None:
        self._due_s = min(self._due_s, trio.current_time() + patience_s)
        self._changed.set()
        self._changed = trio.Event()
