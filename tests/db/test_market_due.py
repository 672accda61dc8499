# SPDX-License-Identifier: Apache-2.0
"""What becomes true by time alone reaches those who watch, each thing once, whichever replica looks."""

import asyncio
import uuid
from datetime import UTC, datetime

import pytest

from qubix_coordinator.clock import FakeClock
from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.market import due, rules, service, views
from qubix_protocol.messages import Device, Sample
from qubix_protocol.states import DeviceKind
from qubix_protocol.units import OFFER_S
from tests.db.test_market_service import NOW, enrolled, heard, offer

pytestmark = pytest.mark.asyncio
EXPIRY_S = rules.OFFERS_MISSED_MAX * OFFER_S


def clock_at(ms: int) -> FakeClock:
    return FakeClock(datetime.fromtimestamp(ms / 1000, UTC))


async def tick(db: Database, at_ms: int) -> int:
    return await due.Engine(db, clock_at(at_ms)).tick()


async def test_an_offer_that_stays_away_is_told_gone_once_and_its_return_is_news(db: Database) -> None:
    peer = await enrolled(db)
    await service.offer_received(db, peer, offer(), b"1", now_ms=NOW)
    (listing,) = await service.listings(db, now_ms=NOW)
    after_ms = NOW + round(EXPIRY_S * 1000) + 1
    assert await tick(db, after_ms - 1) == 0
    assert await tick(db, after_ms) == 1
    assert await tick(db, after_ms + 60_000) == 0
    assert (await heard(db))[1:] == [{"gone": listing.listing_id}]
    await service.offer_received(db, peer, offer(), b"2", now_ms=after_ms + 70_000)
    assert [event.get("listing_id") for event in await heard(db)] == [listing.listing_id, None, listing.listing_id]
    assert await tick(db, after_ms + 70_000 + round(EXPIRY_S * 1000) + 1) == 1
    assert (await heard(db))[-1] == {"gone": listing.listing_id}


async def test_a_reading_that_grows_old_is_told_once_and_a_newer_one_ends_that(db: Database) -> None:
    """P9."""
    peer = await enrolled(db)
    await service.offer_received(db, peer, offer(metrics=Sample(at_ms=NOW)), b"1", now_ms=NOW)
    old_ms = NOW + rules.UNMARKED_MS_MAX + 1
    assert await tick(db, old_ms - 1) == 0
    assert await tick(db, old_ms) == 1
    assert await tick(db, old_ms + 1) == 0
    told = (await heard(db))[-1]
    assert (told["stale"], told["metrics_age_ms"], told[views.HEARD]) == (True, rules.UNMARKED_MS_MAX + 1, NOW)
    await service.metrics_received(db, {(peer, "cpu-1"): Sample(at_ms=old_ms)}, now_ms=old_ms)
    assert not (await heard(db))[-1]["stale"]
    await service.offer_received(db, peer, offer(), b"2", now_ms=old_ms)
    assert await tick(db, old_ms + rules.UNMARKED_MS_MAX + 1) == 1
    assert (await heard(db))[-1]["stale"]


async def test_what_is_not_in_the_market_is_not_told_of(db: Database) -> None:
    peer = await enrolled(db)
    await service.offer_received(db, peer, offer(metrics=Sample(at_ms=NOW)), b"1", now_ms=NOW)
    key = service.listing_id(peer, "cpu-1")
    rental = uuid.uuid4()
    await db.run(lambda tx: execute(tx, "ALTER TABLE listing DROP CONSTRAINT listing_rental_fk"))
    await db.run(lambda tx: service.rent(tx, key, rental, now_ms=NOW))
    before = len(await heard(db))
    late_ms = NOW + round(EXPIRY_S * 1000) + 1
    await tick(db, late_ms)
    assert len(await heard(db)) == before, "a rented device left when it was rented"
    await db.run(lambda tx: service.release(tx, key, rental, now_ms=late_ms))
    assert (await heard(db))[-1] == {"gone": str(key)}, "its offer expired meanwhile"
    await service.node_offline(db, peer, incarnation=0, now_ms=late_ms)
    assert await tick(db, late_ms + 10_000_000) == 0


async def test_replicas_that_look_at_once_tell_each_thing_once(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due, "BATCH", 7)
    devices = [f"cpu-{number}" for number in range(40)]
    peer = await enrolled(db)
    for name in devices:
        device = Device(device_id=name, kind=DeviceKind.CPU, model="A CPU", memory_bytes=1, backends=("cpu",))
        await service.offer_received(db, peer, offer(device=device), b"1", now_ms=NOW)
    late_ms = NOW + round(EXPIRY_S * 1000) + 1
    told = await asyncio.gather(*(tick(db, late_ms) for _ in range(4)))
    told.append(await tick(db, late_ms))
    assert sum(told) == len(devices)
    gone = [event["gone"] for event in await heard(db) if "gone" in event]
    assert sorted(map(str, gone)) == sorted(str(service.listing_id(peer, name)) for name in devices)
