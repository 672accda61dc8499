# SPDX-License-Identifier: Apache-2.0
"""`/live`: snapshot, then every change once and in order; resumed without loss; slow and strange clients."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from qubix_coordinator import outbox
from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.clock import FakeClock
from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.http import live_topics
from qubix_protocol.api import ListingView, LiveEvent, MarketDelta, Problem
from tests.db.support_http import Person, Running, make_person, served
from tests.support.fake_api import listing

pytestmark = pytest.mark.asyncio
DEADLINE_S = 20


class Feed:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def subscribe(self, *topics: str, cursor: str | None = None) -> None:
        await self.send({"subscribe": topics, "cursor": cursor})

    async def send(self, value: Any) -> None:
        await self.socket.send(msgspec.json.encode(value).decode())

    async def next(self) -> LiveEvent:
        """What comes next; that the market is quiet, which is told every few seconds, is passed over."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                event = msgspec.json.decode(await self.socket.recv(), type=LiveEvent)
                if event.kind != "still":
                    return event

    async def refusal(self, code: int = 1008) -> Problem:
        """The problem that the server tells before it closes."""
        async with asyncio.timeout(DEADLINE_S):
            told = msgspec.json.decode(await self.socket.recv(), type=Problem)
            with pytest.raises(ConnectionClosed) as closed:
                await self.socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code
        return told


@contextlib.asynccontextmanager
async def feed_of(running: Running, person: Person | None) -> AsyncIterator[Feed]:
    headers = person.headers if person else {}
    # With a bounded queue this client stops reading while frames wait in it, and so never sees the server's goodbye:
    # each close in the middle of a feed would wait for its deadline of ten seconds.
    async with connect(f"{running.ws}/live", additional_headers=headers, max_queue=None) as socket:
        yield Feed(socket)


async def emit(db: Database, topic: str, first: int, last: int) -> None:
    for number in range(first, last + 1):
        async with db.transaction() as tx:
            payload = {"number": number} if topic != "market" else msgspec.to_builtins(priced(number))
            await outbox.emit(tx, topic, payload)


def priced(number: int) -> ListingView:
    """A listing of its own for each number, so that none takes the place of another."""
    return listing(f"provider-{number}", number)


def numbers(event: LiveEvent) -> list[int]:
    return [one.rate_qu_per_h for one in msgspec.convert(event.data, MarketDelta).listings]


