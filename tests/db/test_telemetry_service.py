# SPDX-License-Identifier: Apache-2.0
"""Samples are kept once, whatever is sent twice, and not for ever."""

import itertools
from typing import Any

import msgspec
import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database
from qubix_coordinator.telemetry import rules, service
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import DeviceSample, Sample, Telemetry
from qubix_protocol.units import READINGS_MAX

NOW = 1_700_000_000_000
DEVICES = frozenset({"a", "b"})


def telemetry(*readings: tuple[str, int, float | None]) -> Telemetry:
    return Telemetry(
        samples=tuple(
            DeviceSample(device_id=device, sample=Sample(at_ms=at, utilisation_pct=used, power_mw=1_000))
            for device, at, used in readings
        )
    )


async def enrolled(db: Database) -> str:
    key = SigningKey.generate()
    await db.run(lambda tx: accounts.ensure_node(tx, key.peer_id))
    return key.peer_id


@pytest.mark.asyncio
async def test_samples_are_kept_once_and_the_newest_told(db: Database) -> None:
    peer = await enrolled(db)
    message = telemetry(("a", NOW - 2, 1.0), ("b", NOW - 1, None), ("a", NOW, 3.0))
    newest = await service.record(db, peer, message, devices=DEVICES, now_ms=NOW)
    assert {device: sample.at_ms for device, sample in newest.items()} == {"a": NOW, "b": NOW - 1}
    await service.record(db, peer, message, devices=DEVICES, now_ms=NOW + 5)
    series = await service.series(db, peer, "a", since_ms=NOW - 60_000, now_ms=NOW)
    assert [(one.at_ms, one.utilisation_pct, one.power_mw) for one in series] == [
        (NOW - 2, 1.0, 1_000),
        (NOW, 3.0, 1_000),
    ]
    (other,) = await service.series(db, peer, "b", since_ms=NOW - 60_000, now_ms=NOW)
    assert other.utilisation_pct is None


@pytest.mark.asyncio
async def test_samples_from_the_future_do_not_stay_the_newest(db: Database) -> None:
    peer = await enrolled(db)
    message = telemetry(("a", NOW + rules.CLOCK_AHEAD_MS_MAX + 1, 1.0), ("a", NOW, 2.0))
    newest = await service.record(db, peer, message, devices=DEVICES, now_ms=NOW)
    assert newest["a"].at_ms == NOW
    assert await service.record(db, peer, telemetry(), devices=DEVICES, now_ms=NOW) == {}


@pytest.mark.asyncio
async def test_old_samples_are_pruned(db: Database) -> None:
    peer = await enrolled(db)
    await service.record(db, peer, telemetry(("a", NOW, 1.0)), devices=DEVICES, now_ms=NOW)
    await service.record(db, peer, telemetry(("a", NOW + 1_000, 1.0)), devices=DEVICES, now_ms=NOW + 1_000)
    assert await service.prune(db, now_ms=NOW + rules.KEEP_MS + 5) == 1
    assert [one.at_ms for one in await service.series(db, peer, "a", since_ms=NOW - 60_000, now_ms=NOW)] == [
        NOW + 1_000
    ]


@pytest.mark.asyncio
async def test_every_field_of_a_reading_is_kept(db: Database) -> None:
    assert set(service.COLUMNS) == {field.name for field in msgspec.structs.fields(Sample)}
    peer = await enrolled(db)
    full: dict[str, Any] = {name: 2**53 for name, kind in service.COLUMNS.items() if kind == "bigint"}
    full |= {name: 12.5 for name, kind in service.COLUMNS.items() if kind == "real"}
    samples = [
        Sample(**(full | {"at_ms": NOW, "throttle": ("thermal", "power_cap")})),
        Sample(**(full | {"at_ms": NOW + 1_000, "throttle": ()})),
        Sample(at_ms=NOW + 2_000),
    ]
    message = Telemetry(samples=tuple(DeviceSample(device_id="a", sample=sample) for sample in samples))
    await service.record(db, peer, message, devices=DEVICES, now_ms=NOW + 2_000)
    assert await service.series(db, peer, "a", since_ms=NOW - 60_000, now_ms=NOW) == samples


@pytest.mark.asyncio
async def test_a_node_cannot_fill_the_table(db: Database) -> None:
    """One row a second of a device that is in the market, however much is said."""
    peer = await enrolled(db)
    flood = telemetry(*(("a", NOW + ms, 1.0) for ms in range(500)), *((f"made-up-{i}", NOW, 1.0) for i in range(12)))
    newest = await service.record(db, peer, flood, devices=DEVICES, now_ms=NOW + 500)
    assert set(newest) == {"a"}
    await service.record(db, peer, telemetry(("a", NOW + 600, 1.0)), devices=DEVICES, now_ms=NOW + 600)
    found = await db.fetch("SELECT device_id FROM sample WHERE peer_id = $1", peer)
    assert [row["device_id"] for row in found] == ["a"]


@pytest.mark.asyncio
async def test_a_long_series_is_thinned_evenly_and_ends_with_the_newest(db: Database) -> None:
    peer = await enrolled(db)
    every_ms, count = 5_000, 2 * READINGS_MAX
    readings = [("a", NOW + number * every_ms, float(number % 100)) for number in range(count)]
    end = readings[-1][1]
    for part in range(0, count, 512):
        await service.record(db, peer, telemetry(*readings[part : part + 512]), devices=DEVICES, now_ms=end)
    series = await service.series(db, peer, "a", since_ms=NOW, now_ms=end)
    assert count / 2 - 2 <= len(series) <= READINGS_MAX
    times = [one.at_ms for one in series]
    assert times == sorted(times)
    assert times[-1] == end
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= 3 * every_ms


@pytest.mark.parametrize(("minutes", "most"), [(1, 720), (60, 720), (1440, 720), (1440, 2)])
def test_stretches_cover_the_window(minutes: int, most: int) -> None:
    stretch = rules.stretch_ms(minutes * 60_000, most)
    assert minutes * 60_000 / stretch <= most - 1 or stretch == 1_000
