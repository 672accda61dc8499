# SPDX-License-Identifier: Apache-2.0
"""`/live`: the state of what a client watches, then every change of it, in order, each once.

A connection starts with who asks (the Authorization header, or `{"token": …}` as first frame) and a `Subscribe`. Who
says nothing of that is a visitor: the market and its listings are there for all to see.
Without a cursor a topic's snapshot comes first. With the cursor that last came with a topic the feed goes on behind it,
or says `reset` and sends a snapshot when that is too long ago. Another `Subscribe` on the same connection replaces the
one before.

What belongs to one account is followed here, event by event. The market is watched by many: `feed` tells them together.
A client that does not read is told so and cut off (1013); it loses nothing, because it can resume.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Final, NoReturn, TypeVar, cast
from uuid import UUID

import msgspec
from msgspec import Meta
from quart import Quart, websocket

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.errors import Forbidden, QubixError, Unauthorised, Unavailable, each
from qubix_coordinator.feed import frames
from qubix_coordinator.feed.bounds import TooSlow
from qubix_coordinator.feed.watchers import Watcher
from qubix_coordinator.http import cookies, live_topics
from qubix_coordinator.http.context import Context, here
from qubix_coordinator.http.live_socket import LiveSocket
from qubix_coordinator.http.live_topics import Own, Shared
from qubix_coordinator.http.pacing import next_message
from qubix_coordinator.http.problems import MalformedBody, problem_of
from qubix_coordinator.http.rates import asker_of
from qubix_coordinator.http.routes import TOKEN_REMEDY, bearer, principal, reading
from qubix_coordinator.http.sockets import GOING_AWAY, Stopping, close, until_closing
from qubix_coordinator.outbox import Cursor, Event
from qubix_coordinator.outbox.notifier import Overflow
from qubix_protocol.api import Subscribe

log = logging.getLogger(__name__)
LIVE_PATH: Final = "/live"
_LOOKING: Final = reading(cookies.SCOPES)
_TOKEN_S: Final = 10.0
_SEND_S: Final = 20.0
_ENCODED_MAX: Final = 1024
REFUSED: Final = 1008
TOO_SLOW: Final = 1013
TRY_AGAIN: Final = 1013
T = TypeVar("T")


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First frame of a client that cannot set headers, such as a browser."""

    token: Annotated[str, Meta(max_length=200)]


def install(app: Quart) -> None:
    @app.websocket(LIVE_PATH)
    async def live() -> None:
        context = here()
        who = await _asker()
        await websocket.accept()
        with context.metrics.followers.track_inprogress():
            await _serve(context, LiveSocket.of(websocket.scope), who)


async def _asker() -> Principal | None:
    """Who the headers speak for; None: the first frame will say. A cookie serves our own pages alone; one that opens
    nothing is none."""
    if "Authorization" in websocket.headers:
        return await bearer(_LOOKING, websocket.headers)
    if token := cookies.token_of(websocket.headers):
        cookies.check_origin(websocket.headers)
        with contextlib.suppress(Unauthorised, Forbidden):
            return await principal(token, _LOOKING)
    return None


async def _serve(context: Context, socket: LiveSocket, who: Principal | None) -> None:
    """Until the client goes (Quart cancels this), is refused, is too slow, or the server stops."""
    first = None
    try:
        if who is None:
            who, first = await _first_frame()
        with _counted(context, who):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(until_closing(context))
                tasks.create_task(_until_cut(socket))
                if who is not None and who.token_id is not None:
                    tasks.create_task(_until_over(context, who.token_id))
                tasks.create_task(_listen(context, socket, who, first, tasks))
    except* Stopping:
        await close(GOING_AWAY, "the server stops; connect again")
    except* (TooSlow, Overflow):
        socket.part(frames.event("*", "slow", None), TOO_SLOW, "too much waits for you; resume with your cursor")
    except* (QubixError, msgspec.ValidationError) as problems:
        told = problem_of(next(each(problems)))
        code = TRY_AGAIN if told.status == 503 else REFUSED
        socket.part(frames.text(msgspec.json.encode(told)), code, told.code)


async def _until_cut(socket: LiveSocket) -> NoReturn:
    raise await socket.until_cut()


async def _until_over(context: Context, token_id: UUID) -> NoReturn:
    """A connection does not outlive its session by long: whoever was signed out elsewhere hears nothing more."""
    while True:
        await asyncio.sleep(context.settings.session_check_s)
        with contextlib.suppress(Unavailable):
            if not await context.db.run(lambda tx: accounts.is_live(tx, token_id)):
                raise Unauthorised("this session has ended", field="token", remedy=TOKEN_REMEDY)


