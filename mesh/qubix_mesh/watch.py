# SPDX-License-Identifier: Apache-2.0
"""The market as the mesh tells it: offers straight from the nodes that make them, with or without a coordinator."""

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import trio

from qubix_mesh import adverts
from qubix_mesh.adverts import Adverts, Heard
from qubix_mesh.nursery import plain_nursery
from qubix_mesh.peerbook import PeerBook
from qubix_mesh.peering import Peering, PeerSeen
from qubix_mesh.port import Mesh
from qubix_protocol.states import Availability
from qubix_protocol.units import OFFER_S, Network, offers_topic

OpenMesh = Callable[[bytes], AbstractAsyncContextManager[Mesh]]
MISSED_MS: Final = round(OFFER_S * 1000)
"""An offer that expired is shown for so long, marked, before it is hidden: three rounds are missed then."""
OFFERS_MAX: Final = 10_000
_SWEEP_S: Final = 1.0
_QUEUE: Final = 64

__all__ = ["Heard", "PeerSeen", "Watch"]


def _real_mesh(seed: bytes) -> AbstractAsyncContextManager[Mesh]:
    """Imported when it is used: libp2p costs 90 MB, and not everybody who imports this watches."""
    from qubix_mesh.host import open_mesh

    return open_mesh(seed, listen=())


class Watch:
    """Hears the offers of `regions` from whoever passes them on, believes those that nodes certified by `coordinator`
    (its public key, 32 bytes) signed, and keeps the newest of each device while it is current.

    `bootstrap` names gateways or relays to begin with; relays heard of are dialled, too, and `remembered` (a file)
    keeps addresses that answered for the next time. Everything belongs to the thread that runs `run`, but `offers`,
    `peers`, `now_ms` and `counts` may be read from others. `steady_s` is the clock of `Heard.heard_s`.
    """

    def __init__(
        self,
        *,
        network: Network,
        coordinator: bytes,
        bootstrap: Sequence[str] = (),
        remembered: Path | None = None,
        regions: Sequence[str] = ("local",),
        open_mesh: OpenMesh = _real_mesh,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network: Network = network
        self._bootstrap, self._regions = tuple(bootstrap), tuple(regions)
        self._book = PeerBook(remembered) if remembered is not None else None
        self._open_mesh, self._steady_s = open_mesh, steady_s
        self._adverts = Adverts(network=network, coordinator=coordinator, steady_s=steady_s)
        self._heard: dict[tuple[str, str], Heard] = {}
        self._peering: Peering | None = None
        self._changed = trio.Event()

    @property
    def counts(self) -> Counter[str]:
        """What was refused, by reason."""
        return self._adverts.counts

    def offers(self) -> tuple[Heard, ...]:
        """The newest of each device, in a stable order; one that expired a moment ago is marked `stale`. Devices
        that said farewell are left out."""
        heard = list(self._heard.items())
        return tuple(one for _, one in sorted(heard, key=lambda item: item[0]))

    def peers(self) -> tuple[PeerSeen, ...]:
        return self._peering.peers() if self._peering is not None else ()

    def now_ms(self) -> int | None:
        """The coordinator's clock as the mesh tells it; None before the first offer."""
        return self._adverts.now_ms()

    async def changed(self) -> None:
        """Returns at the next change of offers or connections after this was called."""
        await self._changed.wait()

    async def run(self) -> None:
        """Until cancelled. Raises what opening the mesh raises, and `BadAddress` for a bootstrap that is none."""
        async with self._open_mesh(os.urandom(32)) as mesh, plain_nursery() as nursery:
            peering = self._peering = Peering(mesh, self._bootstrap, self._book, changed=self._tell)
            for region in self._regions:
                await nursery.start(self._listen, mesh, offers_topic(self._network, region))
            nursery.start_soon(peering.run)
            nursery.start_soon(self._sweep)

    async def _listen(self, mesh: Mesh, topic: str, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Offers are taken where they are judged, so that each is read once; the queue only has to be emptied."""
        async with mesh.subscribe(topic, self._adverts.validator(topic, self._take), capacity=_QUEUE) as messages:
            task_status.started()
            async for _ in messages:
                pass

    def _take(self, heard: Heard) -> None:
        for address in heard.offer.relays_at:
            if self._peering is not None:
                self._peering.learn_of(heard.peer_id, address)
        key = (heard.peer_id, heard.offer.device.device_id)
        if heard.offer.availability is Availability.OFFLINE:
            self._heard.pop(key, None)
        elif key in self._heard or len(self._heard) < OFFERS_MAX:
            self._heard[key] = heard
        else:
            self._adverts.counts["gossip_overflow"] += 1
        self._tell()

    async def _sweep(self) -> None:
        """What expires is marked, then hidden."""
        while True:
            await trio.sleep(_SWEEP_S)
            now_ms = self._adverts.now_ms()
            changed = False
            for key, heard in list(self._heard.items()):
                if not adverts.live(heard, now_ms, self._steady_s(), missed_ms=MISSED_MS):
                    del self._heard[key]
                elif heard.stale != adverts.expired(heard, now_ms):
                    self._heard[key] = replace(heard, stale=not heard.stale)
                else:
                    continue
                changed = True
            if changed:
                self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