async def test_snapshot_then_deltas_in_order(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    async with served(db, tmp_path) as running, feed_of(running, person) as feed:
        await feed.subscribe("market", "account")
        first = {event.topic: event for event in (await feed.next(), await feed.next())}
        assert (first["market"].kind, first["market"].data) == ("snapshot", [])
        assert (first["account"].kind, first["account"].data["account"]["balance_qu"]) == ("snapshot", 0)
        assert all(event.cursor for event in first.values())
        await emit(db, "market", 1, 3)
        await emit(db, f"account:{person.account_id}", 4, 5)
        await emit(db, f"account:{uuid.uuid4()}", 6, 6)
        await emit(db, "market", 7, 7)
        heard: dict[str, list[int]] = {"market": [], "account": []}
        while sum(map(len, heard.values())) < 6:
            event = await next_delta(feed)
            heard[event.topic] += numbers(event) if event.topic == "market" else [event.data["number"]]
        assert heard == {"market": [1, 2, 3, 7], "account": [4, 5]}


async def next_delta(feed: Feed) -> LiveEvent:
    event = await feed.next()
    assert event.kind == "delta"
    return event


@pytest.mark.parametrize("ends", ["revoked_at = now()", "expires_at = now()"])
async def test_a_connection_ends_with_its_session(db: Database, tmp_path: Path, ends: str) -> None:
    person, other = await make_person(db), await make_person(db)
    async with (
        served(db, tmp_path, session_check_s=0.05) as running,
        feed_of(running, person) as feed,
        feed_of(running, other) as stays,
    ):
        for one in (feed, stays):
            await one.subscribe("account")
            await one.next()
        await db.fetch(f"UPDATE api_token SET {ends} WHERE account_id = $1 RETURNING id", person.account_id)
        assert (await feed.refusal()).code == "unauthorised"
        await emit(db, f"account:{other.account_id}", 1, 1)
        assert (await stays.next()).data == {"number": 1}


@pytest.mark.parametrize("topic", ["market", "account"])
async def test_resuming_loses_and_repeats_nothing(db: Database, tmp_path: Path, topic: str) -> None:
    person, seen = await make_person(db), list[int]()
    source = topic if topic == "market" else f"account:{person.account_id}"
    async with served(db, tmp_path) as running:
        async with feed_of(running, person) as feed:
            await feed.subscribe(topic)
            cursor = (await feed.next()).cursor
        writer = asyncio.create_task(emit(db, source, 1, 60))
        while len(seen) < 60:
            async with feed_of(running, person) as feed:
                await feed.subscribe(topic, cursor=cursor)
                for _ in range(2 if topic == "market" else 7):
                    event = await next_delta(feed)
                    seen += numbers(event) if topic == "market" else [event.data["number"]]
                    cursor = event.cursor
                    if len(seen) == 60:
                        break
        await writer
    assert seen == list(range(1, 61))


async def test_all_followers_get_the_same_bytes(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    async with served(db, tmp_path) as running, contextlib.AsyncExitStack() as stack:
        feeds = [await stack.enter_async_context(feed_of(running, person)) for _ in range(5)]
        for feed in feeds:
            await feed.subscribe("market")
            await feed.next()
        await emit(db, "market", 1, 10)
        frames: list[list[bytes]] = [[] for _ in feeds]
        async with asyncio.timeout(DEADLINE_S):
            for mine, feed in zip(frames, feeds, strict=True):
                told: list[int] = []
                while len(told) < 10:
                    frame = await feed.socket.recv(decode=False)
                    if (event := msgspec.json.decode(frame, type=LiveEvent)).kind == "delta":
                        mine.append(frame)
                        told += numbers(event)
                assert told == list(range(1, 11))
        assert all(one == frames[0] for one in frames)


async def test_changes_are_told_ten_times_a_second_at_most(db: Database, tmp_path: Path) -> None:
    async with served(db, tmp_path) as running, feed_of(running, await make_person(db)) as feed:
        await feed.subscribe("market")
        assert (await feed.next()).kind == "snapshot"
        began_s, heard, frames = time.monotonic(), list[int](), 0
        writing = asyncio.create_task(emit(db, "market", 1, 100))
        while len(heard) < 100:
            heard += numbers(await next_delta(feed))
            frames += 1
        took_s = time.monotonic() - began_s
        await writing
        assert heard == list(range(1, 101))
        assert frames <= took_s / 0.1 + 2


async def test_a_cursor_that_is_too_old_is_reset(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    async with served(db, tmp_path) as running, feed_of(running, person) as feed:
        await emit(db, "market", 1, 2)
        async with asyncio.timeout(DEADLINE_S):
            # What other transactions may still come before is not pruned.
            pruned = 0
            while pruned < 2:
                pruned += await db.run(lambda tx: outbox.prune(tx, -60.0))
        await feed.subscribe("market", cursor="1-1")
        assert (await feed.next()).kind == "reset"
        snapshot = await feed.next()
        assert (snapshot.kind, snapshot.data) == ("snapshot", [])
        await emit(db, "market", 3, 3)
        assert numbers(await next_delta(feed)) == [3]


async def test_several_topics_need_a_cursor_each(db: Database, tmp_path: Path) -> None:
    """One cursor for all would pass over what waits for the next tick of the market."""
    person = await make_person(db)
    async with served(db, tmp_path) as running:
        async with feed_of(running, person) as feed:
            await feed.subscribe("market", "account", cursor="1-1")
            assert (await feed.refusal()).field == "cursor"
        async with feed_of(running, person) as feed:
            await feed.subscribe("market", "account")
            cursors = {event.topic: event.cursor for event in (await feed.next(), await feed.next())}
        await emit(db, "market", 1, 1)
        await emit(db, f"account:{person.account_id}", 2, 2)
        async with feed_of(running, person) as feed:
            await feed.send({"subscribe": [{"topic": topic, "cursor": cursor} for topic, cursor in cursors.items()]})
            market, account = list[int](), list[int]()
            while not (market and account):
                event = await next_delta(feed)
                if event.topic == "market":
                    market += numbers(event)
                else:
                    account.append(event.data["number"])
            assert (market, account) == ([1], [2])


async def test_another_subscription_replaces_the_first(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    async with served(db, tmp_path) as running, feed_of(running, person) as feed:
        await feed.subscribe("market")
        await feed.next()
        await feed.subscribe("account")
        assert (await feed.next()).topic == "account"
        await emit(db, "market", 1, 1)
        await emit(db, f"account:{person.account_id}", 2, 2)
        assert (await feed.next()).data == {"number": 2}


async def test_a_browser_sends_its_token_first(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    async with served(db, tmp_path) as running, feed_of(running, None) as feed:
        await feed.send({"token": person.token})
        await feed.subscribe("market")
        assert (await feed.next()).kind == "snapshot"


async def test_a_visitor_follows_the_market_and_nothing_that_is_anybodys_own(db: Database, tmp_path: Path) -> None:
    async with served(db, tmp_path) as running:
        async with feed_of(running, None) as feed:
            await feed.subscribe("market", f"listing:{uuid.UUID(int=7)}")
            assert {(await feed.next()).kind, (await feed.next()).kind} == {"snapshot"}
            await emit(db, "market", 1, 1)
            assert numbers(await next_delta(feed)) == [1]
            await feed.send({"subscribe": [{"topic": "market", "query": "price>=100"}]})
            assert (await feed.next()).data == []
        own = ["account", *(f"{kind}:{uuid.UUID(int=7)}" for kind in ("job", "rental", "dispute", "pairing", "model"))]
        for topic in own:
            async with feed_of(running, None) as feed:
                await feed.subscribe("market", topic)
                told = await feed.refusal()
                assert (told.code, told.status, bool(told.remedy)) == ("unauthorised", 401, True)


async def test_a_state_that_cannot_be_read_just_now_is_told_as_that(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*asked: Any) -> Any:
        raise Unavailable("the database is away", remedy="Try again in a few seconds")

    monkeypatch.setattr(live_topics, "state", away)
    person = await make_person(db)
    async with served(db, tmp_path) as running, feed_of(running, person) as feed:
        await feed.subscribe("account")
        assert (await feed.refusal(1013)).code == "unavailable"


async def test_visitors_of_one_address_are_counted_while_they_are_here(db: Database, tmp_path: Path) -> None:
    async with served(db, tmp_path) as running, contextlib.AsyncExitStack() as stack:
        here = [await stack.enter_async_context(feed_of(running, None)) for _ in range(32)]
        for feed in here:
            await feed.subscribe("market")
            assert (await feed.next()).kind == "snapshot"
        async with feed_of(running, None) as feed:
            await feed.subscribe("market")
            assert (await feed.refusal()).code == "limit_exceeded"
        person = await make_person(db)
        async with feed_of(running, person) as feed:
            await feed.subscribe("market")
            assert (await feed.next()).kind == "snapshot"
        await here[0].socket.close()
        async with asyncio.timeout(DEADLINE_S):
            told = "limit_exceeded"
            while "limit_exceeded" in told:
                async with feed_of(running, None) as feed:
                    await feed.subscribe("market")
                    told = str(await feed.socket.recv())
        assert '"snapshot"' in told


async def test_a_visitor_who_asks_without_end_is_told_to_wait(db: Database, tmp_path: Path) -> None:
    """While the clock stands: nothing is granted anew, however slowly it is asked."""
    async with served(db, tmp_path, clock=FakeClock()) as running, feed_of(running, None) as feed:
        for _ in range(100):
            with contextlib.suppress(ConnectionClosed):
                await feed.subscribe("market")
        async with asyncio.timeout(DEADLINE_S):
            while "limit_exceeded" not in str(await feed.socket.recv()):
                pass
        async with running.client() as http:
            for _ in range(121):
                refused = await http.get("/api/v1/offers")
                if refused.status_code != 200:
                    break
            assert refused.status_code == 429
            assert int(refused.headers["Retry-After"]) >= 1
            assert (await http.get("/api/v1/kernels")).status_code == 200


@pytest.mark.parametrize(
    ("frame", "code", "field"),
    [
        ({"subscribe": ["nonsense"]}, "invalid_input", "subscribe"),
        ({"subscribe": ["job:nonsense"]}, "invalid_input", "subscribe"),
        ({"subscribe": [f"job:{uuid.UUID(int=7)}"]}, "not_found", None),
        ({"subscribe": []}, "invalid_input", "subscribe"),
        ({"subscribe": ["market"], "cursor": "yesterday"}, "invalid_input", "cursor"),
        ({"subscribe": ["market"], "topics": []}, "invalid_input", "topics"),
        ({"subscribe": [f"account:{uuid.UUID(int=7)}"]}, "invalid_input", "subscribe"),
        ({"subscribe": ["listing:nonsense"]}, "invalid_input", "subscribe"),
        ({"subscribe": [{"topic": "market", "query": "gpu_rum>=8"}]}, "invalid_input", "subscribe"),
        ({"subscribe": [{"topic": "market", "order": "beauty"}]}, "invalid_input", "subscribe"),
        ({"subscribe": [{"topic": "account", "query": "gpu_ram>=8"}]}, "invalid_input", "subscribe"),
        ({"subscribe": [{"topic": "market", "query": f"gpu_ram>={n}"} for n in range(9)]}, "limit_exceeded", None),
        ([], "invalid_input", "body"),
    ],
)
async def test_what_cannot_be_followed_is_told(
    db: Database, tmp_path: Path, frame: Any, code: str, field: str | None
) -> None:
    person = await make_person(db)
    async with served(db, tmp_path) as running, feed_of(running, person) as feed:
        await feed.send(frame)
        told = await feed.refusal()
        assert told.code == code
        assert told.remedy
        assert field in (None, told.field)


async def test_junk_and_wrong_tokens_are_told(db: Database, tmp_path: Path) -> None:
    gateway = await make_person(db, Scope.GATEWAY)
    async with served(db, tmp_path) as running:
        for first, code in (
            ("{", "malformed_body"),
            (b"\x00", "malformed_body"),
            (b"", "malformed_body"),
            ('{"token": "nonsense"}', "unauthorised"),
            ('{"token": "nonsense", "subscribe": ["market"]}', "invalid_input"),
            ("{}", "invalid_input"),
            (msgspec.json.encode({"token": gateway.token}).decode(), "forbidden"),
        ):
            async with feed_of(running, None) as feed:
                await feed.socket.send(first)
                assert (await feed.refusal()).code == code


async def test_foreign_pages_and_tokens_never_get_a_socket(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    async with served(db, tmp_path) as running:
        cases: list[tuple[dict[str, str], str, int]] = [
            ({**person.headers, "Origin": "https://evil.example"}, "/live", 403),
            ({"Authorization": "Bearer nonsense"}, "/live", 401),
            (person.headers, "/elsewhere", 404),
        ]
        for headers, path, status in cases:
            with pytest.raises(InvalidStatus) as caught:
                async with connect(f"{running.ws}{path}", additional_headers=headers):
                    pass
            assert caught.value.response.status_code == status
            assert caught.value.response.headers["Content-Type"] == "application/problem+json"


async def test_open_feeds_are_told_when_the_server_stops(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    async with contextlib.AsyncExitStack() as clients:
        async with served(db, tmp_path) as running:
            feed = await clients.enter_async_context(feed_of(running, person))
            await feed.subscribe("market")
            await feed.next()
        with pytest.raises(ConnectionClosed) as closed:
            await feed.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
