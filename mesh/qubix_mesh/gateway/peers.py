# SPDX-License-Identifier: Apache-2.0
"""The nodes connected to this gateway: one control stream each, read with limits and written from a bounded queue."""

import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import trio

from qubix_mesh.errors import FrameTooLarge, MeshError, MeshTimeout
from qubix_mesh.gateway.outbox import Outbox
from qubix_mesh.gateway.settings import Settings
from qubix_mesh.port import Stream
from qubix_mesh.rules import TokenBucket
from qubix_protocol.channel import label_of
from qubix_protocol.link import PeerDown, PeerUp
from qubix_protocol.units import FRAME_BYTES_MAX

log = logging.getLogger("qubix_gateway")

SEND_S: Final = 5.0


class Peer:
    """One node's stream. Ends when `scope` is cancelled, the stream breaks, or its queue is over its bound."""

    def __init__(self, stream: Stream, queue_frames: int) -> None:
        self.stream = stream
        self.scope = trio.CancelScope()
        self.spoke = False
        self._queue_frames = queue_frames
        self._queue: deque[bytes] = deque()
        self._changed = trio.Event()
        self._leaving = False

    @property
    def peer_id(self) -> str:
        return self.stream.peer_id

    def put(self, frame: bytes) -> bool:
        """False when the node takes frames too slowly: it must be disconnected."""
        if len(self._queue) >= self._queue_frames:
            return False
        self._queue.append(frame)
        self._changed.set()
        return True

    def leave_after_queue(self) -> None:
        """What was queued is still sent, then the stream is closed."""
        self._leaving = True
        self._changed.set()

    async def write(self) -> None:
        """Sends what is queued until told to leave. Raises a `MeshError` when the node is gone or does not read."""
        while self._queue or not self._leaving:
            if not self._queue:
                self._changed = trio.Event()
                await self._changed.wait()
                continue
            await self.stream.send(self._queue.popleft(), timeout_s=SEND_S)
        await self.stream.close()


