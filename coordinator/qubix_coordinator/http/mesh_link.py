# SPDX-License-Identifier: Apache-2.0
"""`/mesh/link`: the WebSocket on which a gateway brings its nodes. Each message is one batch of `link` frames."""

import asyncio
import contextlib
import logging
from typing import Final, NoReturn

from quart import Quart, websocket

from qubix_coordinator.http.context import Context, here
from qubix_coordinator.http.mesh import Link, LinkBroken
from qubix_coordinator.http.pacing import next_message
from qubix_coordinator.http.routes import bearer
from qubix_coordinator.http.sockets import GOING_AWAY, Stopping, close, until_closing
from qubix_protocol.errors import Malformed, ProtocolError
from qubix_protocol.link import LINK_PATH, LinkOpen, LinkReady, ToGateway, decode_gateway, encode_coordinator
from qubix_protocol.units import offers_topic

log = logging.getLogger(__name__)
_OPEN_S: Final = 10.0
_BATCH_MAX: Final = 256
_BATCH_BYTES: Final = 1024 * 1024
_SEND_S: Final = 20.0


def install(app: Quart) -> None:
    @app.websocket(LINK_PATH)
    async def mesh_link() -> None:
        await bearer("gateway", websocket.headers)
        await websocket.accept()
        context = here()
        try:
            async with asyncio.timeout(_OPEN_S):
                opened = await _opened(context)
        except (ProtocolError, TimeoutError) as problem:
            context.mesh.count(getattr(problem, "code", "no_open"))
            await close(1008, str(problem) or "no `open` frame came in time")
            return
        await _serve(context, opened)


async def _opened(context: Context) -> LinkOpen:
    items = decode_gateway(_binary(await next_message()))
    if len(items) != 1 or not isinstance(items[0], LinkOpen):
        raise Malformed("the first message is one `open` frame")
    if items[0].network != context.network:
        raise Malformed(f"this is the network {context.network}, the gateway is of {items[0].network}")
    return items[0]


async def _serve(context: Context, opened: LinkOpen) -> None:
    """Until the gateway goes (Quart cancels this then), breaks the protocol, does not read, or the server stops."""
    link = None
    try:
        async with asyncio.TaskGroup() as tasks:
            link = Link(context.mesh, opened, tasks.create_task)
            link.send(_ready(context))
            context.mesh.add(link)
            tasks.create_task(_write(link))
            tasks.create_task(_read(link))
            tasks.create_task(_until_broken(link))
            tasks.create_task(until_closing(context))
    except* Stopping:
        await close(GOING_AWAY, "the coordinator stops")
    except* (ProtocolError, LinkBroken) as problems:
        problem = problems.exceptions[0]
        context.mesh.count(getattr(problem, "code", "link_broken"))
        log.warning("mesh.link_broken", extra={"gateway": opened.gateway_peer_id, "problem": str(problem)})
        await close(1008, str(problem))
    finally:
        if link is not None:
            context.mesh.remove(link)


def _ready(context: Context) -> LinkReady:
    topics = tuple(offers_topic(context.network, region) for region in context.settings.regions)
    return LinkReady(network=context.network, coordinator=context.key.public, clock_ms=context.now_ms(), topics=topics)


def _binary(data: str | bytes) -> bytes:
    if isinstance(data, str):
        raise Malformed("text where MessagePack was expected")
    return data


async def _read(link: Link) -> NoReturn:
    while True:
        link.receive(decode_gateway(_binary(await next_message())))


async def _write(link: Link) -> NoReturn:
    while True:
        batch = [await link.outgoing.get()]
        size = _size(batch[0])
        while len(batch) < _BATCH_MAX and size < _BATCH_BYTES:
            with contextlib.suppress(asyncio.QueueEmpty):
                batch.append(link.outgoing.get_nowait())
                size += _size(batch[-1])
                continue
            break
        try:
            async with asyncio.timeout(_SEND_S):
                await websocket.send(encode_coordinator(tuple(batch)))
        except TimeoutError:
            raise LinkBroken("the gateway does not read") from None


def _size(item: ToGateway) -> int:
    return sum(map(len, getattr(item, "frames", ())))


async def _until_broken(link: Link) -> NoReturn:
    await link.broken.wait()
    raise LinkBroken("the gateway does not read: too much waits for it")
