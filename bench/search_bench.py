# SPDX-License-Identifier: Apache-2.0
"""A page of the market by the query line, beside `SELECT 1` in a transaction of the same kind on the same connections.

Two kinds of searches: those that an index serves, whatever the market's size, and any others, which read every row.
Offers are made up from their numbers, the same each time: 1,600 models in uneven shares, eight devices a node.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from bench.figures import Figure, beside, percentile, under
from qubix_coordinator import collector
from qubix_coordinator.db.database import Database, Tx, plain_connection, value
from qubix_coordinator.market import query as search
from qubix_coordinator.market.counts import counts
from qubix_coordinator.market.query import Asked
from qubix_protocol.query import parse, parse_order
from qubix_protocol.units import OFFER_S
from tests.support_pg import PgServer, connected, reachable_folder, start_server

SIZES = (1_000, 100_000, 1_000_000)
NOW = 1_700_000_000_000
PAGE = 50
INDEXED_ROUNDS = 40
BESIDE = 4
"""Times `SELECT 1` for each search, in turn with them: what disturbs the machine meets both."""
SCANNED_ROUNDS = 30
SCANNED_MAX = 100_000
"""Reading every row of more is nothing that is aimed at."""
SCANNED_AIM_MS = 50

_PEER = "'12D3KooW' || translate(left(encode(sha256(('k' || {n})::bytea), 'base64'), 44), '/+', 'xy')"
_FILL = (
    "INSERT INTO account (id, kind, name) VALUES ('00000000-0000-0000-0000-00000000abcd', 'provider', 'bench')",
    "INSERT INTO account_key (public_key, account_id, purpose) SELECT sha256(('k' || n)::bytea),"
    " '00000000-0000-0000-0000-00000000abcd', 'node' FROM generate_series(0, $1::bigint / 8) AS n",
    f"INSERT INTO node (peer_id, public_key, account_id) SELECT {_PEER.format(n='n')}, sha256(('k' || n)::bytea),"
    " '00000000-0000-0000-0000-00000000abcd' FROM generate_series(0, $1::bigint / 8) AS n",
    "ALTER TABLE listing DISABLE TRIGGER USER",
    f"""
    INSERT INTO listing (id, peer_id, device_id, kind, model, memory_bytes, cores, driver, cuda, compute_capability,
        backends, rate_qu_per_h, region, availability, rates, jobs_parallel, metrics, offer_digest, offer_raw,
        metrics_ms, offered_ms, updated_ms, cpu_cores, cpu_memory_bytes, country, devices_alike, verified, score,
        reliability)
    SELECT md5('l' || n)::uuid, {_PEER.format(n="(n / 8)")}, 'GPU-' || md5('d' || n), 'cuda',
        (ARRAY['NVIDIA GeForce RTX 4090', 'NVIDIA GeForce RTX 3090', 'NVIDIA H100 80GB HBM3', 'NVIDIA A100-SXM4-80GB',
               'NVIDIA L40S', 'AMD Radeon RX 7900 XTX', 'NVIDIA GeForce RTX 5090', 'NVIDIA T4'])[1 + h % 8]
            || CASE WHEN h % 3 = 0 THEN '' ELSE ' rev ' || h / 8 % 200 END,
        (8 + h / 8 % 80)::bigint * 1073741824, 128,
        (ARRAY['580.65.06', '570.12', '535.183.01', '590.1'])[1 + h / 32 % 4],
        (ARRAY['13.0', '12.8', '12.10', '12.4'])[1 + h / 128 % 4],
        (ARRAY['8.9', '9.0', '8.6', '12.0'])[1 + h / 512 % 4],
        ARRAY['cuda', 'cpu'], 100 + h / 16 % 100000, (ARRAY['eu', 'us', 'asia', 'africa'])[1 + h / 2048 % 4],
        CASE WHEN h / 8192 % 3 = 0 THEN 'busy' ELSE 'available' END,
        '[{{"kernel": "matmul", "backend": "cuda", "flops_per_s": 1e13, "bytes_per_s": 1e11}}]'::jsonb, 1,
        jsonb_build_object('at_ms', 1, 'utilisation_pct', h / 4 % 100,
            'memory_used_bytes', h / 8 % 8 * 1000000000::bigint, 'memory_total_bytes', 24000000000,
            'temperature_c', 30 + h / 64 % 60, 'power_mw', 100000 + h / 4 % 300000),
        sha256('a'), decode(repeat('ab', 300), 'hex'), $2::bigint, $2::bigint, $2::bigint, 16, 64000000000,
        (ARRAY['DE', 'US', 'JP', 'ZA'])[1 + h / 2048 % 4], 1 + h / 16 % 8, h / 512 % 2 = 0, h / 2 % 80000,
        h / 4 % 100 / 100.0
    FROM (SELECT n, ('x' || substr(md5('h' || n), 1, 7))::bit(28)::int AS h
          FROM generate_series(0, $1::bigint - 1) AS n) AS made
    """,
    "INSERT INTO listing_words (words, peer) SELECT DISTINCT listing_words_of(l), false FROM listing l",
    "INSERT INTO listing_words (words, peer) SELECT DISTINCT query_lower(peer_id), true FROM listing",
    "INSERT INTO listing_search SELECT r.* FROM listing l"
    " JOIN listing_words w ON w.words = listing_words_of(l) AND NOT w.peer"
    " JOIN listing_words p ON p.words = query_lower(l.peer_id) AND p.peer"
    " CROSS JOIN LATERAL listing_search_of(l, w.no, p.no) r",
    "ALTER TABLE listing ENABLE TRIGGER USER",
)
INDEXED = [
    ("", "price"),
    ("", "price-"),
    ("", "score_per_qu-"),
    ("gpu_name=RTX_4090 region=eu", "price"),
    ("gpu_name='rtx 5090 rev 77' region=us price<60000", "price"),
    ("price in 20000..20500 rentable", "price"),
    ("'rev 137' region=eu", "price"),
]
"""Query line and order."""
SCANNED = [
    ("gpu_ram>=40 temperature<60 driver_version>=580 rentable", "temperature-, price"),
    ("gpu_ram>=1PB verified", "price"),
    ("cuda>=12.10 not (temperature>80 or utilisation>90)", "utilisation, score-"),
    ("'4090' temperature<40", "reliability-"),
    ("score>=10TFLOPS or memory_free>=20 or country in [JP, ZA]", "gpu_ram-, score_per_qu-"),
]


def run() -> list[Figure]:
    collector.settle()  # as the coordinator does
    figures = []
    for size in SIZES:
        with reachable_folder(on_disk=True) as folder:
            server = start_server(folder)
            try:
                figures += asyncio.run(_run_on(server, size))
            finally:
                server.stop()
    return figures


async def _run_on(server: PgServer, size: int) -> list[Figure]:
    async with connected(server, statement_timeout_s=600) as db:
        await fill(db, size)
        return await measure(db, size)


async def fill(db: Database, size: int, now_ms: int = NOW) -> None:
    connection = await plain_connection(db.dsn)
    try:
        for statement in _FILL:
            given = [number for name, number in (("$1", size), ("$2", now_ms)) if name in statement]
            await connection.execute(statement, *given)
        await connection.execute("VACUUM ANALYZE listing")
        await connection.execute("VACUUM ANALYZE listing_search")
        await connection.execute("VACUUM ANALYZE listing_words")
    finally:
        await connection.close(timeout=5)


async def measure(db: Database, size: int) -> list[Figure]:
    asked = [one for pair in INDEXED for one in await _pages(db, *pair)]
    turns = [call for one in asked for call in (*[partial(_one, db)] * BESIDE, partial(_ids, db, one))]
    taken = await _timed(turns, rounds=INDEXED_ROUNDS)
    indexed = taken[BESIDE :: BESIDE + 1]
    nothing = [ms for place, ms in enumerate(taken) if place % (BESIDE + 1) < BESIDE]
    each = [percentile(indexed[number :: len(asked)], 0.5) for number in range(len(asked))]
    slowest = asked[each.index(max(each))]
    last = percentile(nothing, 0.999)
    note = f"{slowest.query.text() or 'all'} takes longest, p50 {max(each):.3g} ms; SELECT 1 has p99.9 {last:.3g} ms"
    name, limit = f"search by index, {size:,} offers", "SELECT 1"
    figures = [
        beside(
            f"{name}, p50", percentile(indexed, 0.5), "ms", limit=percentile(nothing, 0.5), limit_name=limit, at_most=3
        ),
        beside(
            f"{name}, p99",
            percentile(indexed, 0.99),
            "ms",
            limit=percentile(nothing, 0.99),
            limit_name=limit,
            at_most=3,
            note=note,
        ),
    ]
    whole = await _timed([partial(_whole, db, one) for one in asked], rounds=2)
    figures.append(_plain(f"the same with {PAGE} listings read, p50", percentile(whole, 0.5)))
    if size <= SCANNED_MAX:
        rest = [Asked(parse(line), parse_order(order), PAGE) for line, order in SCANNED]
        scanned = await _timed([partial(_ids, db, one) for one in rest], rounds=SCANNED_ROUNDS)
        summed = await _timed([partial(_counts, db, one) for one in rest], rounds=SCANNED_ROUNDS)
        figures += [
            _plain(f"any search, {size:,} offers, p50", percentile(scanned, 0.5)),
            under(f"any search, {size:,} offers, p99", percentile(scanned, 0.99), "ms", aim=SCANNED_AIM_MS),
            under(f"counts for each filter, {size:,} offers, p99", percentile(summed, 0.99), "ms", aim=SCANNED_AIM_MS),
        ]
    return figures


async def _pages(db: Database, line: str, order: str) -> list[Asked]:
    """The first page, and the one after the next three."""
    first = Asked(parse(line), parse_order(order), PAGE)
    after: str | None = None
    for _ in range(4):
        async with db.transaction("repeatable_read", readonly=True, anew=True) as tx:
            after = (await search.page(tx, Asked(first.query, first.keys, PAGE, after), now_ms=NOW)).next
        if after is None:
            return [first]
    return [first, Asked(first.query, first.keys, PAGE, after)]


async def _timed(calls: Sequence[Callable[[], Awaitable[object]]], rounds: int) -> list[float]:
    """Milliseconds of each, after one turn to warm up."""
    taken = []
    for number in range(rounds + 1):
        for call in calls:
            began = time.perf_counter()
            await call()
            if number:
                taken.append((time.perf_counter() - began) * 1000)
    return taken


async def _in(db: Database, step: Callable[[Tx], Awaitable[object]]) -> object:
    async with db.transaction("repeatable_read", readonly=True, anew=True) as tx:
        return await step(tx)


async def _one(db: Database) -> object:
    async with db.transaction("repeatable_read", readonly=True) as tx:
        return await value(tx, "SELECT 1")


async def _ids(db: Database, asked: Asked) -> object:
    return await _in(db, lambda tx: search.page_ids(tx, asked, search.opened(asked), now_ms=NOW))


async def _whole(db: Database, asked: Asked) -> object:
    return await search.answer(db, asked, counted=False, now_ms=NOW)


async def _counts(db: Database, asked: Asked) -> object:
    return await _in(db, lambda tx: counts(tx, asked.query, now_ms=NOW, offer_s=OFFER_S))


def _plain(name: str, ms: float) -> Figure:
    return Figure(name=name, value=ms, unit="ms")
