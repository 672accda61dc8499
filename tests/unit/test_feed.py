# SPDX-License-Identifier: Apache-2.0
"""A client's table is the server's table at the cursor that the client was told, whatever happens in between.

Histories are generated: listings come, change and go in transactions that overlap; replicas load the table at different
moments, tick when they like and lose events; clients watch queries, stop reading, lose sockets, and come back with
their cursor to either replica. No socket, clock or database: frames are the real bytes, read by the SDK's own table.
"""

import random
import weakref
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubix.watching import OffersTable
from qubix_coordinator.errors import QubixError, Unavailable
from qubix_coordinator.feed import frames, rules, watchers
from qubix_coordinator.feed.frames import Encodings
from qubix_coordinator.feed.rules import Change, Loaded, Market, Shown, Snapshot
from qubix_coordinator.feed.watchers import Feed, Topic, Watcher
from qubix_coordinator.outbox import START, Cursor
from qubix_protocol.api import ListingView, LiveEvent
from qubix_protocol.query import parse
from tests.support.fake_api import listing

QUERIES = ("", "price<3", "price>=3", "listing=" + listing("two", 0).listing_id)
NAMES = ("one", "two", "three", "four", "five")
IDS = {name: listing(name, 0).listing_id for name in NAMES}


def shown(name: str, price: int) -> Shown:
    return rules.of_view(listing(name, price), None)


@dataclass
class Stream:
    """What transactions committed, in the stream's order; a listing's own order is that of the ids."""

    draw: random.Random
    events: list[Change] = field(default_factory=list)
    xid: int = 100
    id: int = 0

    def commit(self) -> None:
        """One to three transactions that overlap. Each drew its number before it changed anything, so the one that
        changes a listing last may stand first."""
        xids = list(range(self.xid, self.xid + self.draw.randint(1, 3)))
        self.xid += len(xids)
        self.draw.shuffle(xids)
        batch = []
        for xid in xids:
            for name in self.draw.sample(NAMES, self.draw.randint(1, 2)):
                self.id += 1
                state = None if self.draw.random() < 0.25 else shown(name, self.draw.randint(0, 5))
                batch.append(Change(Cursor(xid, self.id), IDS[name], state))
        self.events += sorted(batch)

    def table(self, events: list[Change]) -> dict[str, Shown]:
        newest: dict[str, Change] = {}
        for event in events:
            if event.listing_id not in newest or newest[event.listing_id].cursor.id < event.cursor.id:
                newest[event.listing_id] = event
        return {key: event.shown for key, event in newest.items() if event.shown is not None}

    def at(self, cursor: Cursor, query: str) -> dict[str, ListingView]:
        matches = parse(query).matches
        held = self.table([event for event in self.events if event.cursor <= cursor])
        return {key: one.view for key, one in held.items() if matches(one.view)}


class Socket:
    """Takes what is written until it is full."""

    def __init__(self) -> None:
        self.full = False
        self.sent: list[bytes] = []

    def offer(self, frame: bytes) -> bool:
        if not self.full:
            self.sent.append(frame)
        return not self.full

    def cut(self, problem: QubixError) -> None:
        raise AssertionError(problem)


