# SPDX-License-Identifier: Apache-2.0
"""Samples are kept once, whatever is sent twice, and not for ever."""

import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database
from qubix_coordinator.telemetry import rules, service
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import DeviceSample, Sample, Telemetry

NOW = 1_700_000_000_000


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
    newest = await service.record(db, peer, message, now_ms=NOW)
    assert {device: sample.at_ms for device, sample in newest.items()} == {"a": NOW, "b": NOW - 1}
    await service.record(db, peer, message, now_ms=NOW + 5)
    series = await service.series(db, peer, "a", since_ms=0)
    assert [(one.at_ms, one.utilisation_pct, one.power_mw) for one in series] == [
        (NOW - 2, 1.0, 1_000),
        (NOW, 3.0, 1_000),
    ]
    (other,) = await service.series(db, peer, "b", since_ms=0)
    assert other.utilisation_pct is None


@pytest.mark.asyncio
async def test_samples_from_the_future_do_not_stay_the_newest(db: Database) -> None:
    peer = await enrolled(db)
    message = telemetry(("a", NOW + rules.CLOCK_AHEAD_MS_MAX + 1, 1.0), ("a", NOW, 2.0))
    newest = await service.record(db, peer, message, now_ms=NOW)
    assert newest["a"].at_ms == NOW
    assert await service.record(db, peer, telemetry(), now_ms=NOW) == {}


@pytest.mark.asyncio
async def test_old_samples_are_pruned(db: Database) -> None:
    peer = await enrolled(db)
    await service.record(db, peer, telemetry(("a", NOW, 1.0)), now_ms=NOW)
    await service.record(db, peer, telemetry(("a", NOW + 10, 1.0)), now_ms=NOW + 10)
    assert await service.prune(db, now_ms=NOW + rules.KEEP_MS + 5) == 1
    assert [one.at_ms for one in await service.series(db, peer, "a", since_ms=0)] == [NOW + 10]
