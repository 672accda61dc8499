# SPDX-License-Identifier: Apache-2.0
"""The Quart application and the Uvicorn server around it."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from typing import Final

import uvicorn
from quart import Quart, g, request, websocket
from quart.wrappers import Response as QuartResponse

import qubix_coordinator
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.http import (
    api,
    browser_node,
    context,
    guard,
    live,
    mesh_link,
    openapi,
    ops,
    pages,
    problems,
    worker_files,
)
from qubix_coordinator.http.context import Context
from qubix_coordinator.http.live_socket import FramesProtocol
from qubix_coordinator.http.pacing import BODY_BYTES_MAX, Paced, SizedRequest, drained
from qubix_coordinator.settings import Settings
from qubix_protocol.units import LINK_MESSAGE_BYTES_MAX

CONNECTIONS_MAX: Final = 4000
_STOP_S: Final = 1
_UNGUARDED: Final = ("/healthz", "/readyz", "/metrics")
"""Asked by machines that know this one by whatever address they reach it."""


def create_app(parts: Context) -> Quart:
    app = Quart(qubix_coordinator.__name__, static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=BODY_BYTES_MAX, BODY_TIMEOUT=30, RESPONSE_TIMEOUT=60)
    app.url_map.merge_slashes = False
    app.request_class = SizedRequest
    context.install(app, parts)
    problems.install(app)
    openapi.install(app, version="1")
    app.register_blueprint(api.load())
    ops.install(app)
    live.install(app)
    mesh_link.install(app)
    browser_node.install(app)
    pages.install(app, relay=lambda: relay_of(parts.settings))
    worker_files.install(app)
    _install_hooks(app, parts)
    return app


def relay_of(settings: Settings) -> str:
    """Of WalletConnect, where this market offers it."""
    return settings.walletconnect_relay if settings.walletconnect_project_id else ""


def _install_hooks(app: Quart, parts: Context) -> None:
    @app.before_request
    async def check_request() -> None:
        g.started_s = time.perf_counter()
        if request.path not in _UNGUARDED:
            guard.check(request.headers.get("Host"), request.headers.get("Origin"), parts.hosts)

    @app.before_websocket
    async def check_websocket() -> None:
        guard.check(websocket.headers.get("Host"), websocket.headers.get("Origin"), parts.hosts)

    @app.after_request
    async def finish(response: QuartResponse) -> QuartResponse:
        # The route's pattern, never the path itself: its values would make endless series.
        rule = request.url_rule.rule if request.url_rule else "none"
        parts.metrics.requests.labels(rule, request.method, response.status_code).inc()
        parts.metrics.seconds.labels(rule).observe(time.perf_counter() - g.get("started_s", time.perf_counter()))
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        if request.method in ("POST", "PUT"):
            # What was committed should reach its followers now, not at the next poll.
            parts.notifier.nudge()
        if request.method == "PUT" and response.status_code >= 400 and not await drained(request.body, request.scope):
            response.headers["Connection"] = "close"
        return response


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises Unavailable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(1024)
    except OSError as problem:
        sock.close()
        raise Unavailable(
            f"port {port} of {host} cannot be used: {problem.strerror}",
            remedy="Stop what uses it, or set QUBIX_HTTP_PORT to another one (0 takes a free one)",
        ) from None
    sock.setblocking(False)
    return sock


class Server(uvicorn.Server):
    """Signals are the composition root's business, not Uvicorn's."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_for(app: Quart, trusted_proxies: tuple[str, ...] = ()) -> Server:
    # It reports each connection and each late one at shutdown: our own lines say what matters.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    logging.getLogger("quart").setLevel(logging.CRITICAL)
    return Server(
        uvicorn.Config(
            Paced(app),
            http="httptools",
            ws=FramesProtocol,
            ws_max_size=LINK_MESSAGE_BYTES_MAX,
            ws_ping_interval=20.0,
            ws_ping_timeout=20.0,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=list(trusted_proxies),
            server_header=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_STOP_S,
        )
    )
