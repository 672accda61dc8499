# SPDX-License-Identifier: Apache-2.0
"""A whole market of real processes: how soon work starts, how many tiny jobs a second, how much memory rests in it."""

import asyncio
import statistics
import time

import numpy as np
import procrastinate
import psutil

import qubix
from bench.figures import Figure, beside, percentile, under
from tests.support.funds import fund_market_async
from tests.support.market import Market
from tests.support_pg import reachable_folder

_SUBMITS = 40
_TINY_JOBS = 120
_AT_ONCE = 8
_NOOPS = 2_000
_WAIT_S = 60.0


def run() -> list[Figure]:
    with reachable_folder(on_disk=True) as folder, Market(folder) as market:
        market.start_node()
        return asyncio.run(_run(market))


async def _run(market: Market) -> list[Figure]:
    async with qubix.AsyncClient(market.url, token=market.token, data_dir=market.folder / "client") as client:
        await fund_market_async(market, client, 1_000_000)
        while not await client.offers():  # noqa: ASYNC110  a market without offers has no event to wait for
            await asyncio.sleep(0.1)
        memory = _memory(market)
        await _tiny(client, 0)  # inputs are stored and everything is warm from here on
        return [*await _first_chunks(client), await _throughput(client, market), *memory]


def _memory(market: Market) -> list[Figure]:
    """Resident memory of each process itself after start; the node's warm zygote stands apart."""
    aims = {"coordinator": 200, "gateway": 120, "node": 150, "verifier": None}
    found = []
    for name, aim in aims.items():
        process = psutil.Process(market.parts[name].popen.pid)
        rss = process.memory_info().rss / 1e6
        zygotes = sum(child.memory_info().rss for child in process.children()) / 1e6
        note = f"and {zygotes:.0f} MB in child processes" if zygotes else ""
        title = f"resident memory of the {name}"
        found.append(
            Figure(name=title, value=rss, unit="MB", note=note)
            if aim is None
            else under(title, rss, "MB", aim=aim, note=note)
        )
    return found


async def _tiny(client: qubix.AsyncClient, seed: int) -> qubix.AsyncJob:
    a = np.full((16, 16), float(seed % 7), dtype=np.float32)
    job = await client.submit("matmul", a=a, b=a, cap_qu=100)
    await job.wait(_WAIT_S)
    return job


async def _first_chunks(client: qubix.AsyncClient) -> list[Figure]:
    """From the call of submit (inputs stored already) until the coordinator has told of a finished chunk."""
    times = []
    a = np.zeros((16, 16), dtype=np.float32)
    for _ in range(_SUBMITS):
        began = time.perf_counter()
        job = await client.submit("matmul", a=a, b=a, cap_qu=100)
        async for update in job.follow(_WAIT_S):
            if any(attempt.units_done for attempt in update.view.attempts):
                times.append((time.perf_counter() - began) * 1000)
                break
        await job.wait(_WAIT_S)
    return [
        under("submit → first chunk, p50", statistics.median(times), "ms", aim=150),
        under("submit → first chunk, p95", percentile(times, 0.95), "ms", aim=500),
    ]


async def _throughput(client: qubix.AsyncClient, market: Market) -> Figure:
    """Tiny jobs through submission, hold, assignment, run, upload, check and settlement; one node, one at a time."""
    waiting = iter(range(_TINY_JOBS))

    async def worker() -> None:
        for seed in waiting:
            await _tiny(client, seed)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(worker())
    per_s = _TINY_JOBS / (time.perf_counter() - began)
    noops = await _procrastinate(market.env["DATABASE_URL"])
    note = "theirs only fetches and marks a row"
    return beside("tiny jobs end to end", per_s, "/s", limit=noops, limit_name="no-op Procrastinate jobs", note=note)


async def _procrastinate(dsn: str) -> float:
    """No-op jobs a second of one Procrastinate worker on the same PostgreSQL."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))

    @app.task(name="noop")
    async def noop() -> None:
        return

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await noop.batch_defer_async(*({} for _ in range(_NOOPS)))
        began = time.perf_counter()
        await app.run_worker_async(wait=False, concurrency=_AT_ONCE, install_signal_handlers=False)
        return _NOOPS / (time.perf_counter() - began)
