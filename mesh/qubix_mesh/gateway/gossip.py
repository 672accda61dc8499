# SPDX-License-Identifier: Apache-2.0
"""Gossip on its way to the coordinator: judged here, so that what is relayed and forwarded is worth it."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import trio

from qubix_mesh.adverts import Adverts
from qubix_mesh.gateway.outbox import Outbox
from qubix_mesh.gateway.settings import Settings
from qubix_mesh.port import Mesh
from qubix_protocol.link import Gossip

log = logging.getLogger("qubix_gateway")

_TOPIC_QUEUE = 1024


class Topics:
    """Subscribes to what the coordinator named last. Subscriptions outlive the link: others may need the relay.

    `clock_ms` is the coordinator's clock as the link told it."""

    def __init__(self, mesh: Mesh, outbox: Outbox, settings: Settings, *, clock_ms: Callable[[], int | None]) -> None:
        self._mesh, self._outbox, self._settings, self._clock_ms = mesh, outbox, settings, clock_ms
        self._adverts: Adverts | None = None
        self._wanted: frozenset[str] = frozenset()
        self._running: dict[str, trio.CancelScope] = {}
        self._changed = trio.Event()
        self._link_up = False
        self._lost: Counter[str] = Counter()

    @property
    def counts(self) -> Counter[str]:
        """What was refused, by reason, and what nobody was there to hear."""
        return self._lost + (self._adverts.counts if self._adverts is not None else Counter())

    def want(self, coordinator: bytes, topics: tuple[str, ...]) -> None:
        """Offers on these topics, of nodes that `coordinator` certified: always the same."""
        if self._adverts is None:
            settings = self._settings
            self._adverts = Adverts(
                network=settings.network,
                coordinator=coordinator,
                steady_s=trio.current_time,
                clock_ms=self._clock_ms,
                per_s=settings.gossip_per_s,
                burst=settings.gossip_burst,
            )
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
        assert self._adverts is not None, "topics are named with the coordinator's key"
        with scope:
            accepts = self._adverts.validator(topic)
            async with self._mesh.subscribe(topic, accepts, capacity=_TOPIC_QUEUE) as heard:
                log.info("gateway.topic_joined", extra={"topic": topic})
                task_status.started()
                async for message in heard:
                    self._forward(Gossip(author=message.author, topic=message.topic, data=message.data))

    def _forward(self, message: Gossip) -> None:
        if self._link_up:
            self._outbox.put_gossip(message)
        else:
            self._lost["gossip_while_down"] += 1
