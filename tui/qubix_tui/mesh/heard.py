# SPDX-License-Identifier: Apache-2.0
"""What the mesh said, for a screen: no part of it needs libp2p. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from qubix_protocol.api import ListingView
from qubix_protocol.messages import Offer
from qubix_protocol.units import Network


class HeardOffer(Protocol):
    """`qubix_mesh.watch.Heard`. `heard_s` is by the monotonic clock."""

    @property
    def peer_id(self) -> str: ...
    @property
    def offer(self) -> Offer: ...
    @property
    def heard_s(self) -> float: ...
    @property
    def stale(self) -> bool: ...
    @property
    def certified(self) -> bool: ...


class Peer(Protocol):
    """`qubix_mesh.watch.PeerSeen`."""

    @property
    def peer_id(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def relay(self) -> bool: ...
    @property
    def connected(self) -> bool: ...


class Watching(Protocol):
    """`qubix_mesh.watch.Watch`: `run` and `changed` belong to the mesh's thread."""

    async def run(self) -> None: ...
    async def changed(self) -> None: ...
    def offers(self) -> Sequence[HeardOffer]: ...
    def peers(self) -> Sequence[Peer]: ...


class Known(NamedTuple):
    """Where to listen, and whose certificates count."""

    network: Network
    coordinator_key: str
    bootstrap: tuple[str, ...]
    regions: tuple[str, ...]


OpenWatch = Callable[[Known], Watching]
"""Called in the mesh's thread."""


@dataclass(frozen=True, slots=True)
class MeshOffer:
    """One device as its own node tells of it."""

    listing: ListingView
    heard_s: float
    stale: bool
    certified: bool


def offer_of(heard: HeardOffer) -> MeshOffer:
    """In the market's form; what only the market knows (checks, scores, reliability) stays unknown."""
    offer, device = heard.offer, heard.offer.device
    listing = ListingView(
        listing_id=f"{heard.peer_id}/{device.device_id}",
        provider=heard.peer_id,
        device_id=device.device_id,
        kind=device.kind,
        model=device.model,
        memory_bytes=device.memory_bytes,
        cores=device.cores,
        driver=device.driver,
        cuda=device.cuda,
        compute_capability=device.compute_capability,
        backends=tuple(device.backends),
        rate_qu_per_h=offer.rate_qu_per_h,
        region=offer.region,
        availability=offer.availability,
        verified=False,
        jobs_accepted=0,
        jobs_rejected=0,
        metrics=offer.metrics,
        metrics_age_ms=None if offer.metrics is None else 0,
        stale=heard.stale,
        fallback=device.fallback,
        isolation=offer.isolation,
        cpu_cores=offer.cpu_cores,
        cpu_memory_bytes=offer.cpu_memory_bytes,
        disk_free_bytes=offer.disk_free_bytes,
        inet_down_bytes_per_s=offer.inet_down_bytes_per_s,
        inet_up_bytes_per_s=offer.inet_up_bytes_per_s,
        notice_s=offer.notice_s,
        country=offer.country,
    )
    return MeshOffer(listing, heard.heard_s, heard.stale, heard.certified)
