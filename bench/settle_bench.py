# SPDX-License-Identifier: Apache-2.0
"""Settling a job's money by our path (rules, retrying transaction, the one door) beside the bare SQL function.

Both run on the same embedded PostgreSQL, one client, durable commits; rounds alternate, so that a slow disk hits both.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from uuid import UUID, uuid4

from bench.figures import Figure, beside
from qubix_coordinator.accounts.service import create_account
from qubix_coordinator.db.database import Database, plain_connection
from qubix_coordinator.ledger import post as door
from qubix_coordinator.ledger import rules
from tests.support.funds import deposit
from tests.support_pg import PgServer, connected, reachable_folder, start_server

_JOBS = 200
_ROUNDS = 5
_CAP_QU = 100


def run() -> list[Figure]:
    with reachable_folder() as folder:
        server = start_server(folder)
        try:
            return asyncio.run(_run(server))
        finally:
            server.stop()


async def _run(server: PgServer) -> list[Figure]:
    async with connected(server) as db:
        consumer, provider = await _two_accounts(db)
        ours, bare = [], []
        for _ in range(_ROUNDS):
            ours.append(await _ours(db, await _held(db, consumer), consumer, provider))
            bare.append(await _bare(db.dsn, await _held(db, consumer), consumer, provider))
    per_s, limit = statistics.median(ours), statistics.median(bare)
    return [beside("settlements", per_s, "/s", limit=limit, limit_name="bare SQL function", at_least=0.5)]


async def _two_accounts(db: Database) -> tuple[UUID, UUID]:
    async with db.transaction() as tx:
        consumer, provider = [await create_account(tx, name) for name in ("consumer", "provider")]
        await deposit(tx, consumer, 10**9)
        return consumer, provider


async def _held(db: Database, consumer: UUID) -> list[UUID]:
    jobs = [uuid4() for _ in range(_JOBS)]
    async with db.transaction() as tx:
        await door.post(tx, [rules.hold(job, consumer, _CAP_QU) for job in jobs])
    return jobs


def _transfers(job: UUID, consumer: UUID, provider: UUID) -> list[rules.Transfer]:
    paid, fee = rules.split_fee(40, 250)
    return [rules.settle(job, uuid4(), provider, paid, fee), rules.give_back(job, consumer, _CAP_QU - paid - fee)]


async def _ours(db: Database, jobs: Sequence[UUID], consumer: UUID, provider: UUID) -> float:
    began = time.perf_counter()
    for job in jobs:
        transfers = _transfers(job, consumer, provider)
        await db.run(lambda tx, transfers=transfers: door.post(tx, transfers))  # type: ignore[misc]
    return len(jobs) / (time.perf_counter() - began)


async def _bare(dsn: str, jobs: Sequence[UUID], consumer: UUID, provider: UUID) -> float:
    connection = await plain_connection(dsn)
    bodies = [json.dumps([door._plain(t) for t in _transfers(job, consumer, provider)]) for job in jobs]
    try:
        began = time.perf_counter()
        for body in bodies:
            await connection.execute("SELECT ledger_post($1::text::jsonb)", body)
        return len(jobs) / (time.perf_counter() - began)
    finally:
        await connection.close(timeout=5)