def _counted(context: Context, who: Principal | None) -> contextlib.AbstractContextManager[None]:
    """Visitors have no account to be known by."""
    return contextlib.nullcontext() if who else context.doors.visitors.one(asker_of(websocket.remote_addr))


async def _first_frame() -> tuple[Principal | None, Subscribe | None]:
    """Who asks by a token, or what a visitor wants."""
    try:
        async with asyncio.timeout(_TOKEN_S):
            first = await next_message()
    except TimeoutError:
        raise Unauthorised("nothing was asked for in time", field="token", remedy=TOKEN_REMEDY) from None
    if "subscribe" in _decoded(first, dict[str, msgspec.Raw]):
        return None, _decoded(first, Subscribe)
    return await principal(_decoded(first, Token).token, _LOOKING), None


async def _listen(
    context: Context, socket: LiveSocket, who: Principal | None, wanted: Subscribe | None, tasks: asyncio.TaskGroup
) -> NoReturn:
    feed: asyncio.Task[None] | None = None
    while True:
        wanted = wanted or _decoded(await next_message(), Subscribe)
        if who is None:
            _count(context, wanted)
        if feed is not None:
            feed.cancel()
            await asyncio.wait([feed])
        feed = tasks.create_task(_feed(context, socket, who, wanted))
        wanted = None


def _count(context: Context, wanted: Subscribe) -> None:
    """What a visitor asks for. Raises LimitExceeded."""
    address, now_s = asker_of(websocket.remote_addr), context.clock.monotonic_s()
    context.doors.look(address, now_s)
    for topic in live_topics.asked(wanted):
        if topic.topic == live_topics.MARKET:
            context.doors.watch(address, now_s)


async def _feed(context: Context, socket: LiveSocket, who: Principal | None, wanted: Subscribe) -> None:
    topics = [await live_topics.resolve(context, who, body) for body in live_topics.asked(wanted)]
    shared = [topic for topic in topics if isinstance(topic, Shared)]
    async with _watching(context, socket, shared, visits=who is None), asyncio.TaskGroup() as tasks:
        for topic in topics:
            if isinstance(topic, Own):
                tasks.create_task(_follow_own(context, topic))
        tasks.create_task(asyncio.Event().wait())


@contextlib.asynccontextmanager
async def _watching(context: Context, socket: LiveSocket, topics: list[Shared], *, visits: bool) -> AsyncIterator[None]:
    watchers: list[Watcher] = []

    def drained() -> None:
        for watcher in watchers:
            context.feeds.drained(watcher)

    socket.on_room(drained)
    try:
        for shared in topics:
            ask = context.feeds.watch(
                socket, shared.topic, shared.cursor, order=shared.order, sort=shared.sort, visits=visits
            )
            watchers.append(await ask)
        yield
    finally:
        for watcher in watchers:
            context.feeds.leave(watcher)


async def _follow_own(context: Context, topic: Own) -> NoReturn:
    cursor = topic.cursor
    if cursor is not None:
        with contextlib.suppress(Overflow):
            await _follow(context, topic, cursor)
        await _send(_encode(topic.name, "reset", ""))
    cursor = await context.notifier.position()
    state = await live_topics.state(context, topic.who, topic.name)
    await _send(_encode(topic.name, "snapshot", str(cursor), state))
    await _follow(context, topic, cursor)


async def _follow(context: Context, topic: Own, cursor: Cursor) -> NoReturn:
    """Until the process stops. Raises Overflow for a cursor that is too old, TooSlow for a client that is."""
    sent = False
    try:
        follow = cast("AsyncGenerator[Event, None]", context.notifier.follow(cursor, [topic.source]))
        async with contextlib.aclosing(follow) as events:
            async for event in events:
                await _send(_delta(topic.name, event.topic, event.cursor, _Payload(event)))
                sent = True
    except Overflow:
        if sent:
            raise TooSlow("too much waits") from None
        raise
    raise Stopping


def _decoded(data: str | bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedBody("body", str(error), "Send one JSON value in UTF-8") from None


class _Payload:
    """An event's payload, equal to any other: the cursor beside it is what a cached encoding is found by."""

    def __init__(self, event: Event) -> None:
        self.data = event.payload

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Payload)

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(_ENCODED_MAX)
def _delta(name: str, source: str, cursor: Cursor, payload: _Payload) -> str:
    """Encoded once, sent to all who follow. `source` tells one account's events from another's."""
    return _encode(name, "delta", str(cursor), payload.data)


def _encode(topic: str, kind: str, cursor: str, data: Any = None) -> str:
    return msgspec.json.encode({"topic": topic, "kind": kind, "cursor": cursor, "data": data}).decode()


async def _send(frame: str) -> None:
    try:
        async with asyncio.timeout(_SEND_S):
            await websocket.send(frame)
    except TimeoutError:
        raise TooSlow("nothing was read") from None
