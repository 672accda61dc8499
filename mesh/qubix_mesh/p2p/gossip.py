# SPDX-License-Identifier: Apache-2.0
"""GossipSub made safe: nothing a peer sends can end the service, and nothing is dropped without being counted."""

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from libp2p.abc import INetStream
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub

from qubix_mesh.errors import AlreadySubscribed, FrameTooLarge
from qubix_mesh.p2p.thrift import Buffered
from qubix_mesh.port import Counters, GossipMessage, Subscription, Validator
from qubix_mesh.queues import NewestQueue
from qubix_protocol.units import GOSSIP_BYTES_MAX

log = logging.getLogger("qubix_mesh")

_RPC_BYTES_MAX: Final = 256 * 1024
_LEAVE_S: Final = 1.0


def new_router() -> GossipSub:
    """v1.1: v1.2 costs twice. The protections are off because they drop honest messages; see facts in the README."""
    return GossipSub(
        protocols=[PROTOCOL_ID_V11],
        degree=4,
        degree_low=2,
        degree_high=8,
        heartbeat_interval=1,
        spam_protection_enabled=False,
        eclipse_protection_enabled=False,
        adaptive_gossip_enabled=False,
    )


class Gossip(Pubsub):
    """Delivers straight into our own queues: libp2p's hold 32 messages and drop the newest in silence."""

    def __init__(self, host: BasicHost, router: GossipSub, counters: Counters) -> None:
        super().__init__(host, router, strict_signing=True, max_inbound_rpc_size=_RPC_BYTES_MAX)
        # The sequence must rise over restarts, or peers ignore a restarted node as a replay.
        self.counter = time.time_ns()
        self._counters = counters
        self._queues: dict[str, NewestQueue[GossipMessage]] = {}

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """libp2p runs this in a task of its service: an exception would end the service, so a stranger's must not."""
        if msg_forwarder == self.my_id:
            await super().push_msg(msg_forwarder, msg)
            return
        try:
            await super().push_msg(msg_forwarder, msg)
        except Exception as error:  # noqa: BLE001  whatever a malformed message provokes in libp2p
            self._counters.hostile += 1
            log.debug("mesh.gossip_refused", extra={"peer": str(msg_forwarder), "reason": repr(error)})

    async def stream_handler(self, stream: INetStream) -> None:
        try:
            await super().stream_handler(stream)
        except Exception as error:  # noqa: BLE001  protobuf and control messages that libp2p does not expect
            self._counters.hostile += 1
            log.debug("mesh.gossip_stream_refused", extra={"reason": repr(error)})
            await stream.reset()

    async def continuously_read_stream(self, stream: Any) -> None:
        await super().continuously_read_stream(Buffered(stream))  # type: ignore[arg-type]

    def notify_subscriptions(self, publish_message: rpc_pb2.Message) -> None:
        author = ID(publish_message.from_id).to_base58()
        if author == self.my_id.to_base58():
            return
        for topic in publish_message.topicIDs:
            queue = self._queues.get(topic)
            if queue is not None and not queue.put(GossipMessage(author, topic, publish_message.data)):
                self._counters.gossip_overflow += 1

    async def send(self, topic: str, data: bytes) -> None:
        if len(data) > GOSSIP_BYTES_MAX:
            raise FrameTooLarge(f"a gossip message of {len(data)} bytes is over the limit of {GOSSIP_BYTES_MAX}")
        await self.publish(topic, data)
        # libp2p notes the time of each message for adaptive gossip, which is off: nobody would ever clear the list.
        self.router.recent_message_deliveries.clear()  # type: ignore[attr-defined]

    @asynccontextmanager
    async def listen(self, topic: str, validator: Validator, capacity: int) -> AsyncIterator[Subscription]:
        if topic in self._queues:
            raise AlreadySubscribed(f"{topic} is already subscribed to on this mesh")
        queue: NewestQueue[GossipMessage] = NewestQueue(capacity)
        self._queues[topic] = queue
        self.set_topic_validator(topic, _wrapped(validator, self._counters), False)
        await self.subscribe(topic)
        try:
            yield queue
        finally:
            queue.close()
            del self._queues[topic]
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LEAVE_S):
                await self.unsubscribe(topic)
            self.remove_topic_validator(topic)

    def stop_threads(self) -> None:
        """The cache of seen messages sweeps itself in a thread that nobody else stops."""
        self.seen_messages.stop()


def _wrapped(validator: Validator, counters: Counters) -> Callable[[ID, Any], bool]:
    """A validator that raises would end libp2p's whole tree of tasks: here it is False, counted and logged."""

    def check(_forwarder: ID, message: rpc_pb2.Message) -> bool:
        try:
            accepted = len(message.data) <= GOSSIP_BYTES_MAX and validator(
                ID(message.from_id).to_base58(), message.data
            )
        except Exception:  # any fault of a validator refuses the message and harms nothing else
            counters.validator_failed += 1
            log.exception("mesh.validator_failed")
            return False
        counters.gossip_invalid += not accepted
        return accepted

    return check
