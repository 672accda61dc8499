# SPDX-License-Identifier: Apache-2.0
"""A node that passes its region's offers on (trust P5): gateways are not the only way through the mesh."""

import logging
from collections.abc import Callable
from typing import Final

import trio

from qubix_mesh.adverts import Adverts, Heard
from qubix_mesh.peering import Peering
from qubix_mesh.port import Mesh
from qubix_protocol.units import Network, offers_topic

log = logging.getLogger("qubix_node")
_QUEUE: Final = 64


class Relay:
    """Believes what the coordinator certified, by its clock where a session told it. `region` is where this node
    offers now; relays that it hears of become its neighbours."""

    def __init__(
        self,
        mesh: Mesh,
        peering: Peering,
        *,
        network: Network,
        coordinator: bytes,
        clock_ms: Callable[[], int | None],
        region: Callable[[], str],
    ) -> None:
        self._mesh, self._peering, self._region = mesh, peering, region
        self._network: Network = network
        self.adverts = Adverts(network=network, coordinator=coordinator, steady_s=trio.current_time, clock_ms=clock_ms)
        self._joined: trio.CancelScope | None = None

    def moved(self) -> None:
        """The region may be another one now."""
        if self._joined is not None:
            self._joined.cancel()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with trio.CancelScope() as self._joined:
                await self._pass_on(offers_topic(self._network, self._region()))

    async def _pass_on(self, topic: str) -> None:
        accepts = self.adverts.validator(topic, self._heard)
        async with self._mesh.subscribe(topic, accepts, capacity=_QUEUE) as messages:
            log.info("relay.topic_joined", extra={"topic": topic})
            async for _ in messages:
                pass

    def _heard(self, heard: Heard) -> None:
        for address in heard.offer.relays_at:
            self._peering.learn_of(heard.peer_id, address)
