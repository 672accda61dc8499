# SPDX-License-Identifier: Apache-2.0
"""A WebSocket client whose TCP connection is always closed (trio-websocket forgets it when the server ends first)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import trio
from trio_websocket import wrap_client_stream

from qubix_mesh.nursery import plain_nursery
from qubix_protocol.units import LINK_MESSAGE_BYTES_MAX

CONNECT_S: Final = 10.0
GOODBYE_S: Final = 0.5
_QUEUE_MESSAGES: Final = 16


@asynccontextmanager
async def open_socket(url: str, headers: list[tuple[bytes, bytes]]) -> AsyncIterator[Any]:
    """ws:// or wss://. Raises OSError, `HandshakeError` or `TooSlowError` when it cannot be opened."""
    parts = urlsplit(url)
    with trio.fail_after(CONNECT_S):
        stream = await _open_stream(parts.scheme, parts.hostname or "", parts.port)
    try:
        async with plain_nursery() as nursery:
            with trio.fail_after(CONNECT_S):
                socket = await wrap_client_stream(
                    nursery,
                    stream,
                    parts.netloc.rpartition("@")[2],
                    parts.path,
                    extra_headers=headers,
                    message_queue_size=_QUEUE_MESSAGES,
                    max_message_size=LINK_MESSAGE_BYTES_MAX,
                )
            try:
                yield socket
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + GOODBYE_S):
                    await socket.aclose()
                nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


async def _open_stream(scheme: str, host: str, port: int | None) -> Any:
    if scheme != "wss":
        return await trio.open_tcp_stream(host, port or 80)
    stream = await trio.open_ssl_over_tcp_stream(host, port or 443, https_compatible=True)
    try:
        # Now, not with the first byte: trio-websocket would wait for an answer that never comes.
        await stream.do_handshake()
    except BaseException as problem:
        await trio.aclose_forcefully(stream)
        if isinstance(problem, trio.BrokenResourceError):
            raise ConnectionError(f"no TLS with {host}: {problem.__cause__ or problem}") from problem
        raise
    return stream
