# SPDX-License-Identifier: Apache-2.0
"""A link over TLS: it begins as TLS, believes only a certificate that is vouched for, and its failures are losses."""

import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from trio_websocket import WebSocketRequest, serve_websocket

from qubix_mesh.gateway.link import _LOSSES
from qubix_mesh.gateway.websocket import open_socket
from tests.mesh.mesh_world import DEADLINE_S

pytestmark = pytest.mark.trio
TOKEN = [(b"Authorization", b"Bearer x")]


def certificate(folder: Path) -> Path:
    """For localhost, signed by nobody but itself; its key is in the same file."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "q")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "tls.pem"
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + secret)
    return path


@asynccontextmanager
async def tcp_server(answer: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def tls_server(pem: Path) -> AsyncIterator[int]:
    async def answer(request: WebSocketRequest) -> None:
        socket = await request.accept()
        await socket.send_message(await socket.get_message())

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, answer, "127.0.0.1", 0, context)
        yield server.port
        nursery.cancel_scope.cancel()


async def test_wss_speaks_tls_from_its_first_byte() -> None:
    first: list[bytes] = []

    async def answer(stream: trio.SocketStream) -> None:
        first.append(await stream.receive_some(1))

    async with tcp_server(answer) as port:
        with pytest.raises(_LOSSES), trio.fail_after(DEADLINE_S):
            async with open_socket(f"wss://localhost:{port}/mesh/link", TOKEN):
                pass
    assert first == [b"\x16"]


async def test_a_certificate_that_is_vouched_for_carries_the_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    async with tls_server(pem) as port:
        with trio.fail_after(DEADLINE_S):
            async with open_socket(f"wss://localhost:{port}/mesh/link", TOKEN) as socket:
                await socket.send_message(b"hello")
                assert await socket.get_message() == b"hello"


async def test_a_certificate_of_nobody_is_a_loss(tmp_path: Path) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True)
        with pytest.raises(trio.BrokenResourceError):
            await tls.do_handshake()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate(tmp_path))
    async with tcp_server(answer) as port:
        with pytest.raises(_LOSSES), trio.fail_after(DEADLINE_S):
            async with open_socket(f"wss://localhost:{port}/mesh/link", TOKEN):
                pass
