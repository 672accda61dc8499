# SPDX-License-Identifier: Apache-2.0
"""A change of the market told to 1,000 watchers: how late it comes, and what a delivery costs the coordinator.

The coordinator is a process of its own with its database. What it uses in the same time with the same watchers while
nothing happens is taken off, and told in the note. Beside it a bare process on the same event loop sends the same bytes
to as many clients by `websockets.broadcast`, at the same pace.
Rounds alternate, so that whatever else the machine does hits both. The watchers are a third process.
"""

import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil
import uvloop
import websockets
import websockets.asyncio.client
import websockets.asyncio.server

from bench.figures import Figure, beside, percentile, under
from qubix_coordinator.db.database import Database
from tests.support.crowd import Provider, developer
from tests.support_pg import clean_environment, connected, reachable_folder, start_server

_WATCHERS: Final = 1_000
_CHANGES: Final = 60
_PACE_S: Final = 0.15
"""Longer than a tick of the feed, so that each change is a frame by itself."""
_SETTLE_S: Final = 5.0
"""Watchers of the round before are still being let go."""
_QUIET_S: Final = 6.0
"""Before and after; the lesser counts, since less is taken off then."""
_ROUNDS: Final = 3
_READY_S: Final = 120.0
_SPAWN: Final = multiprocessing.get_context("spawn")


class _Frame(msgspec.Struct):
    """What a watcher needs to know of a frame: which change it tells."""

    kind: str = ""
    data: Any = None


def run() -> list[Figure]:
    with reachable_folder(on_disk=True) as folder:
        server = start_server(folder)
        try:
            return asyncio.run(_run(server, folder))
        finally:
            server.stop()


async def _run(server: Any, folder: Path) -> list[Figure]:
    late: list[float] = []
    ours: list[float] = []
    bare: list[float] = []
    quiet: list[float] = []
    async with connected(server) as db:
        data = folder / "data"
        with _coordinator(db.dsn, data) as (process, url):
            provider = await Provider.enrolled(db, 1)
            live, headers = url.replace("http://", "ws://") + "/live", developer(data)
            for number in range(_ROUNDS):
                cost_s, quiet_s, lateness, size = await _told(db, provider, process, live, headers)
                ours.append(cost_s - quiet_s)
                quiet.append(quiet_s)
                late += lateness
                bare.append(await asyncio.to_thread(_broadcast, size))
                print(f"  round {number + 1}: {ours[-1] * 1e6:.1f} µs, bare {bare[-1] * 1e6:.1f} µs", file=sys.stderr)
    return [
        beside(
            "CPU of the coordinator for a delivery",
            statistics.median(ours) * 1e6,
            "µs",
            limit=statistics.median(bare) * 1e6,
            limit_name="websockets.broadcast of the same bytes",
            at_most=1.3,
            note=f"{_WATCHERS:,} watchers, one change each {_PACE_S:g} s; what it does anyway, such as looking"
            f" at its database, is a further {statistics.median(quiet) * 1e6:.1f} µs",
        ),
        under(
            f"a change of the market at {_WATCHERS:,} watchers, p99",
            percentile(late, 0.99),
            "s",
            aim=2.0,
            note=f"from before its transaction; p50 {percentile(late, 0.5):.3f} s, worst {max(late):.3f} s",
        ),
    ]


async def _told(
    db: Database, provider: Provider, process: psutil.Process, live: str, headers: dict[str, str]
) -> tuple[float, float, list[float], int]:
    """CPU for a delivery, how much of it is used when nothing happens, every lateness, and the bytes of a frame."""
    with _watchers(live, headers, '{"subscribe": ["market"]}') as pipe:
        await asyncio.to_thread(_ready, pipe)
        await asyncio.sleep(_SETTLE_S)
        quiet_s = await _quiet(process)
        began: dict[int, float] = {}
        before, began_s = _cpu_s(process), time.monotonic()
        for _ in range(_CHANGES):
            rate = next(provider.rates)
            began[rate] = time.monotonic()
            provider.rates = _from(rate)
            await provider.change(provider.devices[0], round(time.time() * 1000))
            await asyncio.sleep(_PACE_S)
        found = await asyncio.to_thread(_counted, pipe, max(began))
        cost_s, took_s = _cpu_s(process) - before, time.monotonic() - began_s
        quiet_s = min(quiet_s, await _quiet(process))
    late = [at - began[rate] for rate, times in found["times"].items() for at in times]
    return cost_s / len(late), quiet_s * took_s / len(late), late, found["size"]


async def _quiet(process: psutil.Process) -> float:
    """CPU a second."""
    before = _cpu_s(process)
    await asyncio.sleep(_QUIET_S)
    return (_cpu_s(process) - before) / _QUIET_S


