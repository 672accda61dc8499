# SPDX-License-Identifier: Apache-2.0
"""The real mesh: libp2p over TCP, always Noise, always Yamux."""

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final

import trio
from libp2p import new_host
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost, _IdentifyNotifee
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from qubix_mesh import rules
from qubix_mesh.addresses import PeerAddress, parse_listen, parse_peer
from qubix_mesh.errors import BadAddress, DialFailed, MeshError, MeshTimeout, NotConnected, NotListening, StreamClosed
from qubix_mesh.framing import FramedStream
from qubix_mesh.nursery import plain_nursery
from qubix_mesh.p2p.connection import Health, PeerLimits, Upgrader, YamuxPipe
from qubix_mesh.p2p.gossip import Gossip, new_router
from qubix_mesh.p2p.quiet import tame_libp2p
from qubix_mesh.p2p.thrift import save_work
from qubix_mesh.port import Counters, Mesh, Stream, StreamHandler, Subscription, Validator
from qubix_protocol.errors import Malformed
from qubix_protocol.keys import SigningKey, public_key_of

log = logging.getLogger("qubix_mesh")

LOOPBACK: Final = ("/ip4/127.0.0.1/tcp/0",)
DIAL_S: Final = 10.0
_STABLE_S: Final = 5.0
_CLOSE_S: Final = 2.0


class Libp2pMesh:
    """A `port.Mesh`. Made by `open_mesh`, which runs and ends it."""

    def __init__(self, host: BasicHost, gossip: Gossip, peer_id: str, counters: Counters) -> None:
        self._host = host
        self._network: Any = host.get_network()
        self._gossip = gossip
        self._changed = trio.Event()
        self._dialling: dict[str, trio.Lock] = {}
        self._chance = random.Random()  # noqa: S311  spreads retries, guards nothing
        self.peer_id = peer_id
        self.counters = counters

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(f"{address}/p2p/{self.peer_id}" for address in self._host.get_transport_addrs())

    def on_stream(self, protocol: str, handler: StreamHandler) -> None:
        async def serve(net_stream: INetStream) -> None:
            await self._serve(net_stream, handler)

        self._host.set_stream_handler(TProtocol(protocol), serve)

    async def _serve(self, net_stream: INetStream, handler: StreamHandler) -> None:
        peer = net_stream.muxed_conn.peer_id.to_base58()
        stream = FramedStream(YamuxPipe(net_stream), peer)
        try:
            public_key_of(peer)
            await handler(stream)
        except (MeshError, Malformed) as error:
            log.debug("mesh.stream_ended", extra={"peer": peer, "reason": str(error)})
            await stream.abort()
        except Exception:  # a fault in one handler must not end libp2p's tree of tasks
            self.counters.handler_failed += 1
            log.exception("mesh.handler_failed", extra={"peer": peer})
            await stream.abort()
        except BaseException:
            await stream.abort()
            raise
        else:
            await stream.close()

    async def open_stream(self, peer_id: str, protocol: str, *, timeout_s: float) -> Stream:
        peer = _peer_id(peer_id)
        if peer_id not in self.connected():
            raise NotConnected(f"no connection to {peer_id}")
        with trio.move_on_after(timeout_s):
            try:
                net_stream = await self._host.new_stream(peer, [TProtocol(protocol)])
            except Exception as error:  # libp2p raises from several trees here
                raise StreamClosed(f"{peer_id} gave no stream for {protocol}: {error}") from error
            return FramedStream(YamuxPipe(net_stream), peer_id)
        raise MeshTimeout(f"{peer_id} gave no stream for {protocol} within {timeout_s} s")

    async def connect(self, address: str, *, timeout_s: float) -> str:
        target = parse_peer(address)
        if target.peer_id == self.peer_id:
            raise BadAddress(f"{address} is our own address")
        # One dial at a time to a peer: whoever comes second finds the connection of the first.
        turn = self._dialling.setdefault(target.peer_id, trio.Lock())
        try:
            async with turn:
                if target.peer_id not in self.connected():
                    await self._dial(target, timeout_s)
        finally:
            if not turn.locked():
                self._dialling.pop(target.peer_id, None)
        return target.peer_id

    async def _dial(self, target: PeerAddress, timeout_s: float) -> None:
        """One attempt at exactly this address.

        `dial_addr` skips what `connect` of libp2p adds: a head start of 250 ms for each address, a memory of failures
        that refuses the peer for a minute, and other addresses that it has heard of.
        """
        try:
            with trio.fail_after(timeout_s):
                await self._network.dial_addr(Multiaddr(target.transport), _peer_id(target.peer_id))
        except trio.TooSlowError:
            raise self._dial_failed(target, f"no answer within {timeout_s} s") from None
        except (SwarmException, OSError, MeshError) as error:
            raise self._dial_failed(target, _causes(error)) from error

    def _dial_failed(self, target: PeerAddress, reason: str) -> DialFailed:
        self.counters.dials_failed += 1
        return DialFailed(f"{target} could not be reached: {reason}")

    async def keep_connected(self, address: str) -> None:
        failures = 0
        while True:
            started_s = trio.current_time()
            try:
                peer_id = await self.connect(address, timeout_s=DIAL_S)
            except DialFailed as error:
                log.info("mesh.dial_failed", extra={"address": address, "failures": failures, "reason": str(error)})
            else:
                log.info("mesh.connected", extra={"peer": peer_id})
                await self.wait_disconnected(peer_id)
                log.info("mesh.disconnected", extra={"peer": peer_id})
            stable = trio.current_time() - started_s >= _STABLE_S
            failures = 0 if stable else failures + 1
            await trio.sleep(rules.backoff_s(failures, self._chance.random()))

    async def disconnect(self, peer_id: str) -> None:
        await _close_all(self._network.get_connections(_peer_id(peer_id)))

    def connected(self) -> frozenset[str]:
        return frozenset(
            peer.to_base58()
            for peer, connections in self._network.connections.items()
            if any(not connection.is_closed for connection in connections)
        )

    def remote_ip(self, peer_id: str) -> str:
        for connection in self._network.connections.get(_peer_id(peer_id), ()):
            remote = connection.muxed_conn.get_remote_address() if not connection.is_closed else None
            if remote is not None:
                return str(remote[0]).partition("%")[0]
        return ""

    async def wait_connected(self, peer_id: str) -> None:
        while peer_id not in self.connected():
            await self._changed.wait()

    async def wait_disconnected(self, peer_id: str) -> None:
        while peer_id in self.connected():
            await self._changed.wait()

    def announce_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def publish(self, topic: str, data: bytes) -> None:
        await self._gossip.send(topic, data)

    def subscribe(
        self, topic: str, validator: Validator, *, capacity: int
    ) -> AbstractAsyncContextManager[Subscription]:
        return self._gossip.listen(topic, validator, capacity)


