# SPDX-License-Identifier: Apache-2.0
"""Settling jobs by our path, beside the bare SQL function and beside pgbench, all on the same embedded PostgreSQL.

*The door* is the money alone (rules, retrying transaction, the one door), one after the other as the limits are. A
*whole settlement* is what the engine does with a verdict, some side by side: links marked, money paid and the rest
returned, the settlement signed, the receipt's entries, reputation, events for everybody who watches. Commits are
durable everywhere; the limits' rounds come before and after the settling, so that a slow disk hits all.
"""

import asyncio
import json
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid4

from bench.figures import Figure, beside
from qubix_coordinator.accounts.service import create_account
from qubix_coordinator.db.binaries import programs, user_for
from qubix_coordinator.db.database import Database, plain_connection
from qubix_coordinator.jobs import verify
from qubix_coordinator.jobs.engine import SETTLING
from qubix_coordinator.ledger import post as door
from qubix_coordinator.ledger import rules
from qubix_coordinator.ledger.audit import audit_all_now
from tests.db.jobs_world import CAP, UNITS, Node, World
from tests.support.funds import deposit
from tests.support_pg import PgServer, connected, fresh_database, reachable_folder, start_server

_JOBS = 200
_ROUNDS = 3
"""Before the settling, and as many again after it."""
_CAP_QU = 100
_OPEN_JOBS = 1_000
_NODES = 20
_VERIFIERS = 8
_TPS = re.compile(r"^tps = ([0-9.]+) \(without initial connection time\)", re.MULTILINE)


def run() -> list[Figure]:
    with reachable_folder(on_disk=True) as folder:
        server = start_server(folder)
        try:
            return asyncio.run(_run(server))
        finally:
            server.stop()


async def _run(server: PgServer) -> list[Figure]:
    async with connected(server) as money, connected(server) as db:
        limits = await _Limits.prepare(server, money)
        world = await _checked_jobs(db)
        await limits.measure(_ROUNDS)
        took_s = await _settle_all(world)
        await limits.measure(_ROUNDS)
        await _require_settled(world)
    door_s, bare, tpcb = (statistics.median(one) for one in (limits.door, limits.bare, limits.tpcb))
    whole, bare_name, tpcb_name = _OPEN_JOBS / took_s, "bare SQL function, 1 client", "TPC-B by pgbench, 1 client"
    aside = f"one engine, {SETTLING} side by side"
    return [
        beside("settlements by the door", door_s, "/s", limit=bare, limit_name=bare_name, at_least=0.5),
        beside("whole settlements", whole, "/s", limit=bare, limit_name=bare_name, at_least=0.5, note=aside),
        beside("whole settlements", whole, "/s", limit=tpcb, limit_name=tpcb_name, note=aside),
        Figure(
            name=f"{_OPEN_JOBS:,} open jobs settling at once",
            value=took_s,
            unit="s",
            note="until all are settled; the ledger's audit is clean",
        ),
    ]


class _Limits:
    """Settlements a second through the door and by the bare function, and pgbench's transactions a second."""

    def __init__(self, server: PgServer, db: Database, consumer: UUID, provider: UUID, tpcb_dsn: str) -> None:
        self._server, self._db, self._parties, self._tpcb_dsn = server, db, (consumer, provider), tpcb_dsn
        self.door: list[float] = []
        self.bare: list[float] = []
        self.tpcb: list[float] = []

    @classmethod
    async def prepare(cls, server: PgServer, db: Database) -> "_Limits":
        limits = cls(server, db, *await _two_accounts(db), await fresh_database(server, migrated=False))
        await limits._pgbench("--initialize", "--quiet")
        return limits

    async def measure(self, rounds: int) -> None:
        consumer, _ = self._parties
        for _ in range(rounds):
            self.door.append(await _ours(self._db, await _held(self._db, consumer), *self._parties))
            self.bare.append(await _bare(self._db.dsn, await _held(self._db, consumer), *self._parties))
            said = await self._pgbench("--no-vacuum", "--protocol=prepared", f"--transactions={_JOBS}")
            found = _TPS.search(said)
            if found is None:
                raise RuntimeError(f"pgbench did not tell its speed: {said[-500:]}")
            self.tpcb.append(float(found[1]))

    async def _pgbench(self, *arguments: str) -> str:
        """The embedded server's own pgbench."""
        program = programs(user_for(self._server.data_dir / "postgres")) / "pgbench"
        process = await asyncio.create_subprocess_exec(
            str(program),
            *arguments,
            self._tpcb_dsn,
            cwd=Path("/"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await process.communicate())[0].decode()
        if process.returncode != 0:
            raise RuntimeError(f"pgbench ended with {process.returncode}: {said[-500:]}")
        return said


async def _checked_jobs(db: Database) -> World:
    """A market whose jobs all wait for the engine to apply their verdict; each of its nodes works on one at a time."""
    world = await World(db).open(credit_qu=2 * _OPEN_JOBS * CAP)
    nodes = [await world.node() for _ in range(_NODES)]
    for _ in range(_OPEN_JOBS // _NODES):
        world.clock.advance(0.001)  # a node knows its newest attempt by when that was made
        await asyncio.gather(*(world.submit() for _ in nodes))
        await world.engine.tick()
        await asyncio.gather(*(_done(node) for node in nodes))
    found = sum(await asyncio.gather(*(_verifier(world, f"verifier-{n}") for n in range(_VERIFIERS))))
    if found != _OPEN_JOBS:
        raise RuntimeError(f"{found} of {_OPEN_JOBS} jobs have a verdict")
    return world


async def _done(node: Node) -> None:
    await node.accept()
    await node.work(0, UNITS, 2_500, took_s=0)
    await node.report()


async def _verifier(world: World, name: str) -> int:
    """Gives its word on what waits for a check, without having it applied; how often."""
    found = 0
    while (claim := await world.db.run(lambda tx: verify.claim(tx, name, world.desk.now_ms()))) is not None:
        good = verify.Finding(
            carried_out=True,
            accepted=True,
            reason="ok",
            detail="",
            parts=(True,) * len(claim.outputs),
            seed=bytes(32),
            check_ms=1,
        )
        attempt_id = claim.attempt_id
        if not await world.db.run(lambda tx: verify.record(tx, attempt_id, name, good, world.desk.now_ms())):  # noqa: B023
            raise RuntimeError(f"the verdict on attempt {attempt_id} was not taken")
        found += 1
    return found


async def _settle_all(world: World) -> float:
    """Seconds from the first verdict applied to the last job settled, by the running engine."""
    began = time.perf_counter()
    while await world.engine._settle_checked():
        pass
    return time.perf_counter() - began


async def _require_settled(world: World) -> None:
    """Each job is paid for and over, and the books are right; otherwise there is nothing to tell."""
    states = {row["state"]: row["n"] for row in await world.db.fetch("SELECT state, count(*) AS n FROM job GROUP BY 1")}
    if states != {"settled": _OPEN_JOBS}:
        raise RuntimeError(f"not all jobs were settled: {states}")
    violations = (await audit_all_now(world.db, world.desk.now_ms())).violations
    if violations:
        raise RuntimeError(f"the ledger is not clean after the jobs were settled: {violations}")


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