def _from(rate: int) -> Iterator[int]:
    yield rate
    while True:
        rate += 1
        yield rate


def _broadcast(size: int) -> float:
    """CPU for a delivery."""
    mine, theirs = _SPAWN.Pipe()
    server = _SPAWN.Process(target=_serve_bare, args=(theirs, size))
    server.start()
    try:
        with _watchers(f"ws://127.0.0.1:{mine.recv()}", {}, "") as pipe:
            _ready(pipe)
            process = psutil.Process(server.pid)
            before = _cpu_s(process)
            mine.send("go")
            mine.recv()
            found = _counted(pipe, _CHANGES)
            cost_s = _cpu_s(process) - before
        return cost_s / sum(map(len, found["times"].values()))
    finally:
        server.terminate()
        server.join()


def _serve_bare(pipe: Connection, size: int) -> None:
    uvloop.run(_bare(pipe, size))


async def _bare(pipe: Connection, size: int) -> None:
    clients: set[websockets.asyncio.server.ServerConnection] = set()

    async def serve(client: websockets.asyncio.server.ServerConnection) -> None:
        clients.add(client)
        await client.send('{"kind": "snapshot"}')
        await client.wait_closed()

    async with websockets.asyncio.server.serve(serve, "127.0.0.1", 0, compression=None) as server:
        pipe.send(next(iter(server.sockets)).getsockname()[1])
        await asyncio.to_thread(pipe.recv)
        for rate in range(1, _CHANGES + 1):
            head = json.dumps({"kind": "delta", "data": {"listings": [{"rate_qu_per_h": rate}]}})
            websockets.broadcast(clients, head + " " * (size - len(head)))
            await asyncio.sleep(_PACE_S)
        pipe.send("done")
        await asyncio.sleep(_READY_S)


@contextlib.contextmanager
def _watchers(url: str, headers: dict[str, str], asks: str) -> Iterator[Connection]:
    mine, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_watch, args=(theirs, url, headers, asks))
    process.start()
    try:
        yield mine
    finally:
        process.terminate()
        process.join()


def _ready(pipe: Connection) -> None:
    assert pipe.poll(_READY_S), "the watchers never came"
    pipe.recv()


def _counted(pipe: Connection, last: int) -> dict[str, Any]:
    """Once everybody has been told the last change. One that fell into the same tick as the next is told with it."""
    pipe.send(last)
    assert pipe.poll(_READY_S), "the watchers did not hear everything"
    found: dict[str, Any] = pipe.recv()
    return found


def _watch(pipe: Connection, url: str, headers: dict[str, str], asks: str) -> None:
    uvloop.run(_watching(pipe, url, headers, asks))


async def _watching(pipe: Connection, url: str, headers: dict[str, str], asks: str) -> None:
    times: dict[int, list[float]] = {}
    sizes: list[int] = []
    heard = asyncio.Semaphore(0)

    async def one(socket: websockets.asyncio.client.ClientConnection) -> None:
        while True:
            text = await socket.recv(decode=False)
            at, frame = time.monotonic(), msgspec.json.decode(text, type=_Frame)
            if frame.kind == "delta" and frame.data["listings"]:
                rate = frame.data["listings"][0]["rate_qu_per_h"]
                times.setdefault(rate, []).append(at)
                sizes.append(len(text))
            elif frame.kind == "snapshot":
                heard.release()

    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        for _ in range(_WATCHERS):
            made = websockets.asyncio.client.connect(url, additional_headers=headers, compression=None)
            socket = await stack.enter_async_context(made)
            if asks:
                await socket.send(asks)
            tasks.create_task(one(socket))
        for _ in range(_WATCHERS):
            await heard.acquire()
        pipe.send("ready")
        last = await asyncio.to_thread(pipe.recv)
        async with asyncio.timeout(_READY_S):
            while len(times.get(last, ())) < _WATCHERS:  # noqa: ASYNC110  it may have come before it was asked for
                await asyncio.sleep(0.02)
        pipe.send({"times": times, "size": max(sizes)})
        await asyncio.sleep(_READY_S)


@contextlib.contextmanager
def _coordinator(dsn: str, data: Path) -> Iterator[tuple[psutil.Process, str]]:
    read_fd, write_fd = os.pipe()
    env = clean_environment(
        QUBIX_HTTP_PORT="0",
        QUBIX_READY_FD=str(write_fd),
        QUBIX_LOG_LEVEL="WARNING",
        DATABASE_URL=dsn,
        QUBIX_DATA_DIR=str(data),
    )
    process = subprocess.Popen([sys.executable, "-m", "qubix_coordinator"], env=env, pass_fds=(write_fd,))
    os.close(write_fd)
    try:
        with os.fdopen(read_fd) as pipe:
            ready = json.loads(pipe.readline())
        yield psutil.Process(process.pid), ready["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