class _NoAutoConnector(AutoConnector):
    """libp2p would dial strangers it has heard of, whatever the marks say. We dial whom we are told to."""

    async def run_background_task(self, nursery: Any) -> None:
        return None

    async def maybe_connect(self) -> None:
        return None


class _Notices(INotifee):
    """libp2p's news of connections, for those who wait in the mesh."""

    def __init__(self, mesh: Libp2pMesh) -> None:
        self._mesh = mesh

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        self._mesh.announce_change()

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        self._mesh.announce_change()

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        return None

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        return None

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        return None

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        return None


@asynccontextmanager
async def open_mesh(
    seed: bytes, *, listen: Sequence[str] = LOOPBACK, connections_max: int = 300, health: Health | None = None
) -> AsyncIterator[Mesh]:
    """Run a mesh node with the identity made from `seed` (32 bytes) until the block is left.

    Raises `BadAddress` or `NotListening`. An empty `listen` makes a node that only dials out.
    """
    tame_libp2p()
    save_work()
    addresses = [Multiaddr(parse_listen(text)) for text in listen]
    mesh, host, gossip = _assemble(seed, connections_max, health or Health())
    running = trio.CancelScope()
    async with plain_nursery() as nursery:
        try:
            await nursery.start(_run, host, gossip, addresses, running)
            yield mesh
        finally:
            # Order matters: sockets are closed while tasks still run, then everything is cancelled by one scope.
            with trio.CancelScope(shield=True):
                await _hang_up(host)
            gossip.stop_threads()
            running.cancel()