class Replica:
    """As the hub goes through it, without its tasks."""

    def __init__(self, stream: Stream, steps_max: int) -> None:
        self.stream, self.steps_max = stream, steps_max
        self.read = 0
        self.market = Market(self._load(), steps_max)
        self.feeds = {query: Feed(Topic(name_of(query), parse(query).matches), weakref.WeakSet()) for query in QUERIES}
        for feed in self.feeds.values():
            feed.table.take(list(self.market.table), self.market.table)

    def _load(self) -> Loaded:
        """Some transactions at the end have committed, and are not settled since an older one still runs."""
        events, draw = self.stream.events, self.stream.draw
        self.read = draw.randint(max(0, len(events) - 4), len(events))
        while 0 < self.read < len(events) and events[self.read - 1].cursor.xid == events[self.read].cursor.xid:
            self.read -= 1
        settled, rest = events[: self.read], events[self.read :]
        running = {event.cursor.xid for event in rest if draw.random() < 0.5}
        while waited_for := {
            # Whoever changed a listing after it has waited for it to commit.
            one.cursor.xid
            for one in rest
            if one.cursor.xid in running
            for other in events
            if other.cursor.xid not in running
            and other.listing_id == one.listing_id
            and other.cursor.id > one.cursor.id
        }:
            running -= waited_for
        ahead = [event for event in rest if event.cursor.xid not in running]
        kept = draw.randint(0, self.steps_max)
        recent = settled[-kept:] if kept else []
        since = settled[-kept - 1].cursor if len(settled) > kept else START
        return Loaded(
            table=self.stream.table(settled + ahead),
            snapshot=Snapshot(self.stream.xid, frozenset(running)),
            cursor=settled[-1].cursor if settled else START,
            ahead={event.cursor: event.listing_id for event in ahead},
            since=since,
            recent=tuple((event.cursor, event.listing_id) for event in recent),
        )

    def tick(self) -> None:
        taken = self.stream.events[self.read :]
        self.read += len(taken)
        before = self.market.cursor
        self._tell([event.listing_id for event in taken if self.market.apply(event)], before)

    def overflow(self) -> None:
        before, read = self.market.cursor, self.read
        loaded = self._load()
        if loaded.cursor < before:
            # A later look at the database never shows less: then nothing was lost.
            self.read = read
            self.tick()
            return
        self._tell(list(self.market.replace(loaded)), before)

    def _tell(self, keys: list[str], before: Cursor) -> None:
        told = [(feed, feed.tick(list(dict.fromkeys(keys)), self.market, Encodings(0))) for feed in self.feeds.values()]
        for feed, made in told:
            for watcher in feed.watchers if made else ():
                feed.tell(watcher, made, before, self.market, 0)
        for feed in self.feeds.values():
            for watcher in feed.watchers:
                if watcher.parked is not None and watcher.parked <= self.market.cursor:
                    watcher.behind, watcher.parked = watcher.parked, None
                    feed.pump(watcher, self.market, 0)


def name_of(query: str) -> str:
    return f"market?{query}" if query else "market"


class Client:
    def __init__(self, query: str) -> None:
        self.query = query
        self.table = OffersTable()
        self.watcher: Watcher | None = None
        self.socket = Socket()
        self.replica: Replica | None = None

    def connect(self, replica: Replica) -> None:
        self.leave()
        self.replica, self.socket, feed = replica, Socket(), replica.feeds[self.query]
        self.watcher = Watcher(feed, self.socket)
        feed.watchers.add(self.watcher)
        cursor = Cursor(*map(int, self.table.cursor.split("-"))) if self.table.cursor else None
        feed.begin(self.watcher, cursor, replica.market, 0)

    def leave(self, read: int = 0) -> None:
        """After so many of the frames that wait; the others are lost with the socket."""
        self.take(read)
        self.table.interrupted()
        if self.watcher is not None:
            self.watcher.feed.watchers.discard(self.watcher)
        self.watcher = None

    def take(self, most: int = 1_000) -> None:
        for frame in self.socket.sent[:most]:
            self.table.take(msgspec.json.decode(payload(frame), type=LiveEvent))
        del self.socket.sent[:most]

    def read_on(self) -> None:
        self.take()
        self.socket.full = False
        if self.watcher is not None and self.replica is not None and self.watcher.parked is None:
            self.watcher.feed.pump(self.watcher, self.replica.market, 0)
        self.take()

    def check(self, stream: Stream) -> None:
        """Where a load ran ahead of its cursor, the table may be newer than the cursor says, and never older."""
        if self.table.cursor is None:
            return
        cursor = Cursor(*map(int, self.table.cursor.split("-")))
        expected = stream.at(cursor, self.query)
        for key in expected.keys() | self.table.offers.keys():
            now = self.table.offers.get(key)
            later = [e for e in stream.events if e.listing_id == key and e.cursor > cursor]
            matches = parse(self.query).matches
            may_be = [expected.get(key)] + [
                e.shown.view if e.shown is not None and matches(e.shown.view) else None for e in later
            ]
            assert now in may_be, f"{self.query!r} at {cursor}: {key} is {now}, not {expected.get(key)}"


