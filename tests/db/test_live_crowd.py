# SPDX-License-Identifier: Apache-2.0
"""Crowds of watchers: real coordinators as processes, real sockets, some of which nobody reads."""

import asyncio
import contextlib
import random
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from qubix_coordinator.db.database import Database
from qubix_coordinator.feed.bounds import Bounds
from qubix_coordinator.http import live_socket
from qubix_coordinator.market import service as market
from qubix_coordinator.settings import Settings
from qubix_protocol.api import LiveEvent
from tests.db.support_http import make_person, served
from tests.db.test_http_process import start
from tests.support.crowd import DEADLINE_S, Provider, Watcher, developer, emit
from tests.support.fake_api import listing

pytestmark = pytest.mark.asyncio
QUERIES = ("", "price<100", "price>=100", "kind=cpu price<200")


class Replicas:
    """Coordinators as processes on one database and one data folder."""

    def __init__(self, dsn: str, folder: Path, count: int) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.urls: list[str] = []
        for _ in range(count):
            process, ready = start(DATABASE_URL=dsn, QUBIX_DATA_DIR=str(folder))
            self.processes.append(process)
            self.urls.append(str(ready["url"]))

    def kill(self, which: int) -> None:
        self.processes[which].send_signal(signal.SIGKILL)
        self.processes[which].wait(20)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(20)


@contextlib.contextmanager
def replicas(dsn: str, folder: Path, count: int = 1) -> Iterator[Replicas]:
    found = Replicas(dsn, folder, count)
    try:
        yield found
    finally:
        found.stop()


@contextlib.asynccontextmanager
async def database(dsn: str, folder: Path) -> AsyncIterator[Database]:
    db = await Database.connect(Settings(data_dir=folder, database_url=dsn), dsn)
    try:
        yield db
    finally:
        await db.close()


def now_ms() -> int:
    return round(time.time() * 1000)