def _assemble(seed: bytes, connections_max: int, health: Health) -> tuple[Libp2pMesh, BasicHost, Gossip]:
    keys = create_new_key_pair(seed)
    security = {NOISE_ID: NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)}
    muxers = {TProtocol(YAMUX_ID): Yamux}
    host = new_host(
        key_pair=keys,
        sec_opt=security,
        muxer_opt=muxers,
        connection_config=_connection_config(connections_max),
        resource_manager=PeerLimits(connections_max),
        disable_identify_address_discovery=True,
    )
    assert isinstance(host, BasicHost)
    counters = Counters()
    upgrader = Upgrader(security, muxers)
    upgrader.health = health
    _harden(host, upgrader, counters)
    gossip = Gossip(host, new_router(), counters)
    mesh = Libp2pMesh(host, gossip, SigningKey(seed).peer_id, counters)
    host.get_network().register_notifee(_Notices(mesh))
    return mesh, host, gossip


def _connection_config(connections_max: int) -> ConnectionConfig:
    """`WatchedYamux` takes the place of libp2p's health monitor, which asks one peer after the other."""
    return ConnectionConfig(
        max_connections=connections_max,
        min_connections=0,
        low_watermark=0,
        high_watermark=connections_max,
        inbound_stream_protocol_negotiation_timeout=5.0,
        outbound_stream_protocol_negotiation_timeout=5.0,
    )


def _harden(host: BasicHost, upgrader: Upgrader, counters: Counters) -> None:
    network: Any = host.get_network()
    network.upgrader = upgrader
    network.auto_connector = _NoAutoConnector(network)
    network.retry_config = RetryConfig(max_retries=0)
    # Asking each peer to identify itself runs in trio's system tasks, where one exception ends the whole process.
    network.notifees[:] = [notifee for notifee in network.notifees if not isinstance(notifee, _IdentifyNotifee)]
    network.set_stream_handler(_guarded(host._swarm_stream_handler, counters))


def _guarded(
    handler: Callable[[INetStream], Awaitable[None]], counters: Counters
) -> Callable[[INetStream], Awaitable[None]]:
    """Negotiating with a stranger may raise anything; unguarded, that ends libp2p's whole tree of tasks."""

    async def guarded(stream: INetStream) -> None:
        try:
            await handler(stream)
        except Exception as error:  # noqa: BLE001  see above
            counters.hostile += 1
            log.debug("mesh.stream_refused", extra={"reason": repr(error)})
            await stream.reset()

    return guarded


async def _run(
    host: BasicHost,
    gossip: Gossip,
    addresses: list[Multiaddr],
    running: trio.CancelScope,
    task_status: Any = trio.TASK_STATUS_IGNORED,
) -> None:
    """Host, gossip, router, in this order: a peer that connects before they are ready would block.

    Once started, only `running` ends it: cancelled from outside, libp2p would leave its sockets open.
    """
    with running:
        await _run_services(host, gossip, addresses, running, task_status)


async def _run_services(
    host: BasicHost, gossip: Gossip, addresses: list[Multiaddr], running: trio.CancelScope, task_status: Any
) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(host.run(listen_addrs=addresses))
        if len(host.get_network().listeners) < len(addresses):
            missing = [str(address) for address in addresses if str(address) not in host.get_network().listeners]
            raise NotListening(f"cannot listen on {', '.join(missing)}: is the port taken, or the address not ours?")
        await stack.enter_async_context(background_trio_service(gossip))
        _freeze_addresses(host)
        router: Any = gossip.router
        await stack.enter_async_context(background_trio_service(router))
        await gossip.wait_until_ready()
        running.shield = True
        task_status.started()
        await trio.sleep_forever()


def _freeze_addresses(host: Any) -> None:
    """They do not change once listening. Each gossip message asks for them, even while the sockets are being closed."""
    transport_addresses, addresses = host.get_transport_addrs(), host.get_addrs()
    host.get_transport_addrs = lambda: list(transport_addresses)
    host.get_addrs = lambda: list(addresses)


async def _hang_up(host: BasicHost) -> None:
    """Stop listening, then close every connection at once (libp2p takes 0.2 s for each, one after the other)."""
    network: Any = host.get_network()
    network._closing = True
    for listener in list(network.listeners.values()):
        await listener.close()
    await _close_all([connection for found in network.connections.values() for connection in found])


async def _close_all(connections: Sequence[Any]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + _CLOSE_S
        for connection in connections:
            nursery.start_soon(connection.close)


def _peer_id(text: str) -> ID:
    try:
        public_key_of(text)
    except Malformed as error:
        raise BadAddress(str(error)) from error
    return ID.from_base58(text)


def _causes(error: BaseException) -> str:
    """The innermost reason: libp2p wraps it three times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
