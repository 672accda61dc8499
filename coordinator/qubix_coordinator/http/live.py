# SPDX-License-Identifier: Apache-2.0
"""`/live`: the state of what a client watches, then every change of it, in order, each once.

A connection starts with who asks (the Authorization header, or `{"token": …}` as first frame) and a `Subscribe`.
Without a cursor each topic's snapshot comes first; only the last of them carries the cursor, so that a client which
lost the connection half way through asks for snapshots again. With a cursor the feed goes on behind it, or says `reset`
and sends snapshots when that is too long ago. Another `Subscribe` on the same connection replaces the one before.

A client that does not read is cut off (1013); it loses nothing, because it can resume.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, Final, NamedTuple, NoReturn, TypeVar, cast
from uuid import UUID

import msgspec
from msgspec import Meta
from quart import Quart, websocket

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.disputes import service as disputes
from qubix_coordinator.errors import InvalidInput, QubixError, Unauthorised
from qubix_coordinator.http import cookies, money
from qubix_coordinator.http.context import Context, here
from qubix_coordinator.http.pacing import next_message
from qubix_coordinator.http.problems import MalformedBody, problem_of
from qubix_coordinator.http.routes import TOKEN_REMEDY, bearer, principal
from qubix_coordinator.http.sockets import GOING_AWAY, Stopping, close, until_closing
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.market import service as market
from qubix_coordinator.outbox import Cursor, Event, parse_cursor
from qubix_coordinator.outbox.notifier import Overflow
from qubix_coordinator.rentals import service as rentals
from qubix_protocol.api import Subscribe

log = logging.getLogger(__name__)
LIVE_PATH: Final = "/live"
_TOKEN_S: Final = 10.0
_SEND_S: Final = 20.0
_ENCODED_MAX: Final = 1024
REFUSED: Final = 1008
TOO_SLOW: Final = 1013
TRY_AGAIN: Final = 1013
MARKET: Final = "market"
ACCOUNT: Final = "account"
_JOB: Final = "job:"
_RENTAL: Final = "rental:"
_DISPUTE: Final = "dispute:"
T = TypeVar("T")


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First frame of a client that cannot set headers, such as a browser."""

    token: Annotated[str, Meta(max_length=200)]


class TooSlow(Exception):
    """The client reads slower than things happen."""


class Topic(NamedTuple):
    """What the client calls it, and what the outbox does."""

    name: str
    source: str


def install(app: Quart) -> None:
    @app.websocket(LIVE_PATH)
    async def live() -> None:
        context = here()
        who = await _asker()
        await websocket.accept()
        with context.metrics.followers.track_inprogress():
            await _serve(context, who)


async def _asker() -> Principal | None:
    """Who the headers speak for; None: the first frame will say. A cookie serves our own pages alone."""
    if "Authorization" in websocket.headers:
        return await bearer("user", websocket.headers)
    if token := cookies.token_of(websocket.headers):
        cookies.check_origin(websocket.headers)
        return await principal(token, "user")
    return None


async def _serve(context: Context, who: Principal | None) -> None:
    """Until the client goes (Quart cancels this), is refused, is too slow, or the server stops."""
    try:
        who = who or await _first_frame()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(until_closing(context))
            tasks.create_task(_listen(context, who, tasks))
    except* Stopping:
        await close(GOING_AWAY, "the server stops; connect again")
    except* (TooSlow, Overflow):
        await close(TOO_SLOW, "too much waits for you; resume with your cursor")
    except* (QubixError, msgspec.ValidationError) as problems:
        told = problem_of(problems.exceptions[0])
        with contextlib.suppress(TooSlow):
            await _send(msgspec.json.encode(told).decode())
        await close(TRY_AGAIN if told.status == 503 else REFUSED, told.code)


async def _first_frame() -> Principal:
    try:
        async with asyncio.timeout(_TOKEN_S):
            first = await next_message()
    except TimeoutError:
        raise Unauthorised("no token came in time", field="token", remedy=TOKEN_REMEDY) from None
    return await principal(_decoded(first, Token).token, "user")


