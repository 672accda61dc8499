# SPDX-License-Identifier: Apache-2.0
"""Reading deposits after a time of downtime, beside bare requests to the same devnet process, AT_ONCE at a time.

A tick in which nothing happened costs one request; far behind, identities are asked for over 20,000 ticks at once.
"""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from bench.figures import Figure, beside
from qubix_chain import identity
from qubix_chain.rpc import Client
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.clock import SystemClock
from qubix_coordinator.db.database import Database, Tx
from qubix_coordinator.deposits import pool, scan
from qubix_coordinator.deposits.desk import ChainDesk, take_turn
from qubix_coordinator.settings import Settings
from tests.support.devnet import start_devnet
from tests.support.fake_chain import FakeSigner
from tests.support_pg import PgServer, connected, reachable_folder, start_server

_ACCOUNTS = 8
_PAID_QU = 5_000
_SHORT = 240
_LONG = 20_000
_ROUNDS = 3
_STEP = 1_000


def run() -> list[Figure]:
    with reachable_folder(on_disk=True) as folder, _devnet() as url:
        server = start_server(folder)
        try:
            return asyncio.run(_run(server, url))
        finally:
            server.stop()


@contextlib.contextmanager
def _devnet() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="qx-"))
    process = start_devnet(folder)
    try:
        yield str(process.wait_ready().info["url"])
    finally:
        process.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def _run(server: PgServer, url: str) -> list[Figure]:
    async with connected(server) as db, httpx.AsyncClient(base_url=url, timeout=120) as bare:
        await _step(bare, 10)
        client = Client(url, weekly=False)
        desk, names = await _desk(db, client)
        try:
            short = [await _behind(desk, bare, names, _SHORT) for _ in range(_ROUNDS)]
            alone = [await _bare(bare, desk, _SHORT) for _ in range(_ROUNDS)]
            long = await _behind(desk, bare, names, _LONG)
        finally:
            await client.close()
    limit = max(alone)
    return [
        beside("catch-up, tick by tick", max(short), "ticks/s", limit=limit, limit_name="bare requests", at_least=0.5),
        beside(
            f"catch-up, {_LONG:,} ticks",
            long,
            "ticks/s",
            limit=limit,
            limit_name="bare requests",
            at_least=5,
            note=f"{_ACCOUNTS} identities, each asked for over the whole range",
        ),
    ]


async def _desk(db: Database, client: Client) -> tuple[ChainDesk, list[str]]:
    signer = FakeSigner()
    desk = ChainDesk(db, client, signer, Settings(), SystemClock(), "devnet", await db.run(take_turn))
    await desk.run(lambda tx: pool.fill(tx, signer, _ACCOUNTS))
    await scan.step(desk)

    async def one(tx: Tx) -> bytes:
        return await pool.assign(tx, await accounts.create_account(tx, "somebody"))

    return desk, [identity.encode(await db.run(one)) for _ in range(_ACCOUNTS)]


async def _behind(desk: ChainDesk, bare: httpx.AsyncClient, names: list[str], ticks: int) -> float:
    """Ticks a second, one payment to each account among them; every one must have come."""
    before = await _paid(desk)
    for name in names:
        (await bare.post("/devnet/v1/faucet", json={"identity": name, "amount": _PAID_QU})).raise_for_status()
    await _step(bare, ticks)
    cursor = await _cursor(desk)
    began = time.perf_counter()
    while (await scan.step(desk)).behind:
        pass
    seconds = time.perf_counter() - began
    assert await _paid(desk) == before + len(names) * _PAID_QU
    return (await _cursor(desk) - cursor) / seconds


async def _bare(bare: httpx.AsyncClient, desk: ChainDesk, ticks: int) -> float:
    """One request a tick and its JSON, nothing checked and nothing stored."""
    turns, last = asyncio.Semaphore(scan.AT_ONCE), await _cursor(desk)

    async def one(tick: int) -> None:
        async with turns:
            (await bare.post("/query/v1/getTickData", json={"tickNumber": tick})).json()

    began = time.perf_counter()
    await asyncio.gather(*(one(last - n) for n in range(ticks)))
    return ticks / (time.perf_counter() - began)


async def _step(bare: httpx.AsyncClient, ticks: int) -> None:
    for start in range(0, ticks, _STEP):
        (await bare.post("/devnet/v1/clock/step", json={"ticks": min(_STEP, ticks - start)})).raise_for_status()


async def _cursor(desk: ChainDesk) -> int:
    return int(await desk.db.fetch_value("SELECT cursor_tick FROM chain_state"))


async def _paid(desk: ChainDesk) -> int:
    return int(await desk.db.fetch_value("SELECT coalesce(sum(amount_qu), 0)::bigint FROM deposit"))
