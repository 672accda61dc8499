# SPDX-License-Identifier: Apache-2.0
"""One libp2p connection made safe: whole writes, bounded memory, a heartbeat, a limit on streams.

Written against libp2p 0.8.1 and pinned to it: the overridden methods are named in mesh/README.md.
"""

import logging
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.network.connection.exceptions import RawConnError
from libp2p.peer.id import ID
from libp2p.rcmgr import Direction, ResourceLimits, ResourceManager
from libp2p.rcmgr.connection_limits import ConnectionLimits
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux.yamux import FLAG_SYN, TYPE_PING, YAMUX_HEADER_FORMAT, Yamux
from libp2p.transport.upgrader import TransportUpgrader

from qubix_mesh.errors import StreamClosed

log = logging.getLogger("qubix_mesh")

WRITE_S: Final = 2.0
"""How long the network may take one frame of at most 64 KiB before the connection counts as dead."""
BUFFERED_BYTES_MAX: Final = 16 * 1024 * 1024
"""Unread bytes on one connection, over all its streams; Yamux itself only warns when a peer ignores its window."""
STREAMS_PER_PEER_MAX: Final = 128


@dataclass(frozen=True, slots=True)
class Health:
    """Every `interval_s` the peer has `ping_s` to answer; after `misses` silences in a row the connection is closed."""

    interval_s: float = 3.0
    ping_s: float = 2.0
    misses: int = 2


class WatchedYamux(Yamux):
    """Yamux that notices a silent peer and never leaves half a frame on the wire."""

    health = Health()

    async def _write_frame(self, data: bytes) -> None:
        """One frame, whole or never again.

        A write given up half-way would break the Noise stream for everybody on this connection, so cancellation waits
        for it; a peer that takes nothing for `WRITE_S` loses the connection.
        """
        async with self._write_lock:
            if self.event_closed.is_set():
                raise RawConnError("the connection is closed")
            with trio.CancelScope(shield=True, deadline=trio.current_time() + WRITE_S) as scope:
                await self.secured_conn.write(data)
            if scope.cancelled_caught:
                await self._give_up("the peer takes no bytes")
                raise RawConnError("the connection was given up: its peer takes no bytes")

    async def _give_up(self, reason: str) -> None:
        log.info("mesh.connection_given_up", extra={"peer": str(self.peer_id), "reason": reason})
        self.event_shutting_down.set()
        with trio.CancelScope(shield=True):
            await self.secured_conn.close()

    async def _measure_rtt_loop(self) -> None:
        """libp2p measures here every 30 s and draws no conclusion."""
        misses = 0
        while not self.event_shutting_down.is_set():
            await trio.sleep(self.health.interval_s if misses == 0 else 0)
            misses = 0 if await self._answers_ping() else misses + 1
            if misses >= self.health.misses:
                await self._give_up("no answer to pings")
                return

    async def _answers_ping(self) -> bool:
        self._ping_id = (self._ping_id + 1) % 2**32
        self._ping_event = trio.Event()
        try:
            await self._write_frame(struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_PING, FLAG_SYN, 0, self._ping_id))
        except (RawConnError, OSError):
            return False
        self._ping_sent_time = trio.current_time()
        with trio.move_on_after(self.health.ping_s) as scope:
            await self._ping_event.wait()
        return not scope.cancelled_caught

    def rtt(self) -> float:
        """Next to nothing, so that no receive window grows to 16 MiB: control streams need no such memory."""
        return 1e-9

    async def _read_data_body(self, length: int) -> bytes:
        held = sum(len(buffer) for buffer in self.stream_buffers.values())
        if held + length > BUFFERED_BYTES_MAX:
            await self._give_up(f"{held + length} unread bytes")
            raise RawConnError("the peer ignores its receive windows")
        return await super()._read_data_body(length)


class Upgrader(TransportUpgrader):
    """Negotiates as libp2p does, then takes the muxer above (libp2p names its own class and would ignore ours)."""

    health = Health()

    async def upgrade_connection(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        await super().upgrade_connection(conn, peer_id)
        muxer = WatchedYamux(conn, peer_id, is_initiator=conn.is_initiator)
        muxer.health = self.health
        return muxer


class PeerLimits(ResourceManager):
    """Counts connections and each peer's streams.

    The rest of libp2p's manager is off: five refusals open its circuit breaker for everybody, and its memory check
    looks at the whole machine.
    """

    def __init__(self, connections_max: int) -> None:
        super().__init__(
            limits=ResourceLimits(max_connections=2 * connections_max, max_streams=1_000_000),
            connection_limits=ConnectionLimits(),
            enable_metrics=False,
            enable_memory_limits=False,
            enable_circuit_breaker=False,
            enable_graceful_degradation=False,
            enable_rate_limiting=False,
        )
        self._inbound: Counter[str] = Counter()

    def acquire_stream(self, peer_id: str, direction: Direction) -> bool:
        inbound = direction == Direction.INBOUND
        if inbound and self._inbound[peer_id] >= STREAMS_PER_PEER_MAX:
            return False
        granted = super().acquire_stream(peer_id, direction)
        if granted and inbound:
            self._inbound[peer_id] += 1
        return bool(granted)

    def release_stream(self, peer_id: str, direction: Direction) -> None:
        super().release_stream(peer_id, direction)
        if direction == Direction.INBOUND:
            self._inbound[peer_id] -= 1
            if self._inbound[peer_id] <= 0:
                del self._inbound[peer_id]


class YamuxPipe:
    """A libp2p stream as a `framing.BytePipe`."""

    def __init__(self, net_stream: Any) -> None:
        self._net = net_stream
        self._muxed = net_stream.muxed_stream

    async def read(self, most: int) -> bytes:
        try:
            data = bytes(await self._muxed.conn.read_stream(self._muxed.stream_id, most))
        except MuxedStreamEOF:
            if self._muxed.reset_received or self._muxed.conn.event_shutting_down.is_set():
                raise StreamClosed("the stream was reset or its connection is gone") from None
            return b""
        except (MuxedStreamReset, MuxedStreamError) as error:
            raise StreamClosed(f"the stream is gone: {error}") from error
        # The bytes are ours now: a cancellation here would lose them, so giving the credit back is not cancellable.
        with trio.CancelScope(shield=True):
            await self._give_credit(len(data))
        return data

    async def _give_credit(self, count: int) -> None:
        try:
            await self._muxed._auto_tune_and_send_window_update(bytes_read=count)
        except (RawConnError, OSError) as error:
            log.debug("mesh.credit_not_sent", extra={"reason": str(error)})

    async def write(self, data: bytes) -> None:
        try:
            await self._net.write(data)
        except trio.Cancelled:
            raise
        except Exception as error:  # libp2p raises from four trees here, some of them bare Exceptions
            raise StreamClosed(f"the stream is gone: {error}") from error

    async def close(self) -> None:
        await self._quietly(self._net.close)

    async def reset(self) -> None:
        await self._quietly(self._net.reset)

    async def _quietly(self, action: Any) -> None:
        try:
            await action()
        except Exception as error:  # noqa: BLE001  closing what is already gone is no news
            log.debug("mesh.close_failed", extra={"reason": str(error)})