async def _listen(context: Context, who: Principal, tasks: asyncio.TaskGroup) -> NoReturn:
    feed: asyncio.Task[None] | None = None
    while True:
        wanted = _decoded(await next_message(), Subscribe)
        if feed is not None:
            feed.cancel()
            await asyncio.wait([feed])
        feed = tasks.create_task(_feed(context, who, wanted))


async def _feed(context: Context, who: Principal, wanted: Subscribe) -> NoReturn:
    topics = [await _topic(context, who, name) for name in dict.fromkeys(wanted.subscribe)]
    if wanted.cursor:
        with contextlib.suppress(Overflow):
            await _follow(context, topics, _cursor(wanted.cursor))
        await _send(_encode("*", "reset", ""))
    cursor = await context.notifier.position()
    await _send_snapshots(context, who, topics, cursor)
    await _follow(context, topics, cursor)


async def _follow(context: Context, topics: Sequence[Topic], cursor: Cursor) -> NoReturn:
    """Until the process stops. Raises Overflow for a cursor that is too old, TooSlow for a client that is."""
    names = {topic.source: topic.name for topic in topics}
    sent = False
    try:
        follow = cast("AsyncGenerator[Event, None]", context.notifier.follow(cursor, names))
        async with contextlib.aclosing(follow) as events:
            async for event in events:
                await _send(_delta(names[event.topic], event.topic, event.cursor, _Payload(event)))
                sent = True
    except Overflow:
        if sent:
            raise TooSlow from None
        raise
    raise Stopping


async def _send_snapshots(context: Context, who: Principal, topics: Sequence[Topic], cursor: Cursor) -> None:
    for topic in topics:
        state = await _state(context, who, topic)
        await _send(_encode(topic.name, "snapshot", str(cursor) if topic is topics[-1] else "", state))


async def _state(context: Context, who: Principal, topic: Topic) -> Any:
    if topic.name == MARKET:
        return await market.listings(context.db, now_ms=context.now_ms())
    if topic.name == ACCOUNT:
        return await money.account(context.db, who)
    if topic.name.startswith(_RENTAL):
        return await rentals.get(context.desk, who, topic.name.removeprefix(_RENTAL))
    if topic.name.startswith(_DISPUTE):
        return await disputes.get(context.desk, who, UUID(topic.name.removeprefix(_DISPUTE)))
    return await jobs.get(context.desk, who, topic.name.removeprefix(_JOB))


async def _topic(context: Context, who: Principal, name: str) -> Topic:
    """Raises InvalidInput for what is no topic, NotFound for what is somebody else's."""
    if name == MARKET:
        return Topic(MARKET, MARKET)
    if name == ACCOUNT:
        return Topic(ACCOUNT, f"account:{who.account_id}")
    if name.startswith(_JOB):
        job_id = _uuid(name.removeprefix(_JOB), "job")
        await jobs.get(context.desk, who, str(job_id))
        return Topic(f"{_JOB}{job_id}", f"{_JOB}{job_id}")
    if name.startswith(_RENTAL):
        rental_id = _uuid(name.removeprefix(_RENTAL), "rental")
        await rentals.get(context.desk, who, str(rental_id))
        return Topic(f"{_RENTAL}{rental_id}", f"{_RENTAL}{rental_id}")
    if name.startswith(_DISPUTE):
        dispute_id = _uuid(name.removeprefix(_DISPUTE), "dispute")
        await disputes.get(context.desk, who, dispute_id)
        return Topic(f"{_DISPUTE}{dispute_id}", f"{_DISPUTE}{dispute_id}")
    known = "Use market, account, job:ID, rental:ID, or dispute:ID"
    raise InvalidInput("subscribe", f"there is no topic {name!r}", known)


def _uuid(text: str, what: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput("subscribe", f"{text!r} is not the id of a {what}", f"Use {what}:ID") from None


def _cursor(text: str) -> Cursor:
    found = parse_cursor(text)
    if found is None:
        raise InvalidInput("cursor", f"{text!r} is not a cursor", "Send the last cursor you got, or none")
    return found


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
        raise TooSlow from None
