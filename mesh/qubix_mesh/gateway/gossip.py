# SPDX-License-Identifier: Apache-2.0
"""Gossip on its way to the coordinator: judged cheaply here, so that what is relayed and forwarded is worth it."""

import logging
from collections import Counter
from typing import Any

import trio

from qubix_mesh.gateway.outbox import Outbox
from qubix_mesh.gateway.settings import Settings
from qubix_mesh.port import Mesh
from qubix_mesh.rules import Rates
from qubix_protocol.envelope import read_evidence
from qubix_protocol.errors import ProtocolError
from qubix_protocol.keys import public_key_of
from qubix_protocol.link import Gossip

log = logging.getLogger("qubix_gateway")

_TOPIC_QUEUE = 1024
_AUTHORS_MAX = 10_000


class Topics:
    """Subscribes to what the coordinator named last. Subscriptions outlive the link: others may need the relay."""

    def __init__(self, mesh: Mesh, outbox: Outbox, settings: Settings) -> None:
        self._mesh = mesh
        self._outbox = outbox
        self._network = settings.network
        self._rates = Rates(settings.gossip_per_s, settings.gossip_burst, names_max=_AUTHORS_MAX)
        self._wanted: frozenset[str] = frozenset()
        self._running: dict[str, trio.CancelScope] = {}
        self._changed = trio.Event()
        self._link_up = False
        self.counts: Counter[str] = Counter()

    def want(self, topics: tuple[str, ...]) -> None:
        self._wanted = frozenset(topics)
        self._changed.set()

    def link_is_up(self) -> None:
        self._link_up = True

    def link_is_down(self) -> None:
        self._link_up = False

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                for topic in self._running.keys() - self._wanted:
                    self._running.pop(topic).cancel()
                for topic in self._wanted - self._running.keys():
                    self._running[topic] = trio.CancelScope()
                    await nursery.start(self._listen, topic, self._running[topic])
                await self._changed.wait()

    async def _listen(self, topic: str, scope: trio.CancelScope, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        with scope:
            async with self._mesh.subscribe(topic, self.accepts, capacity=_TOPIC_QUEUE) as heard:
                log.info("gateway.topic_joined", extra={"topic": topic})
                task_status.started()
                async for message in heard:
                    self._forward(Gossip(author=message.author, topic=message.topic, data=message.data))

    def _forward(self, message: Gossip) -> None:
        if self._link_up:
            self._outbox.put_gossip(message)
        else:
            self.counts["gossip_while_down"] += 1

    def accepts(self, author: str, data: bytes) -> bool:
        """Rate, then network and signature. Expiry is the coordinator's to judge: this machine's clock may be wrong."""
        if not self._rates.allow(author, trio.current_time()):
            self.counts["gossip_too_fast"] += 1
            return False
        try:
            read_evidence(data, network=self._network, sender=public_key_of(author))
        except ProtocolError as error:
            self.counts[f"gossip_{error.code}"] += 1
            return False
        return True
