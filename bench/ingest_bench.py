# SPDX-License-Identifier: Apache-2.0
"""Readings of many nodes written by our path, beside a bare COPY of as many; a chart from samples and from minutes.

*Our path* begins with messages as the sessions decoded them and ends when their batch is committed, marked for the
roll-ups: `Ingest.offer` and `flush`. The *bare COPY* writes rows that lie ready, with the same columns and key, into a
table that is not divided, one durable commit for each thousand. Rounds alternate, so that a slow disk hits both.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from bench.figures import Figure, beside, percentile
from qubix_coordinator import collector
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database, execute, rows
from qubix_coordinator.market import service as market
from qubix_coordinator.telemetry import history, rollups, service
from qubix_coordinator.telemetry.ingest import BATCH_MAX, Fate, Ingest
from qubix_coordinator.telemetry.rules import Plan, Said
from qubix_protocol.history import HistorySource
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Device, DeviceSample, Offer, Sample, Telemetry
from qubix_protocol.states import Availability, DeviceKind
from tests.support_pg import connected, reachable_folder, start_server

_NODES = 50
_CARDS = 4
_SAMPLES = 5
"""Of each card in one message: 50 nodes' messages are a thousand samples."""
_ROUNDS = 40
_CROWD = 20
"""Thousands of samples that wait together."""
_HOURS = 6
_PERIOD_S = 5
_CHARTS = 100
_START_S = 1_700_000_000 // 3600 * 3600


def run() -> list[Figure]:
    collector.settle()  # as the coordinator does
    with reachable_folder(on_disk=True) as folder:
        server = start_server(folder)
        try:
            return asyncio.run(_run(server))
        finally:
            server.stop()


async def _run(server: Any) -> list[Figure]:
    async with connected(server) as db:
        peers = [await _node(db) for _ in range(_NODES)]
        ours, bare = await _written(db, peers)
        crowd = await _crowd(db, peers)
        told = await _told(db, peers)
        charts = await _charts(db, peers)
    return [
        beside(
            "samples ingested, 1,000 at a time",
            statistics.median(ours),
            "/s",
            limit=statistics.median(bare),
            limit_name="bare COPY of 1,000 rows",
            at_least=0.7,
            note=f"{_NODES} nodes' messages a batch, each sample once, marked for the roll-ups",
        ),
        beside(
            f"samples ingested, {_CROWD * 1_000:,} at once",
            crowd,
            "/s",
            limit=statistics.median(bare),
            limit_name="bare COPY of 1,000 rows",
            at_least=0.7,
            note=f"in batches of up to {BATCH_MAX:,}, as after a moment without the database",
        ),
        Figure(name="the newest of 200 devices told to the market", value=told * 1000, unit="ms", note="after a batch"),
        *charts,
    ]


async def _node(db: Database) -> str:
    key = SigningKey.generate()
    await db.run(lambda tx: accounts.ensure_node(tx, key.peer_id))
    for card in range(_CARDS):
        device = Device(device_id=f"cpu-{card}", kind=DeviceKind.CPU, model="x", memory_bytes=1, backends=("cpu",))
        offer = Offer(device=device, rate_qu_per_h=1, region="", availability=Availability.AVAILABLE)
        await market.offer_received(db, key.peer_id, offer, b"offer", now_ms=_START_S * 1000)
    return key.peer_id


def _sample(at_s: int, card: int) -> Sample:
    return Sample(
        at_ms=at_s * 1000 + 123,
        utilisation_pct=float((at_s * 7 + card * 13) % 101),
        memory_used_bytes=(at_s * 31 + card) % 80 * 2**30,
        memory_total_bytes=80 * 2**30,
        temperature_c=30.0 + at_s % 50,
        power_mw=100_000 + at_s % 600_000,
        clock_mhz=1_000 + at_s % 900,
        memory_busy_pct=float(at_s % 101),
        memory_clock_mhz=2_600,
        power_limit_mw=700_000,
        throttle=("power_cap",) if at_s % 7 == 0 else (),
        processes=1,
    )


def _message(begin_s: int) -> Telemetry:
    return Telemetry(
        samples=tuple(
            DeviceSample(device_id=f"cpu-{card}", sample=_sample(begin_s + step * _PERIOD_S, card))
            for step in range(_SAMPLES)
            for card in range(_CARDS)
        )
    )