class Peers:
    """All nodes. `counts` says why nodes were refused or dropped, since the start."""

    def __init__(self, settings: Settings, outbox: Outbox, remote_ip: Callable[[str], str]) -> None:
        self._settings, self._remote_ip = settings, remote_ip
        self._outbox = outbox
        self._peers: dict[str, Peer] = {}
        self._link_up = trio.Event()
        self._link_down = trio.Event()
        self._alone_since_s = trio.current_time()
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, peer_id: str) -> bool:
        return peer_id in self._peers

    def link_is_up(self) -> None:
        """Tell the coordinator of everybody: it will challenge each again."""
        self._outbox.clear()
        for peer in self._peers.values():
            peer.spoke = False
            self._outbox.put_change(self._up(peer))
        self._link_down = trio.Event()
        self._link_up.set()

    def link_is_down(self) -> None:
        """Streams stay open for a while; what nodes say is dropped, and said again after their next challenge."""
        self._outbox.clear()
        self._alone_since_s = trio.current_time()
        self._link_up = trio.Event()
        self._link_down.set()

    def to_peer(self, peer_id: str, frames: tuple[bytes, ...]) -> None:
        peer = self._peers.get(peer_id)
        if peer is None:
            self.counts["frames_for_nobody"] += len(frames)
        elif not all(peer.put(frame) for frame in frames):
            self._drop(peer, "outgoing_overflow")

    def drop(self, peer_id: str, reason: str) -> None:
        """The coordinator's wish: what it said before still goes out."""
        peer = self._peers.get(peer_id)
        if peer is not None:
            log.info("gateway.peer_dropped", extra={"peer": peer_id, "reason": reason})
            self.counts["dropped_by_coordinator"] += 1
            peer.leave_after_queue()

    def _drop(self, peer: Peer, why: str) -> None:
        log.info("gateway.peer_dropped", extra={"peer": peer.peer_id, "reason": why})
        self.counts[why] += 1
        peer.scope.cancel()

    async def serve(self, stream: Stream) -> None:
        """The handler of control streams. A node that comes again replaces its old stream."""
        if self._patience_s() == 0:
            self.counts["refused_no_coordinator"] += 1
            await stream.abort()
            return
        earlier = self._peers.get(stream.peer_id)
        if earlier is None and len(self._peers) >= self._settings.peers_max:
            self.counts["refused_full"] += 1
            await stream.abort()
            return
        if earlier is not None:
            self._remove(earlier)
            self._drop(earlier, "replaced")
        await self._serve(Peer(stream, self._settings.peer_queue_frames))

    async def _serve(self, peer: Peer) -> None:
        self._peers[peer.peer_id] = peer
        log.info("gateway.peer_up", extra={"peer": peer.peer_id})
        if self._link_up.is_set():
            self._outbox.put_change(self._up(peer))
        try:
            with peer.scope:
                async with trio.open_nursery() as nursery:
                    for task in (self._read, self._write, self._watch):
                        nursery.start_soon(task, peer)
        finally:
            self._remove(peer)
            await peer.stream.abort()
            log.info("gateway.peer_down", extra={"peer": peer.peer_id})

    def _up(self, peer: Peer) -> PeerUp:
        return PeerUp(peer_id=peer.peer_id, address=self._remote_ip(peer.peer_id)[:64])

    def _remove(self, peer: Peer) -> None:
        if self._peers.get(peer.peer_id) is peer:
            del self._peers[peer.peer_id]
            if self._link_up.is_set():
                self._outbox.put_change(PeerDown(peer_id=peer.peer_id))

    async def _write(self, peer: Peer) -> None:
        try:
            await peer.write()
        except MeshTimeout:
            self._drop(peer, "does_not_read")
        except MeshError as error:
            log.debug("gateway.stream_ended", extra={"peer": peer.peer_id, "reason": str(error)})
        # After a close, what was sent still arrives: the end of the stream was announced behind it.
        peer.scope.cancel()

    async def _read(self, peer: Peer) -> None:
        settings = self._settings
        bucket = TokenBucket.full(settings.peer_frames_per_s, settings.peer_frames_burst, trio.current_time())
        try:
            while True:
                frame = await peer.stream.receive(limit_bytes=FRAME_BYTES_MAX, timeout_s=None)
                await self._throttle(bucket)
                self._take(peer, frame)
        except FrameTooLarge:
            self._drop(peer, "frame_too_large")
        except MeshError as error:
            log.debug("gateway.stream_ended", extra={"peer": peer.peer_id, "reason": str(error)})
            peer.scope.cancel()

    async def _throttle(self, bucket: TokenBucket) -> None:
        """A node that sends too fast is not read for a while: its own sends then wait, and nothing is lost."""
        while not bucket.take(trio.current_time()):
            self.counts["throttled"] += 1
            await trio.sleep(1 / self._settings.peer_frames_per_s)

    def _take(self, peer: Peer, frame: bytes) -> None:
        label = label_of(frame)
        if not label:
            self._drop(peer, "malformed")
            return
        peer.spoke = True
        if not self._link_up.is_set():
            self.counts["frames_while_down"] += 1
        elif not self._outbox.put_frame(peer.peer_id, frame, label):
            self._drop(peer, "incoming_overflow")

    def _patience_s(self) -> float:
        """How long a node may still wait here for the coordinator."""
        if self._link_up.is_set():
            return self._settings.link_patience_s
        return max(0.0, self._alone_since_s + self._settings.link_patience_s - trio.current_time())

    async def _watch(self, peer: Peer) -> None:
        """The first word must come while the coordinator can be heard: a node speaks when it is challenged, after each
        new link. A gateway that has lost the coordinator is in nobody's way to another one."""
        while True:
            with trio.move_on_after(self._patience_s()):
                await self._link_up.wait()
            if not self._link_up.is_set():
                self._drop(peer, "no_coordinator")
                return
            link_down = self._link_down
            with trio.move_on_after(self._settings.first_word_s):
                await link_down.wait()
            if not link_down.is_set() and not peer.spoke:
                self._drop(peer, "never_spoke")
            await link_down.wait()
