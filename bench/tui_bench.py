# SPDX-License-Identifier: Apache-2.0
"""The terminal in front of a busy market: its share of one core, beside a client that reads the same feed and draws
nothing. Both run as processes of their own, at the same time, from the same server."""

import contextlib
import fcntl
import os
import pty
import random
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator

import msgspec
import psutil

from bench.figures import Figure, beside, under
from qubix_protocol.api import ListingView, MarketDelta
from qubix_protocol.messages import Sample
from tests.support.fake_api import TOKEN
from tests.support_pg import reachable_folder
from tests.tui.api import TuiApi
from tests.tui.world import Line, gpu

_OFFERS = 2_000
_PER_S = 50
_PRICES = 0.2
"""Share of the changes that move a row to another place; the others are readings."""
_WARM_S = 5.0
_MEASURE_S = 20.0
_SIZES = ((80, 24), (200, 50))
_READ = "the same feed read, nothing drawn"
_READER = """
import asyncio
from qubix.async_client import AsyncClient
from qubix_tui.book import Book
from qubix_tui.feed import Feed
async def main():
    async with AsyncClient() as client:
        await Feed(client, Book(), lambda: None).run()
asyncio.run(main())
"""


def run() -> list[Figure]:
    return [figure for size in _SIZES for figure in _measured(size)]


def _measured(size: tuple[int, int]) -> list[Figure]:
    with reachable_folder(on_disk=True) as folder, TuiApi() as api:
        lines = [Line(), Line()]
        api.live += lines
        env = {
            **os.environ,
            "QUBIX_COORDINATOR_URL": api.url,
            "QUBIX_TOKEN": TOKEN,
            "QUBIX_DATA_DIR": str(folder),
            "TERM": "xterm-256color",
        }
        reader = subprocess.Popen([sys.executable, "-c", _READER], env=env)
        with _in_a_terminal([sys.executable, "-m", "qubix_tui"], env, size) as (tui, drawn):
            try:
                shares, bytes_per_s = _watch(lines, (tui, reader), drawn)
            finally:
                for line in lines:
                    line.cut()
                reader.terminate()
                reader.wait(10)
    name = f"terminal of {size[0]}×{size[1]}, {_OFFERS:,} offers, {_PER_S} changes a second: share of one core"
    note = f"{bytes_per_s / 1e3:.0f} kB/s drawn"
    return [
        under(name, shares[0], "%", aim=15, note=note),
        beside(f"the same, drawing and all ({size[0]}×{size[1]})", shares[0], "%", limit=shares[1], limit_name=_READ),
    ]


def _watch(
    lines: list[Line], processes: "tuple[subprocess.Popen[bytes], ...]", drawn: list[int]
) -> tuple[list[float], float]:
    """Percent of one core of each process, and bytes that the first one drew a second."""
    chance = random.Random(5)
    market = [gpu(f"n{number}", 1_000 + chance.randrange(90_000)) for number in range(_OFFERS)]
    for line in lines:
        line.send("market", "snapshot", market)
    _push(lines, market, chance, _WARM_S)
    assert drawn[0] > 0, "the terminal draws nothing"
    before = [sum(psutil.Process(one.pid).cpu_times()[:2]) for one in processes]
    bytes_before, began = drawn[0], time.perf_counter()
    _push(lines, market, chance, _MEASURE_S)
    took = time.perf_counter() - began
    after = [sum(psutil.Process(one.pid).cpu_times()[:2]) for one in processes]
    shares = [100 * (end - start) / took for start, end in zip(before, after, strict=True)]
    return shares, (drawn[0] - bytes_before) / took


def _push(lines: list[Line], market: list[ListingView], chance: random.Random, seconds: float) -> None:
    """Each change in a frame of its own: the coordinator would put several into one."""
    began = time.perf_counter()
    for number in range(round(seconds * _PER_S)):
        at = chance.randrange(len(market))
        market[at] = _changed(market[at], chance, number)
        for line in lines:
            line.send("market", "delta", MarketDelta(listings=(market[at],)))
        time.sleep(max(0.0, began + (number + 1) / _PER_S - time.perf_counter()))


def _changed(one: ListingView, chance: random.Random, number: int) -> ListingView:
    if chance.random() < _PRICES:
        return msgspec.structs.replace(one, rate_qu_per_h=1_000 + chance.randrange(90_000))
    reading = Sample(at_ms=number + 2, utilisation_pct=float(chance.randrange(101)), temperature_c=60.0)
    return msgspec.structs.replace(one, metrics=reading, metrics_age_ms=0)


@contextlib.contextmanager
def _in_a_terminal(
    command: list[str], env: dict[str, str], size: tuple[int, int]
) -> "Iterator[tuple[subprocess.Popen[bytes], list[int]]]":
    """The process behind a pseudo-terminal that takes whatever it draws, and how many bytes that were so far."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    process = subprocess.Popen(command, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    drawn, over = [0], threading.Event()

    def take() -> None:
        while not over.is_set():
            if select.select([master], [], [], 0.1)[0]:
                try:
                    drawn[0] += len(os.read(master, 65_536))
                except OSError:
                    return

    taker = threading.Thread(target=take)
    taker.start()
    try:
        yield process, drawn
    finally:
        process.terminate()
        process.wait(10)
        over.set()
        taker.join()
        os.close(master)
