# SPDX-License-Identifier: Apache-2.0
"""What the handlers work with, made once by the composition root."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from quart import Quart, current_app

from qubix_coordinator.artifacts.uploads import Uploads
from qubix_coordinator.clock import Clock
from qubix_coordinator.db.database import Database
from qubix_coordinator.feed.hub import Feeds
from qubix_coordinator.http.balances import Balances
from qubix_coordinator.http.mesh import Mesh
from qubix_coordinator.http.metrics import Metrics
from qubix_coordinator.http.rates import Doors
from qubix_coordinator.http.requests_seen import SeenRequests
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.outbox.notifier import Notifier
from qubix_coordinator.settings import Settings
from qubix_coordinator.workers.shelf import Shelf
from qubix_protocol.keys import SigningKey
from qubix_protocol.units import Network

_NAME: Final = "qubix"


@dataclass(slots=True)
class WorkerFiles:
    """Made once, when they are first asked for."""

    made: Shelf | None = None
    making: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class Context:
    desk: Desk
    uploads: Uploads
    notifier: Notifier
    feeds: Feeds
    mesh: Mesh
    metrics: Metrics
    hosts: frozenset[str]
    """Names accepted in Host and Origin."""
    url: str
    """Where others reach this server."""
    balances: Balances
    """Of wallets, on the chain."""
    seen: SeenRequests = field(default_factory=SeenRequests)
    doors: Doors = field(default_factory=Doors)
    worker_files: WorkerFiles = field(default_factory=WorkerFiles)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server stops: open WebSockets end by themselves."""

    @property
    def db(self) -> Database:
        return self.desk.db

    @property
    def settings(self) -> Settings:
        return self.desk.settings

    @property
    def clock(self) -> Clock:
        return self.desk.clock

    @property
    def key(self) -> SigningKey:
        return self.desk.key

    @property
    def network(self) -> Network:
        return self.desk.network

    def now_ms(self) -> int:
        return self.desk.now_ms()


def install(app: Quart, context: Context) -> None:
    app.extensions[_NAME] = context


def here() -> Context:
    """The context of the request being handled."""
    context = current_app.extensions[_NAME]
    assert isinstance(context, Context)
    return context