async def _written(db: Database, peers: list[str]) -> tuple[list[float], list[float]]:
    """Samples a second in each round, ours and bare."""
    fates: dict[Fate, int] = {}

    async def nobody(_: Mapping[tuple[str, str], Said]) -> None:
        return None

    def count(fate: Fate, times: int) -> None:
        fates[fate] = fates.get(fate, 0) + times

    ingest = Ingest(db, nobody, count)
    await db.run(lambda tx: execute(tx, "CREATE TABLE bare (LIKE sample INCLUDING ALL)"))
    ours, bare = [], []
    for number in range(_ROUNDS + 1):
        begin_s = _START_S + number * _SAMPLES * _PERIOD_S
        messages = [(peer, _message(begin_s)) for peer in peers]
        # The bare table has devices of its own, one for each card.
        records = [(index % (_NODES * _CARDS), *record) for index, record in enumerate(_by_time(messages))]
        now_ms = (begin_s + _SAMPLES * _PERIOD_S) * 1000
        ours.append(len(records) / await _took_s(lambda m=messages, n=now_ms: _ingest(ingest, m, n)))  # type: ignore[misc]
        bare.append(len(records) / await _took_s(lambda r=records: _copy(db, r)))  # type: ignore[misc]
    expected = (_ROUNDS + 1) * _NODES * _CARDS * _SAMPLES
    there = await db.fetch("SELECT (SELECT count(*) FROM sample) AS ours, (SELECT count(*) FROM bare) AS bare")
    if (fates, dict(there[0])) != ({Fate.KEPT: expected}, {"ours": expected, "bare": expected}):
        raise RuntimeError(f"not everything was written: {fates}, {there}")
    # The first round makes the partition and learns the devices.
    return ours[1:], bare[1:]


async def _crowd(db: Database, peers: list[str]) -> float:
    """Samples a second when many wait."""

    async def nobody(_: Mapping[tuple[str, str], Said]) -> None:
        return None

    ingest = Ingest(db, nobody, lambda fate, times: None)
    begin_s = _START_S + 43_200
    said = [(peer, _message(begin_s + number * _SAMPLES * _PERIOD_S)) for number in range(_CROWD) for peer in peers]
    now_ms = (begin_s + _CROWD * _SAMPLES * _PERIOD_S) * 1000
    return _CROWD * _NODES * _CARDS * _SAMPLES / await _took_s(lambda: _ingest(ingest, said, now_ms))


def _by_time(messages: list[tuple[str, Telemetry]]) -> list[tuple[Any, ...]]:
    """All but the device's number, as the driver takes them: by second, then card, so that `index % cards` numbers each
    card once a second."""
    samples = [one.sample for _, message in messages for one in message.samples]
    return [
        (one.at_ms // 1000, 0, *(_cell(field) for field in msgspec.structs.astuple(one)))
        for one in sorted(samples, key=lambda one: one.at_ms)
    ]


def _cell(field: object) -> object:
    return ",".join(field) if isinstance(field, tuple) else field


async def _ingest(ingest: Ingest, messages: list[tuple[str, Telemetry]], now_ms: int) -> None:
    for peer, message in messages:
        ingest.offer(peer, message, now_ms)
    await ingest.flush()


async def _copy(db: Database, records: list[tuple[Any, ...]]) -> None:
    async def step(tx: Any) -> None:
        await tx._connection.copy_records_to_table("bare", records=records, columns=service._ROWS.names)

    await db.run(step)


async def _took_s(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def _told(db: Database, peers: list[str]) -> float:
    """Seconds for one reading of each device, all listings and their events."""
    at_s = _START_S + 3600
    newest = {(peer, f"cpu-{card}"): _sample(at_s, card) for peer in peers for card in range(_CARDS)}
    return await _took_s(lambda: market.metrics_received(db, newest, now_ms=at_s * 1000))


async def _charts(db: Database, peers: list[str]) -> list[Figure]:
    """Some hours of one device, in points of five minutes."""
    await _filled(db, peers)
    number = int(await db.fetch_value("SELECT no FROM listing WHERE peer_id = $1 AND device_id = 'cpu-0'", peers[0]))
    begin_s, end_s = _START_S + 86_400, _START_S + 86_400 + _HOURS * 3600
    took: dict[HistorySource, float] = {}
    points: dict[HistorySource, list[Any]] = {}
    for source in (HistorySource.SAMPLE, HistorySource.MINUTE):
        plan = Plan(source, 300, begin_s, end_s)
        times = []
        for _ in range(_CHARTS):
            began = time.perf_counter()
            points[source] = await db.run(lambda tx, p=plan: history._points(tx, number, p), "repeatable_read")  # type: ignore[misc]
            times.append(time.perf_counter() - began)
        took[source] = percentile(times, 0.5) * 1000
    if points[HistorySource.SAMPLE] != points[HistorySource.MINUTE]:
        raise RuntimeError("minutes and samples give different charts")
    return [
        beside(
            f"a chart of {_HOURS} hours, from minutes",
            took[HistorySource.MINUTE],
            "ms",
            limit=took[HistorySource.SAMPLE],
            limit_name="the same chart from samples",
            note=f"{len(points[HistorySource.MINUTE])} points; the same to the bit",
        )
    ]


async def _filled(db: Database, peers: list[str]) -> None:
    """A part of the nodes told every five seconds, for hours; summed up."""
    begin_s = _START_S + 86_400
    for hour in range(_HOURS):
        for peer in peers[:10]:
            said = [
                Said(peer, 0, f"cpu-{card}", _sample(at_s, card))
                for at_s in range(begin_s + hour * 3600, begin_s + (hour + 1) * 3600, _PERIOD_S)
                for card in range(_CARDS)
            ]
            await db.run(lambda tx, s=said: service.keep(tx, service.Known({}, set()), s))  # type: ignore[misc]
    await rollups.roll(db, now_ms=(begin_s + (_HOURS + 2) * 3600) * 1000)
    await db.run(lambda tx: rows(tx, "ANALYZE"))
