# SPDX-License-Identifier: Apache-2.0
"""Whom this node keeps a connection to beside its gateway (trust P5), and what it passes on for others."""

from collections.abc import Callable, Sequence

import trio

from qubix_mesh.peerbook import PeerBook
from qubix_mesh.peering import Peering
from qubix_mesh.port import Mesh
from qubix_node.identity import Enrolment
from qubix_node.offers.relay import Relay
from qubix_node.offers.rules import announced
from qubix_node.settings import Settings


class Neighbours:
    """`linked` tells whether a session stands: then relays are enough, and gateways are left to those who need them.
    `clock_ms` is the coordinator's clock where a session told it, `region` where this node offers, "" before."""

    def __init__(
        self,
        mesh: Mesh,
        settings: Settings,
        enrolment: Enrolment,
        *,
        linked: Callable[[], bool],
        clock_ms: Callable[[], int | None],
        region: Callable[[], str],
    ) -> None:
        self._mesh, self._settings = mesh, settings
        self._book = PeerBook(settings.node_dir / "peers.json")
        self._peering = Peering(
            mesh, settings.bootstrap, self._book, relays_only=lambda: linked() and not settings.relay
        )
        self._relay: Relay | None = None
        if settings.relay:
            self._relay = Relay(
                mesh,
                self._peering,
                network=settings.network,
                coordinator=enrolment.key,
                clock_ms=clock_ms,
                region=lambda: region() or settings.region or enrolment.region,
            )
        self.learn(enrolment.relays)

    @property
    def relays_at(self) -> tuple[str, ...]:
        """Where others find this node; nowhere unless it relays."""
        if self._relay is None:
            return ()
        return announced(self._mesh.addresses, self._settings.announce, self._mesh.peer_id)

    def learn(self, relays: Sequence[str]) -> None:
        """What the coordinator knows."""
        for address in relays:
            self._peering.learn(address, relay=True)

    async def met(self, address: str) -> None:
        """A gateway that worked."""
        await trio.to_thread.run_sync(self._book.remember, address)

    def gateways(self, named: Sequence[str]) -> tuple[str, ...]:
        """Whom to try for a session: the settings first, then those named, then memory."""
        return self._book.to_dial([*self._settings.bootstrap, *named])

    def moved(self) -> None:
        """The region may be another one than before."""
        if self._relay is not None:
            self._relay.moved()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._peering.run)
            if self._relay is not None:
                nursery.start_soon(self._relay.run)
