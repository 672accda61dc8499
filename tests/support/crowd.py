# SPDX-License-Identifier: Apache-2.0
"""Many watchers of the market in one process, against coordinators that are processes, on one database."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage

from qubix.watching import OffersTable
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.market import service as market
from qubix_protocol.api import ListingView, LiveEvent
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Device, Offer
from qubix_protocol.query import parse
from qubix_protocol.states import Availability, DeviceKind

DEADLINE_S = 120.0
_EMIT = "INSERT INTO event (topic, payload) SELECT 'market', one::jsonb FROM unnest($1::text[]) AS one"


def offer(device: str, rate: int, *, away: bool = False) -> Offer:
    return Offer(
        device=Device(device_id=device, kind=DeviceKind.CPU, model="A CPU", memory_bytes=1, backends=("cpu",)),
        rate_qu_per_h=rate,
        region="local",
        availability=Availability.OFFLINE if away else Availability.AVAILABLE,
    )


@dataclass
class Provider:
    """Offers real devices: each time at a higher rate, so that whoever watches can tell the order."""

    db: Database
    peer: str
    devices: Sequence[str]
    rates: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @staticmethod
    async def enrolled(db: Database, devices: int) -> "Provider":
        key = SigningKey.generate()
        await db.run(lambda tx: accounts.ensure_node(tx, key.peer_id))
        return Provider(db, key.peer_id, [f"cpu-{number}" for number in range(devices)])

    async def change(self, device: str, now_ms: int, *, away: bool = False) -> None:
        await market.offer_received(
            self.db, self.peer, offer(device, next(self.rates), away=away), b"signed", now_ms=now_ms
        )

    def listing_id(self, device: str) -> str:
        return str(market.listing_id(self.peer, device))


async def emit(db: Database, views: Sequence[ListingView]) -> None:
    """Events alone, without rows: as many as a test likes, in one statement."""
    payloads = [msgspec.json.encode(view).decode() for view in views]
    await db.run(lambda tx: execute(tx, _EMIT, payloads))


class Watcher:
    """Keeps a table, and checks that each listing is told in order."""

    def __init__(self, headers: dict[str, str], query: str) -> None:
        self.headers, self.query = headers, query
        self.table = OffersTable()
        self.resets = 0
        self.connections = 0
        self._rates: dict[str, int] = {}
        self._socket: ClientConnection | None = None

    @property
    def topic(self) -> str:
        return f"market?{self.query}" if self.query else "market"

    @contextlib.asynccontextmanager
    async def connected(self, url: str) -> AsyncIterator[None]:
        live = url.replace("http://", "ws://") + "/live"
        async with connect(live, additional_headers=self.headers, max_queue=None, compression=None) as socket:
            asked = {"topic": "market", "query": self.query, "cursor": self.table.cursor}
            await socket.send(msgspec.json.encode({"subscribe": [asked]}).decode())
            self._socket = socket
            self.connections += 1
            try:
                yield
            finally:
                self._socket = None
                self.table.interrupted()

    async def read(self) -> None:
        """One frame. Raises ConnectionClosed."""
        assert self._socket is not None
        event = msgspec.json.decode(await self._socket.recv(decode=False), type=LiveEvent)
        assert event.topic == self.topic, event
        self.resets += event.kind == "reset"
        found = self.table.take(event)
        for one in (*found.entered, *found.changed):
            # The same rate again is another change: of how many devices the node has in the market.
            assert one.rate_qu_per_h >= self._rates.get(one.listing_id, 0), "out of order"
            self._rates[one.listing_id] = one.rate_qu_per_h

    def agrees(self, offers: Sequence[ListingView]) -> bool:
        matches = parse(self.query).matches
        expected = {one.listing_id: one.rate_qu_per_h for one in offers if matches(one)}
        return {key: one.rate_qu_per_h for key, one in self.table.offers.items()} == expected

    async def follow(self, urls: Sequence[str], which: int) -> None:
        """Until cancelled; whenever it loses its socket, it connects to the next of the coordinators."""
        for at in itertools.count(which):
            with contextlib.suppress(OSError, ConnectionClosed, InvalidMessage):
                async with self.connected(urls[at % len(urls)]):
                    while True:
                        await self.read()
            await asyncio.sleep(0.05)

    def lose(self) -> None:
        """The socket, without a goodbye, whatever is on its way."""
        if self._socket is not None:
            self._socket.transport.abort()


def developer(folder: Path) -> dict[str, str]:
    return {"Authorization": f"Bearer {(folder / 'developer.token').read_text().strip()}"}
