# SPDX-License-Identifier: Apache-2.0
"""The coordinator's HTTP face for node tests, in a thread: network, enrolment, artifacts; with faults on demand."""

import base64
import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec

from qubix_node.clock import wall_ms
from qubix_protocol.api import EnrolView, NetworkView, Problem
from qubix_protocol.envelope import open_envelope
from qubix_protocol.errors import ProtocolError
from qubix_protocol.keys import SigningKey, peer_id
from qubix_protocol.messages import ArtifactRequest, Enrol
from qubix_protocol.units import Network

PREFIX = "/api/v1/artifacts/"


class FakeHttp:
    """State of the server; set it from the test. `cut_after` bytes an artifact's transfer breaks off, `cuts` times."""

    def __init__(self, key: SigningKey, network: Network = "devnet") -> None:
        self.key, self.network = key, network
        self.gateways: tuple[str, ...] = ()
        self.artifacts: dict[str, bytes] = {}
        self.staged: dict[str, bytes] = {}
        self.enrolled: list[Enrol] = []
        self.requests: list[str] = []
        self.passes: list[ArtifactRequest] = []
        self.statuses: list[int] = []
        """Answered in turn before anything is looked at."""
        self.cut_after = 0
        self.cuts = 0
        self.ignore_range = False

    def view(self) -> NetworkView:
        return NetworkView(
            network=self.network,
            coordinator_key=self.key.public.hex(),
            protocol_version=1,
            fee_bps=250,
            gateways=self.gateways,
            regions=("here",),
            clock_ms=wall_ms(),
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FakeHttp

    def log_message(self, *args: object) -> None:
        return

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self) -> bytes | None:
        """The request's body, unless a fault is due."""
        self.state.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.state.statuses:
            problem = Problem(type="t", title="no", status=0, code="no", remedy="do something else")
            self._answer(self.state.statuses.pop(0), msgspec.json.encode(problem))
            return None
        return body

    def do_GET(self) -> None:
        if self._begin() is None:
            return
        if self.path == "/api/v1/network":
            self._answer(200, msgspec.json.encode(self.state.view()))
        else:
            self._send_artifact()

    def do_POST(self) -> None:
        body = self._begin()
        if body is None:
            return
        try:
            opened = open_envelope(body, network=self.state.network, audience=self.state.key.public, now_ms=wall_ms())
            self.state.enrolled.append(opened.body(Enrol))
        except ProtocolError as error:
            self._answer(400, msgspec.json.encode(Problem(type="t", title=str(error), status=400, code=error.code)))
            return
        view = EnrolView(
            peer_id=peer_id(opened.header.sender),
            account_id="00000000-0000-0000-0000-00000000acc0",
            network=self.state.network,
            coordinator_key=self.state.key.public.hex(),
            gateways=self.state.gateways,
            region="here",
        )
        self._answer(200, msgspec.json.encode(view))

    def do_HEAD(self) -> None:
        if self._begin() is None or not self._allowed():
            return
        name = self.path.removeprefix(PREFIX)
        stored = self.state.artifacts.get(name, self.state.staged.get(name, b""))
        self._answer(200, Upload_Offset=str(len(stored)))

    def do_PUT(self) -> None:
        body = self._begin()
        if body is None or not self._allowed():
            return
        name = self.path.removeprefix(PREFIX)
        first, last, size = map(int, re.findall(r"\d+", self.headers["Content-Range"]))
        staged = self.state.staged.get(name, b"")
        if first != len(staged) or last + 1 - first != len(body):
            self._answer(409, Upload_Offset=str(len(staged)))
            return
        if self.state.cuts:
            self.state.cuts -= 1
            self.state.staged[name] = staged + body[: self.state.cut_after]
            self.close_connection = True
            return
        self.state.staged[name] = staged + body
        if len(staged) + len(body) == size:
            self._finish(name)
        else:
            self._answer(200, Upload_Offset=str(len(staged) + len(body)))

    def _finish(self, name: str) -> None:
        data = self.state.staged.pop(name)
        if hashlib.sha256(data).hexdigest() != name:
            self._answer(422)
            return
        self.state.artifacts[name] = data
        self._answer(201)

    def _send_artifact(self) -> None:
        if not self._allowed():
            return
        data = self.state.artifacts.get(self.path.removeprefix(PREFIX))
        if data is None:
            self._answer(404)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and not self.state.ignore_range else 0
        part = data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.state.cuts:
            self.state.cuts -= 1
            part = part[: self.state.cut_after]
            self.close_connection = True
        self.wfile.write(part)

    def _allowed(self) -> bool:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        try:
            raw = base64.b64decode(token)
            opened = open_envelope(raw, network=self.state.network, audience=self.state.key.public, now_ms=wall_ms())
            request = opened.body(ArtifactRequest)
        except (ProtocolError, ValueError):
            self._answer(401)
            return False
        self.state.passes.append(request)
        fits = scheme == "Qubix" and (request.method, request.digest.hex()) == (
            self.command,
            self.path.removeprefix(PREFIX),
        )
        if not fits:
            self._answer(403)
        return fits


@contextmanager
def serve_http(state: FakeHttp) -> Iterator[str]:
    """Its address."""
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
