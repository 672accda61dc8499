# SPDX-License-Identifier: Apache-2.0
"""The way to the artifact store, there and back, with a test artifact of the node's own.

It goes where a job's data goes, signed like that for one method, digest and size (trust D1); the store keeps one test
artifact of a node, for minutes.
"""

import hashlib
import os
from collections.abc import Awaitable, Callable

import httpx
import trio

from qubix_node.errors import NotLinked
from qubix_node.selftest import rules
from qubix_node.selftest.rules import Way
from qubix_node.selftest.tools import Tools
from qubix_protocol.selftest import PROBE_BYTES_MAX, Check, ProbeRequest

_REQUEST_S = 60.0
Authorise = Callable[[ProbeRequest], Awaitable[tuple[str, str]]]
Measure = Callable[[Authorise], Awaitable[Way]]


async def look(tools: Tools) -> list[Check]:
    return [rules.bandwidth(await tools.way())]


async def measured(client: httpx.AsyncClient, authorise: Authorise, size_bytes: int = PROBE_BYTES_MAX) -> Way:
    """Never raises for what a network does."""
    data = os.urandom(size_bytes)
    digest = hashlib.sha256(data).digest()
    try:
        with trio.fail_after(2 * _REQUEST_S):
            up_s, _ = await _timed(client, authorise, "PUT", digest, data)
            down_s, came = await _timed(client, authorise, "GET", digest, data)
    except (httpx.HTTPError, NotLinked, trio.TooSlowError) as error:
        return Way(problem=str(error) or type(error).__name__)
    if came != data:
        return Way(problem="the store gave back other bytes than were sent")
    return Way(up=size_bytes / up_s, down=size_bytes / down_s)


async def _timed(
    client: httpx.AsyncClient, authorise: Authorise, method: str, digest: bytes, data: bytes
) -> tuple[float, bytes]:
    """Seconds, and what came. Raises `httpx.HTTPError` or `NotLinked`."""
    base, token = await authorise(ProbeRequest(method=method, digest=digest, size_bytes=len(data)))
    url, began = f"{base.rstrip('/')}/{digest.hex()}", trio.current_time()
    content = data if method == "PUT" else None
    async with client.stream(
        method, url, headers={"Authorization": token}, content=content, timeout=_REQUEST_S
    ) as response:
        response.raise_for_status()
        came = bytearray()
        async for block in response.aiter_bytes():
            came += block
            if len(came) > len(data):
                break
    return max(trio.current_time() - began, 1e-6), bytes(came)
