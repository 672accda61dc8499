# SPDX-License-Identifier: Apache-2.0
"""The gateway put together: mesh, peers, gossip and the link, under one nursery."""

import json
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio

from qubix_mesh import pins
from qubix_mesh.errors import BadAddress
from qubix_mesh.gateway.gossip import Topics
from qubix_mesh.gateway.link import CoordinatorLink
from qubix_mesh.gateway.outbox import Outbox
from qubix_mesh.gateway.peers import Peers
from qubix_mesh.gateway.settings import Settings
from qubix_mesh.nursery import plain_nursery
from qubix_mesh.peerbook import PeerBook
from qubix_mesh.port import Mesh
from qubix_protocol.link import Drop, LinkOpen, LinkReady, ToPeer
from qubix_protocol.units import CONTROL_PROTOCOL

log = logging.getLogger("qubix_gateway")

_NEIGHBOURS_MAX: Final = 8
_ADDRESSES_MAX: Final = 16
_COUNTS_EVERY_S: Final = 60.0


class Pin(pins.Pin, frozen=True, kw_only=True):
    """By it a gateway that starts while the coordinator is away relays offers all the same."""

    topics: tuple[str, ...] = ()


class Gateway:
    """Owns nothing but wiring; `run` serves until cancelled."""

    def __init__(self, mesh: Mesh, settings: Settings) -> None:
        self._mesh = mesh
        self._settings = settings
        self.outbox = Outbox(
            frames_per_peer=settings.peer_queue_frames,
            bytes_max=settings.queue_bytes_max,
            gossip_max=settings.gossip_queue,
        )
        self.peers = Peers(settings, self.outbox, mesh.remote_ip)
        self._pin = pins.load(settings.pin_file, Pin, settings.network)
        self._offset_ms: int | None = None
        self.topics = Topics(mesh, self.outbox, settings, clock_ms=self.coordinator_ms)
        if self._pin is not None:
            self.topics.want(self._pin.key, self._pin.topics)
        self.link = CoordinatorLink(
            settings.link_url,
            settings.token,
            LinkOpen(gateway_peer_id=mesh.peer_id, addresses=mesh.addresses[:_ADDRESSES_MAX], network=settings.network),
            self.outbox,
            pinned=lambda: self._pin.key if self._pin is not None else None,
            on_up=self._link_up,
            on_down=self._link_down,
            on_ready=self._ready,
            on_command=self._obey,
        )
        mesh.on_stream(CONTROL_PROTOCOL, self.peers.serve)

    def coordinator_ms(self) -> int | None:
        """The coordinator's clock as the last link told it; None before the first."""
        return None if self._offset_ms is None else _steady_ms() + self._offset_ms

    def _ready(self, ready: LinkReady) -> None:
        self._offset_ms = ready.clock_ms - _steady_ms()
        pinned = Pin(network=ready.network, coordinator_key=ready.coordinator.hex(), topics=tuple(sorted(ready.topics)))
        if pinned != self._pin:
            self._pin = pinned
            pins.save(self._settings.pin_file, pinned)
        self.topics.want(ready.coordinator, ready.topics)

    def _link_up(self) -> None:
        self.peers.link_is_up()
        self.topics.link_is_up()

    def _link_down(self) -> None:
        self.topics.link_is_down()
        self.peers.link_is_down()

    def _obey(self, command: ToPeer | Drop) -> None:
        if isinstance(command, ToPeer):
            self.peers.to_peer(command.peer_id, command.frames)
        else:
            self.peers.drop(command.peer_id, command.reason)

    def counts(self) -> dict[str, int]:
        """Everything refused, dropped or delayed since the start; zeros are left out."""
        counters = self._mesh.counters
        found = {
            **self.peers.counts,
            **self.topics.counts,
            "telemetry_dropped": self.outbox.telemetry_dropped,
            "gossip_dropped": self.outbox.gossip_dropped + counters.gossip_overflow,
            "gossip_invalid": counters.gossip_invalid,
            "hostile": counters.hostile,
            "link_lost": self.link.lost,
            "link_refused": self.link.refused,
        }
        return {name: count for name, count in found.items() if count}

    async def run(self) -> None:
        async with plain_nursery() as nursery:
            nursery.start_soon(self.link.run)
            nursery.start_soon(self.topics.run)
            nursery.start_soon(self._log_counts)
            book = PeerBook(self._settings.data_dir / "peers.json")
            for address in book.to_dial(self._settings.bootstrap)[:_NEIGHBOURS_MAX]:
                nursery.start_soon(self._keep_neighbour, address, book)

    async def _keep_neighbour(self, address: str, book: PeerBook) -> None:
        """Another gateway or node, so that gossip crosses between them."""
        peer_id = address.rpartition("/p2p/")[2]
        if peer_id == self._mesh.peer_id:
            return
        async with plain_nursery() as nursery:
            nursery.start_soon(self._mesh.keep_connected, address)
            await self._mesh.wait_connected(peer_id)
            await trio.to_thread.run_sync(_remember, book, address)

    async def _log_counts(self) -> None:
        last: dict[str, int] = {}
        while True:
            await trio.sleep(_COUNTS_EVERY_S)
            counts = self.counts()
            if counts != last:
                log.info("gateway.counts", extra={"peers": len(self.peers), **counts})
                last = counts


def _steady_ms() -> int:
    return round(trio.current_time() * 1000)


def _remember(book: PeerBook, address: str) -> None:
    try:
        book.remember(address)
    except (OSError, BadAddress) as error:
        log.warning("gateway.peerbook_not_saved", extra={"reason": str(error)})


@asynccontextmanager
async def _until_signal() -> AsyncIterator[None]:
    """Cancels the block at SIGTERM or SIGINT."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with plain_nursery() as nursery:

            async def wait() -> None:
                async for number in signals:
                    log.info("gateway.stopping", extra={"signal": signal.Signals(number).name})
                    nursery.cancel_scope.cancel()

            nursery.start_soon(wait)
            yield
            nursery.cancel_scope.cancel()


async def serve(settings: Settings, mesh_opened: AbstractAsyncContextManager[Mesh]) -> None:
    """Until a signal. Raises what opening the mesh raises."""
    async with _until_signal(), mesh_opened as mesh:
        gateway = Gateway(mesh, settings)
        log.info("gateway.ready", extra={"peer": mesh.peer_id, "addresses": ",".join(mesh.addresses)})
        _announce(settings.ready_fd, mesh)
        await gateway.run()
    log.info("gateway.stopped")


def _announce(ready_fd: int | None, mesh: Mesh) -> None:
    if ready_fd is None:
        return
    line = {"process": "gateway", "pid": os.getpid(), "addresses": list(mesh.addresses), "peer_id": mesh.peer_id}
    with os.fdopen(ready_fd, "w") as file:
        file.write(json.dumps(line) + "\n")