async def crowd(dsn: str, folder: Path, watchers: int, changes: int) -> None:
    """Changes come while watchers lose their sockets, and half way through one of two coordinators dies."""
    draw = random.Random(7)
    with replicas(dsn, folder, 2) as running:
        async with database(dsn, folder) as db, asyncio.TaskGroup() as tasks:
            provider = await Provider.enrolled(db, 12)
            headers = developer(folder)
            crowd = [Watcher(headers, QUERIES[number % len(QUERIES)]) for number in range(watchers)]
            following = [tasks.create_task(one.follow(running.urls, at)) for at, one in enumerate(crowd)]
            await until(lambda: all(one.table.cursor for one in crowd))
            for number in range(changes):
                await provider.change(draw.choice(provider.devices), now_ms(), away=draw.random() < 0.15)
                for one in draw.sample(crowd, min(10, len(crowd) // 20)):
                    one.lose()
                if number == changes // 2:
                    running.kill(0)
            await until_all_agree(db, crowd)
            for task in following:
                task.cancel()
    # Nearly each was drawn, and was lost once at least, however slowly it came back.
    assert sum(one.connections for one in crowd) > 3 * watchers // 2
    assert sum(one.resets for one in crowd) == 0, "each went on behind its cursor, at the other coordinator too"


async def until_all_agree(db: Database, crowd: Sequence[Watcher]) -> None:
    """With the market as it is at that moment: what nobody offers again leaves it by and by."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            offers = await market.listings(db, now_ms=now_ms())
            if all(one.agrees(offers) for one in crowd):
                return
            await asyncio.sleep(0.05)


async def until(holds: Callable[[], bool]) -> None:
    """Other processes decide when: there is nothing here to wait for."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_every_watcher_ends_with_the_markets_table(database_url: str, tmp_path: Path) -> None:
    await crowd(database_url, tmp_path, watchers=40, changes=120)


@pytest.mark.slow
async def test_a_thousand_watchers_end_with_the_markets_table(database_url: str, tmp_path: Path) -> None:
    await crowd(database_url, tmp_path, watchers=1_000, changes=300)


class Unread:
    """A client that asks and then reads nothing more."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect((host, int(port)))
        lines = [
            "GET /live HTTP/1.1", f"Host: {host}:{port}", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13",
            f"Authorization: {headers['Authorization']}",
        ]  # fmt: skip
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        assert self.socket.recv(12) == b"HTTP/1.1 101"
        payload = b'{"subscribe": ["market"]}'
        self.socket.sendall(bytes((0x81, 0x80 | len(payload), 0, 0, 0, 0)) + payload)


async def test_who_reads_nothing_costs_the_others_nothing(database_url: str, tmp_path: Path) -> None:
    """Each round tells every listing: what 200 clients do not read would be far more than the bound."""
    rounds, listings, unread = 30, 150, 200
    with replicas(database_url, tmp_path) as running, contextlib.ExitStack() as sockets:
        async with database(database_url, tmp_path) as db, asyncio.TaskGroup() as tasks:
            headers = developer(tmp_path)
            readers = [Watcher(headers, "") for _ in range(10)]
            following = [tasks.create_task(one.follow(running.urls, 0)) for one in readers]
            for _ in range(unread):
                sockets.callback((await asyncio.to_thread(Unread, running.urls[0], headers)).socket.close)
            await until(lambda: all(one.table.cursor for one in readers))
            process = psutil.Process(running.processes[0].pid)
            before = process.memory_info().rss
            for number in range(1, rounds + 1):
                views = [listing(f"provider {at}", number) for at in range(listings)]
                await emit(db, views)
                expected = {one.listing_id: number for one in views}
                await until(
                    lambda e=expected: all(  # type: ignore[misc]
                        {key: one.rate_qu_per_h for key, one in reader.table.offers.items()} == e for reader in readers
                    )
                )
            told = rounds * sum(len(msgspec.json.encode(view)) for view in views)
            grown = process.memory_info().rss - before
            assert told * unread > 500 * 1_000 * 1_000
            assert grown < 100 * 1_000 * 1_000, "of which each unread socket holds 64 KiB and one frame"
            for task in following:
                task.cancel()


async def test_who_reads_nothing_for_long_is_told_and_closed(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_socket, "_GOODBYE_S", DEADLINE_S)  # for reading what waits, also on a slow machine
    person = await make_person(db)
    async with served(db, tmp_path) as running:
        running.coordinator.context.feeds.bounds = Bounds(slow_s=0.5)
        async with connect(f"{running.ws}/live", additional_headers=person.headers, max_queue=1) as client:
            await client.send('{"subscribe": ["market"]}')
            cursor = msgspec.json.decode(await client.recv(), type=LiveEvent).cursor
            followers, number = running.coordinator.context.metrics.followers, 0
            async with asyncio.timeout(DEADLINE_S):
                while followers.collect()[0].samples[0].value:  # until the buffers between them are full, and longer
                    number += 1
                    await emit(db, [listing(f"provider {at}", number) for at in range(150)])
                    await asyncio.sleep(0.02)
                kinds = list[str]()
                with contextlib.suppress(ConnectionClosed):  # told before it is closed
                    async for frame in client:
                        event = msgspec.json.decode(frame, type=LiveEvent)
                        kinds.append(event.kind)
                        cursor = event.cursor or cursor
            assert (kinds[-1], client.close_code) == ("slow", 1013)
        async with connect(f"{running.ws}/live", additional_headers=person.headers) as again:
            await again.send(msgspec.json.encode({"subscribe": ["market"], "cursor": cursor}).decode())
            rates = {number - 1}
            async with asyncio.timeout(DEADLINE_S):
                while rates != {number}:  # the last change may still be on its way, and then comes by itself
                    event = msgspec.json.decode(await again.recv(), type=LiveEvent)
                    assert event.kind in ("delta", "still")
                    rates = {one["rate_qu_per_h"] for one in event.data["listings"]} if event.data else rates
                    assert max(rates, default=0) <= number
