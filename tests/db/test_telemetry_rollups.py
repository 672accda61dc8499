# SPDX-License-Identifier: Apache-2.0
"""Minutes, hours and the points of charts are what plain Python makes of the same samples, whenever they are made."""

import asyncio
import itertools
import random
import uuid
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import InvalidInput, NotFound
from qubix_coordinator.market import service as market
from qubix_coordinator.telemetry import folding, history, rollups, rules
from qubix_coordinator.telemetry.partitions import HOURS, MINUTES, SAMPLES
from qubix_protocol.history import GaugeView, HistoryPoint, HistorySource, HistoryView
from qubix_protocol.messages import Device, DeviceSample, Offer, Sample, Telemetry
from qubix_protocol.states import Availability, DeviceKind
from tests.db.support_http import assembled, make_person
from tests.db.test_telemetry_service import NOW, Desk, enrolled

DAY_S = 86_400
KEEP = rules.Keeping(sample_s=DAY_S, minute_s=7 * DAY_S, hour_s=400 * DAY_S)
START_S = NOW // 1000 // 3600 * 3600
"""A full hour."""


class Kept:
    """One device and what it told, as a table and as a list."""

    def __init__(self, db: Database, peer: str) -> None:
        self.db, self.peer, self.desk = db, peer, Desk(db)
        self.told: dict[int, Sample] = {}

    async def tell(self, samples: Sequence[Sample], now_s: int) -> None:
        for first in range(0, len(samples), 512):
            part = tuple(DeviceSample(device_id="a", sample=one) for one in samples[first : first + 512])
            self.desk.ingest.offer(self.peer, Telemetry(samples=part), now_s * 1000)
        await self.desk.ingest.flush()
        for one in samples:
            self.told.setdefault(one.at_ms // 1000, one)

    async def roll(self, now_s: int) -> None:
        await rollups.roll(self.db, now_ms=now_s * 1000)

    async def ask(self, since_s: int, until_s: int, points: int, *, now_s: int | None = None) -> HistoryView:
        return await history.history(
            self.db,
            market.listing_id(self.peer, "a"),
            since_ms=since_s * 1000,
            until_ms=until_s * 1000,
            points=points,
            now_ms=(now_s or until_s) * 1000,
            keep=KEEP,
        )

    def expected(self, since_s: int, until_s: int, bucket_s: int) -> list[HistoryPoint]:
        cells: dict[int, list[Sample]] = defaultdict(list)
        for at_s in sorted(self.told):
            if since_s <= at_s < until_s:
                cells[at_s // bucket_s * bucket_s].append(self.told[at_s])
        return [_point(start_s, cells[start_s]) for start_s in sorted(cells)]


def _point(start_s: int, samples: list[Sample]) -> HistoryPoint:
    gauges: dict[str, Any] = {}
    for name in folding.GAUGES:
        values = [float(value) for one in samples if (value := getattr(one, name)) is not None]
        gauges[name] = (
            GaugeView(min=min(values), mean=sum(values) / len(values), max=max(values), last=values[-1])
            if values
            else None
        )
    totals = [one.memory_total_bytes for one in samples if one.memory_total_bytes is not None]
    slowed = [bool(set(one.throttle) - {"idle"}) for one in samples if one.throttle is not None]
    return HistoryPoint(
        start_ms=start_s * 1000,
        samples=len(samples),
        memory_total_bytes=totals[-1] if totals else None,
        throttled=sum(slowed) / len(slowed) if slowed else None,
        **gauges,
    )


def same(found: Sequence[HistoryPoint], expected: Sequence[HistoryPoint]) -> None:
    """Means within rounding, everything else to the bit."""
    assert [_without_means(one) for one in found] == [_without_means(one) for one in expected]
    for one, other in zip(found, expected, strict=True):
        for name in folding.GAUGES:
            if getattr(other, name) is not None:
                assert getattr(one, name).mean == pytest.approx(getattr(other, name).mean, rel=1e-9)


def _without_means(one: HistoryPoint) -> list[Any]:
    gauges = [getattr(one, name) for name in folding.GAUGES]
    plain = [None if gauge is None else (gauge.min, gauge.max, gauge.last) for gauge in gauges]
    return [one.start_ms, one.samples, one.memory_total_bytes, one.throttled, *plain]


def drawn(draw: random.Random, at_s: int) -> Sample:
    """Half of a sample's gauges are told, in numbers that a table of singles keeps."""

    def some(value: Any) -> Any:
        return value if draw.random() < 0.7 else None

    return Sample(
        at_ms=at_s * 1000 + draw.randrange(1000),
        utilisation_pct=some(draw.randrange(401) / 4),
        temperature_c=some(draw.randrange(-40, 400) / 4),
        memory_used_bytes=some(draw.randrange(80 * 2**30)),
        memory_total_bytes=some(80 * 2**30),
        power_mw=some(draw.randrange(700_000)),
        clock_mhz=some(draw.randrange(2_000)),
        throttle=some(draw.choice([(), ("idle",), ("thermal",), ("power_cap", "thermal")])),
    )


async def told_over_hours(db: Database, seed: int, hours: int) -> tuple[Kept, int]:
    """Samples over some hours with gaps, a part of them late, while minutes and hours are made now and then; the time
    at the end."""
    draw = random.Random(seed)
    kept = Kept(db, await enrolled(db, "a"))
    late: list[Sample] = []
    end_s = START_S + hours * 3600
    for begin_s in range(START_S, end_s, 600):
        here = [drawn(draw, at_s) for at_s in range(begin_s, begin_s + 600, 5) if draw.random() < 0.9]
        if draw.random() < 0.2:
            here = []
        held = [one for one in here if draw.random() < 0.2]
        now_s = begin_s + 600
        await kept.tell([one for one in here if one not in held], now_s)
        due = [one for one in late if draw.random() < 0.5 or now_s * 1000 - one.at_ms > 2_400_000]
        await kept.tell(due, now_s)
        late = [one for one in late if one not in due] + held
        if draw.random() < 0.6:
            await kept.roll(now_s + draw.randrange(120))
    await kept.tell(late, end_s)
    return kept, end_s


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", [1, 2])
async def test_points_are_what_python_makes_of_the_samples(db: Database, seed: int) -> None:
    await check_points(db, seed, 5)


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(10, 30))
async def test_points_are_what_python_makes_of_many_samples(db: Database, seed: int) -> None:
    await check_points(db, seed, 20)


async def check_points(db: Database, seed: int, hours: int) -> None:
    kept, end_s = await told_over_hours(db, seed, hours)
    for rolled in (False, True):
        if rolled:
            await kept.roll(end_s + 7200)
        for points, source in ((1_000, None), (60, HistorySource.MINUTE), (2, HistorySource.HOUR)):
            found = await kept.ask(START_S, end_s, points)
            assert len(found.points) <= points
            assert source in (None, found.source)
            bucket_s = found.bucket_ms // 1000
            same(found.points, kept.expected(START_S // bucket_s * bucket_s, end_s, bucket_s))
    for table, span_s in ((MINUTES, 60), (HOURS, 3600)):
        rows = await db.fetch(f"SELECT * FROM {table.table} ORDER BY start_s")
        expected = kept.expected(START_S, end_s, span_s)
        assert [(row["start_s"] * 1000, row["samples"]) for row in rows] == [(e.start_ms, e.samples) for e in expected]
        same([history._point(row) for row in rows], expected)


@pytest.mark.asyncio
async def test_to_roll_up_twice_or_at_two_replicas_changes_nothing(db: Database) -> None:
    kept = Kept(db, await enrolled(db, "a"))
    samples = [Sample(at_ms=(START_S + 5 * step) * 1000, power_mw=step) for step in range(720)]
    await kept.tell(samples, START_S + 3600)
    await asyncio.gather(*(kept.roll(START_S + 9000) for _ in range(4)))
    await kept.roll(START_S + 9000)
    once = await db.fetch("SELECT * FROM sample_minute ORDER BY start_s")
    assert (len(once), sum(row["samples"] for row in once)) == (60, 720)
    assert await db.fetch_value("SELECT count(*) FROM sample_touched") == 0
    await kept.tell(samples, START_S + 3600)
    await kept.roll(START_S + 9000)
    assert await db.fetch("SELECT * FROM sample_minute ORDER BY start_s") == once
    assert await db.fetch_value("SELECT samples FROM sample_hour") == 720


@pytest.mark.asyncio
async def test_devices_that_told_in_different_minutes_of_an_hour_each_get_their_hour(db: Database) -> None:
    peer = await enrolled(db, "a", "b")
    desk = Desk(db)
    for device, after_s in (("a", 10), ("b", 70), ("a", 3000)):
        sample = DeviceSample(device_id=device, sample=Sample(at_ms=(START_S + after_s) * 1000, power_mw=after_s))
        desk.ingest.offer(peer, Telemetry(samples=(sample,)), (START_S + after_s) * 1000)
    await desk.ingest.flush()
    await rollups.roll(db, now_ms=(START_S + 7200) * 1000)
    rows = await db.fetch(
        "SELECT l.device_id, h.samples, h.power_mw_sum FROM sample_hour h"
        " JOIN listing l ON l.no = h.device_no ORDER BY 1"
    )
    assert [tuple(row.values()) for row in rows] == [("a", 2, 3010.0), ("b", 1, 70.0)]


@pytest.mark.asyncio
async def test_a_late_sample_is_in_every_chart_before_its_hour_is_made_anew(db: Database) -> None:
    kept = Kept(db, await enrolled(db, "a"))
    await kept.tell([Sample(at_ms=(START_S + 3500) * 1000, power_mw=5)], START_S + 3500)
    await kept.roll(START_S + 3700)
    assert await db.fetch_value("SELECT power_mw_sum FROM sample_hour") == 5
    await kept.tell([Sample(at_ms=(START_S + 3000) * 1000, power_mw=7)], START_S + 3800)
    for points, source in ((2, HistorySource.HOUR), (61, HistorySource.MINUTE), (1_000, HistorySource.SAMPLE)):
        found = await kept.ask(START_S, START_S + 3600, points, now_s=START_S + 3800)
        assert (found.source, sum(one.samples for one in found.points)) == (source, 2)
    assert await db.fetch_value("SELECT power_mw_sum FROM sample_hour") == 5
    await kept.roll(START_S + 3900)
    assert await db.fetch_value("SELECT power_mw_sum FROM sample_hour") == 12


@pytest.mark.asyncio
async def test_a_gap_is_a_gap(db: Database) -> None:
    kept = Kept(db, await enrolled(db, "a"))
    at = [*range(START_S, START_S + 600, 5), *range(START_S + 3000, START_S + 3600, 5)]
    await kept.tell([Sample(at_ms=at_s * 1000, temperature_c=40.0) for at_s in at], START_S + 3600)
    await kept.roll(START_S + 7300)
    found = await kept.ask(START_S, START_S + 3600, 61, now_s=START_S + 7300)
    assert found.bucket_ms == 60_000
    assert [one.start_ms // 1000 - START_S for one in found.points] == [*range(0, 600, 60), *range(3000, 3600, 60)]
    assert all(one.utilisation_pct is None and one.throttled is None for one in found.points)
    assert {(one.temperature_c.mean, one.temperature_c.last) for one in found.points if one.temperature_c} == {(40, 40)}


@pytest.mark.asyncio
async def test_what_is_not_summed_up_is_kept_and_the_rest_dropped_by_the_day(db: Database) -> None:
    kept = Kept(db, await enrolled(db, "a"))
    await kept.tell([Sample(at_ms=START_S * 1000, power_mw=1)], START_S)
    limits = {"sample_keep_s": DAY_S, "minute_keep_s": 2 * DAY_S, "hour_keep_s": 40 * DAY_S}
    day = SAMPLES.number(START_S)

    async def tend(after_s: int) -> list[str]:
        return await rollups.tend(db, now_ms=(START_S + after_s) * 1000, **limits)

    assert await tend(5 * DAY_S) == [], "it is not summed up yet"
    await kept.roll(START_S + 5 * DAY_S)
    assert await tend(5 * DAY_S) == [SAMPLES.name(day), MINUTES.name(day)]
    found = await kept.ask(START_S - DAY_S, START_S + 5 * DAY_S, 300)
    assert (found.source, len(found.points)) == (HistorySource.MINUTE, 0), "the minutes of that day are gone"
    found = await kept.ask(START_S - 6 * DAY_S, START_S + 5 * DAY_S, 300)
    assert (found.source, [one.samples for one in found.points]) == (HistorySource.HOUR, [1])
    dropped = await tend(90 * DAY_S)
    assert HOURS.name(HOURS.number(START_S)) in dropped


def test_a_plan_never_has_more_points_than_asked() -> None:
    draw = random.Random(3)
    now_s = START_S
    for _ in range(2_000):
        length_s = draw.choice([1, 59, 3_600, 7_200, DAY_S, 8 * DAY_S, 399 * DAY_S]) + draw.randrange(100)
        until_s = now_s - draw.choice([0, 1, 7, DAY_S])
        points = draw.choice([2, 3, 60, 300, 1_000])
        plan = rules.plan((until_s - length_s) * 1000 + 7, until_s * 1000 + 1, points, now_s * 1000, KEEP)
        assert plan.since_s <= until_s - length_s < until_s <= plan.until_s
        assert -(-(plan.until_s - plan.since_s) // plan.bucket_s) <= points + 1
        fine = {HistorySource.SAMPLE: KEEP.sample_s, HistorySource.MINUTE: KEEP.minute_s}
        assert until_s - length_s >= now_s - fine.get(plan.source, KEEP.hour_s + 10 * DAY_S)


@pytest.mark.asyncio
async def test_price_and_availability_are_kept_as_they_change(db: Database) -> None:
    peer = await enrolled(db, "a")
    now_ms = NOW

    async def offer(rate: int, availability: Availability, after_s: int) -> None:
        device = Device(device_id="a", kind=DeviceKind.CPU, model="x", memory_bytes=1, backends=("cpu",))
        said = Offer(device=device, rate_qu_per_h=rate, region="", availability=availability)
        await market.offer_received(db, peer, said, b"offer", now_ms=now_ms + after_s * 1000)

    await offer(5, Availability.AVAILABLE, 60)
    await offer(5, Availability.AVAILABLE, 90)
    await offer(8, Availability.AVAILABLE, 110)
    await offer(9, Availability.AVAILABLE, 120)
    await offer(7, Availability.DRAINING, 170)
    await market.node_offline(db, peer, incarnation=10, now_ms=now_ms + 600_000)
    kept = Kept(db, peer)
    found = await kept.ask(NOW // 1000 + 30, NOW // 1000 + 900, 300)
    assert [(one.at_ms - NOW, one.rate_qu_per_h, str(one.availability)) for one in found.changes] == [
        (0, 1, "available"),
        (60_000, 5, "available"),
        (120_000, 9, "available"),
        (170_000, 7, "draining"),
        (600_000, 7, "offline"),
    ]
    later = await kept.ask(NOW // 1000 + 200, NOW // 1000 + 900, 300)
    assert [one.at_ms - NOW for one in later.changes] == [170_000, 600_000], "and the one that held at its beginning"
    await rollups.tend(db, sample_keep_s=1, minute_keep_s=1, hour_keep_s=600, now_ms=NOW + 1_000_000)
    assert [one.at_ms - NOW for one in (await kept.ask(1, NOW // 1000 + 900, 300)).changes] == [170_000, 600_000]


@pytest.mark.asyncio
async def test_what_cannot_be_asked(db: Database) -> None:
    kept = Kept(db, await enrolled(db, "a"))
    for since_s, until_s in itertools.product((START_S + 10,), (START_S + 10, START_S)):
        with pytest.raises(InvalidInput):
            await kept.ask(since_s, until_s, 300, now_s=START_S + 20)
    with pytest.raises(NotFound):
        await history.history(db, uuid.uuid4(), since_ms=1, until_ms=NOW, points=3, now_ms=NOW, keep=KEEP)


@pytest.mark.asyncio
async def test_over_http(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    coordinator = await assembled(db, tmp_path)
    client, now_ms = coordinator.app.test_client(), coordinator.context.now_ms()
    peer = await enrolled(db, "a")
    kept = Kept(db, peer)
    await kept.tell([Sample(at_ms=now_ms - 10_000, utilisation_pct=50.0)], now_ms // 1000)
    url = f"/api/v1/offers/{market.listing_id(peer, 'a')}/history"
    found = await (await client.get(f"{url}?since={now_ms - 3_600_000}", headers=person.headers)).get_json()
    assert [one["utilisation_pct"]["last"] for one in found["points"]] == [50.0]
    assert (found["source"], found["until_ms"] >= now_ms) == ("sample", True)
    assert (await client.get(url, headers=person.headers)).status_code == 200
    for query in ("points=1", "points=1001", f"since={now_ms + 10**9}", "until=0"):
        assert (await client.get(f"{url}?{query}", headers=person.headers)).status_code == 422, query
    missing = await client.get(f"/api/v1/offers/{uuid.uuid4()}/history", headers=person.headers)
    assert missing.status_code == 404
