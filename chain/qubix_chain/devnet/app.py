# SPDX-License-Identifier: Apache-2.0
"""The composition root of the devnet's process."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import uvicorn
from quart import Quart

from qubix_chain.devnet.archive import Archive
from qubix_chain.devnet.clock import Clock
from qubix_chain.devnet.errors import CannotStart
from qubix_chain.devnet.http import control, edge, live, query
from qubix_chain.devnet.network import Network, Rules
from qubix_chain.devnet.settings import Settings
from qubix_chain.devnet.store import Store

log = logging.getLogger(__name__)
HOST: Final = "127.0.0.1"
_STOP_S: Final = 1


@dataclass(frozen=True, slots=True)
class Devnet:
    """A whole devnet that does nothing yet: serve its `app`, run its `clock`."""

    network: Network
    clock: Clock
    app: Quart


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


def assemble(
    store: Store,
    settings: Settings,
    now_ms: Callable[[], int] = wall_clock_ms,
    broken: Callable[[Exception], None] = lambda error: None,
) -> Devnet:
    """Raises CannotStart when the store holds another devnet's ledger."""
    behaviour = Rules(seed=settings.seed, archive_lag=settings.archive_lag, slots=settings.tick_slots)
    network = Network(store, behaviour, now_ms)
    if settings.fault_rates:
        network.faults.rates.update(settings.rates)
        network.save_faults()
    clock = Clock(network, tick_ms=settings.tick_ms, paused=settings.paused)
    app = Quart("qubix_chain.devnet", static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=edge.BODY_BYTES_MAX, BODY_TIMEOUT=30)
    edge.install(app, network, broken)
    app.register_blueprint(live.blueprint(network, clock))
    app.register_blueprint(query.blueprint(Archive(network)))
    app.register_blueprint(control.blueprint(network, clock))
    return Devnet(network, clock, app)


class _Stop:
    """A signal, or a failure that the process ends with."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.error: Exception | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.asked.set)

    def broken(self, error: Exception) -> None:
        self.error = self.error or error
        self.asked.set()


async def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Raises CannotStart, or what stopped it."""
    stop = _Stop()
    with contextlib.closing(_bind(settings.port)) as sock, contextlib.closing(Store(settings.ledger_file)) as store:
        devnet = assemble(store, settings, broken=stop.broken)
        server = _server(devnet.app)
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve([sock]), name="http")
            ticking = tasks.create_task(devnet.clock.run(), name="clock")
            await server.ready.wait()
            _announce(settings, sock.getsockname()[1], devnet.network)
            await stop.asked.wait()
            server.should_exit = True
            await serving
            ticking.cancel()
    log.info("devnet.stopped")
    if stop.error is not None:
        raise stop.error


def _bind(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
        sock.listen(128)
    except OSError as problem:
        sock.close()
        raise CannotStart(
            f"port {port} of {HOST} cannot be used: {problem.strerror}."
            " Stop what uses it, or set QUBIX_DEVNET_PORT to another one (0 takes a free one)"
        ) from None
    sock.setblocking(False)
    return sock


def _announce(settings: Settings, port: int, network: Network) -> None:
    url = f"http://{HOST}:{port}"
    chain = network.chain
    log.info("devnet.ready", extra={"network": "devnet", "url": url, "tick": chain.tick, "epoch": chain.epoch})
    if settings.ready_fd is not None:
        line = {"process": "devnet", "pid": os.getpid(), "url": url, "network": "devnet", "tick": chain.tick}
        with os.fdopen(settings.ready_fd, "w") as ready:
            ready.write(json.dumps(line) + "\n")


class _Server(uvicorn.Server):
    """Signals are ours, not Uvicorn's."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: Quart) -> _Server:
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    logging.getLogger("quart").setLevel(logging.CRITICAL)
    return _Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=1000,
            timeout_graceful_shutdown=_STOP_S,
        )
    )