def payload(frame: bytes) -> bytes:
    size = frame[1]
    return frame[{126: 4, 127: 10}.get(size, 2) :]


def run(seed: int, steps: int) -> None:
    draw = random.Random(seed)
    stream = Stream(draw)
    steps_max = draw.choice((8, 50))  # more than what overlaps in one batch
    replicas = [Replica(stream, steps_max)]
    clients = [Client(query) for query in QUERIES for _ in range(2)]
    for _ in range(steps):
        act = draw.random()
        client = draw.choice(clients)
        if act < 0.35:
            stream.commit()
        elif act < 0.6:
            draw.choice(replicas).tick()
        elif act < 0.7:
            client.connect(draw.choice(replicas))
        elif act < 0.78:
            client.leave(draw.randint(0, 3))
        elif act < 0.86:
            client.socket.full = True
        elif act < 0.94:
            client.read_on()
        elif act < 0.97:
            draw.choice(replicas).overflow()
        elif len(replicas) < 3:
            replicas.append(Replica(stream, steps_max))
        client.check(stream)
    for replica in replicas:
        replica.tick()
    for client in clients:
        if client.watcher is None:
            client.connect(draw.choice(replicas))
        client.read_on()
        client.check(stream)
        assert client.table.offers == stream.at(Cursor(2**60, 0), client.query), "everything was told in the end"


def test_a_listing_is_encoded_once_however_many_queries_tell_of_it() -> None:
    encodings, one = Encodings(7), shown("one", 1)
    first = encodings.of(one)
    assert encodings.of(one) is first
    assert msgspec.json.decode(first, type=ListingView) == one.view
    assert encodings.of(shown("two", 1)) is not first


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_a_clients_table_is_the_servers_at_its_cursor(seed: int) -> None:
    run(seed, 60)


@pytest.mark.slow
@settings(max_examples=3_000, deadline=None)
@given(st.integers(0, 2**32))
def test_a_clients_table_is_the_servers_at_its_cursor_in_long_histories(seed: int) -> None:
    run(seed, 200)


def test_who_only_looks_leaves_half_of_what_may_wait_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Replica(Stream(random.Random(1)), 8)
    feed = replica.feeds[""]
    slow = Socket()
    slow.full = True
    feed.begin(Watcher(feed, slow, "slow"), None, replica.market, 0)
    (held,) = feed._held
    monkeypatch.setattr(watchers, "HELD_BYTES_MAX", held.size_bytes + 1)
    with pytest.raises(Unavailable):
        feed.begin(Watcher(feed, Socket(), "visitor", visits=True), None, replica.market, 0)
    assert feed.begin(Watcher(feed, Socket(), "owner"), None, replica.market, 0)


def test_a_snapshot_that_serves_nobody_any_more_is_not_kept() -> None:
    replica = Replica(Stream(random.Random(1)), 8)
    feed = replica.feeds[""]
    for number in range(50):
        feed.begin(Watcher(feed, Socket(), f"order {number}"), None, replica.market, number * 1_000)
    assert len(feed._held) == 1


def test_a_frame_is_one_unmasked_text_message() -> None:
    """RFC 6455, 5.2: the three ways to tell a length."""
    headers = {5: b"\x81\x05", 126: b"\x81\x7e\x00\x7e", 70_000: b"\x81\x7f\x00\x00\x00\x00\x00\x01\x11\x70"}
    for size, header in headers.items():
        assert frames.text(b"x" * size) == header + b"x" * size


def test_a_reading_is_told_as_old_as_it_is() -> None:
    """P9: at the moment of sending, and marked even if its event is late."""
    one = rules.of_view(msgspec.structs.replace(listing("one", 1), metrics_age_ms=5), 1_000)
    assert one.view.metrics_age_ms is None
    young, old = rules.aged(one, 2_000), rules.aged(one, 47_000)
    assert (young.metrics_age_ms, young.stale) == (1_000, False)
    assert (old.metrics_age_ms, old.stale) == (46_000, True)
