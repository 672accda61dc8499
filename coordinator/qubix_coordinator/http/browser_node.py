# SPDX-License-Identifier: Apache-2.0
"""`/api/v1/browser-node`: the WebSocket of a browser tab that shares its GPU (docs/adr/0032).

The tab says what any node says, signed by a key of its own; here stands what a gateway's `Link` is to other nodes, with
one `Peer` on it. The connection that ends is the node that is gone: its listing leaves the market at once.
"""

import asyncio
import logging
from typing import Final, NoReturn

from quart import Quart, websocket

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import QubixError
from qubix_coordinator.http import cookies
from qubix_coordinator.http.context import Context, here
from qubix_coordinator.http.mesh import Mesh
from qubix_coordinator.http.pacing import next_message
from qubix_coordinator.http.peer import TAKEN_OVER, Peer
from qubix_coordinator.http.rates import asker_of
from qubix_coordinator.http.sockets import GOING_AWAY, Stopping, close, until_closing
from qubix_coordinator.market import places
from qubix_protocol import browser
from qubix_protocol.browser import BROWSER_PATH, BrowserOffer, BrowserOpen, BrowserSay
from qubix_protocol.errors import Malformed, ProtocolError
from qubix_protocol.keys import public_key_of

log = logging.getLogger(__name__)
_OPEN_S: Final = 10.0
_SEND_S: Final = 20.0
_WAITING_MAX: Final = 256
"""Envelopes that wait for one tab: beyond it the tab is cut off, and comes back."""
REFUSED: Final = 1008
TRY_AGAIN: Final = 1013


class TabEnded(Exception):
    """The tab does not read, breaks the protocol, or was dropped. `code` is the WebSocket's."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Tab:
    """One tab's socket as a `peer.Carrier`."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._ended: asyncio.Future[TabEnded] = asyncio.get_running_loop().create_future()
        self.outgoing: asyncio.Queue[bytes] = asyncio.Queue(_WAITING_MAX)

    def to_peer(self, peer_id: str, raw: bytes) -> None:
        try:
            self.outgoing.put_nowait(raw)
        except asyncio.QueueFull:
            self._end(TRY_AGAIN, "the tab does not read: too much waits for it")

    def drop(self, peer: Peer, reason: str) -> None:
        self._end(browser.TAKEN_OVER if reason == TAKEN_OVER else REFUSED, reason)
        self.forget(peer)

    def forget(self, peer: Peer) -> None:
        peer.stop()
        self._mesh.closed(peer)

    def _end(self, code: int, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result(TabEnded(code, reason))

    async def until_ended(self) -> NoReturn:
        raise await asyncio.shield(self._ended)


def install(app: Quart) -> None:
    @app.websocket(BROWSER_PATH)
    async def browser_node() -> None:
        # Only pages of this very server may use it, port and all: there is no cookie, and still a visitor's GPU is
        # offered by the page that they look at alone (trust A2).
        cookies.check_origin(websocket.headers)
        context, address = here(), asker_of(websocket.remote_addr)
        context.doors.tab(address, context.clock.monotonic_s())
        with context.doors.sockets.one(address):
            await websocket.accept()
            try:
                session = await _opened(context, address)
            except (ProtocolError, QubixError, TimeoutError) as problem:
                context.mesh.count(getattr(problem, "code", "no_open"))
                await close(REFUSED, str(problem) or "no `open` frame came in time")
                return
            await _serve(context, session)


async def _opened(context: Context, address: str) -> Peer:
    """By the first frame. Raises LimitExceeded for an address that brings too many keys that were never here."""
    async with asyncio.timeout(_OPEN_S):
        opened = browser.decode(_binary(await next_message()))
    if not isinstance(opened, BrowserOpen):
        raise Malformed("the first message is one `open` frame")
    if opened.network != context.network:
        raise Malformed(f"this is the network {context.network}, the tab is of {opened.network}")
    session = context.mesh.session(opened.peer_id, hidden=False)
    if not await context.db.run(lambda tx: _known(tx, opened.peer_id)):
        context.doors.new_key(address, context.clock.monotonic_s())
    return Peer(context.mesh, Tab(context.mesh), session, places.country(websocket.remote_addr or ""), browser=True)


async def _known(tx: Tx, peer_id: str) -> bool:
    """The account itself is made by the first statement that the key signs (trust A1)."""
    return await accounts.account_of_key(tx, public_key_of(peer_id)) is not None


async def _serve(context: Context, peer: Peer) -> None:
    """Until the tab goes (Quart cancels this then), breaks the protocol, does not read, or the server stops."""
    tab = peer.link
    assert isinstance(tab, Tab)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(peer.run())
            tasks.create_task(_write(tab))
            tasks.create_task(_read(peer))
            tasks.create_task(tab.until_ended())
            tasks.create_task(until_closing(context))
    except* Stopping:
        await close(GOING_AWAY, "the coordinator stops")
    except* (ProtocolError, TabEnded) as problems:
        problem = problems.exceptions[0]
        context.mesh.count(getattr(problem, "code", "tab_ended") if isinstance(problem, ProtocolError) else "tab_ended")
        log.info("tab.ended", extra={"peer": peer.peer_id, "problem": str(problem)})
        await close(problem.code if isinstance(problem, TabEnded) else REFUSED, str(problem))
    finally:
        peer.gone = True
        tab.forget(peer)


def _binary(data: str | bytes) -> bytes:
    if isinstance(data, str):
        raise Malformed("text where MessagePack was expected")
    return data


async def _read(peer: Peer) -> NoReturn:
    while True:
        match browser.decode(_binary(await next_message())):
            case BrowserSay(statement=statement):
                taken = peer.offer_frame(statement)
            case BrowserOffer(advert=advert):
                taken = peer.offer_gossip(advert)
            case BrowserOpen():
                raise Malformed("a tab opens once")
        if not taken:
            raise TabEnded(TRY_AGAIN, "too many statements at once")


async def _write(tab: Tab) -> NoReturn:
    while True:
        raw = await tab.outgoing.get()
        try:
            async with asyncio.timeout(_SEND_S):
                await websocket.send(raw)
        except TimeoutError:
            raise TabEnded(TRY_AGAIN, "the tab does not read") from None
