# SPDX-License-Identifier: Apache-2.0
"""Offers become listings, and everybody who watches the market hears of changes and of nothing else."""

import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database
from qubix_coordinator.market import rules, service
from qubix_coordinator.outbox import events
from qubix_coordinator.outbox.rules import START
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Device, KernelRate, Offer, Sample
from qubix_protocol.states import Availability, DeviceKind, Isolation

GIB = 1024**3
NOW = 1_700_000_000_000


def offer(**changes: object) -> Offer:
    plain: dict[str, object] = {
        "device": Device(
            device_id="cpu-1", kind=DeviceKind.CPU, model="A CPU", memory_bytes=8 * GIB, backends=("cpu",)
        ),
        "rate_qu_per_h": 3_600,
        "region": "local",
        "availability": Availability.AVAILABLE,
        "rates": (KernelRate(kernel="matmul", backend="cpu", flops_per_s=1e9, bytes_per_s=1e9),),
    }
    return Offer(**(plain | changes))  # type: ignore[arg-type]


async def enrolled(db: Database) -> str:
    key = SigningKey.generate()
    await db.run(lambda tx: accounts.ensure_node(tx, key.peer_id))
    return key.peer_id


async def heard(db: Database) -> list[dict[str, object]]:
    return [event.payload for event in await events.read(db, START, ["market"])]


@pytest.mark.asyncio
async def test_one_device_is_one_listing_however_often_it_is_offered(db: Database) -> None:
    peer = await enrolled(db)
    for age in range(3):
        await service.offer_received(db, peer, offer(), b"signed", now_ms=NOW + age)
    (listing,) = await service.listings(db, now_ms=NOW + 3)
    assert (listing.provider, listing.model, listing.rate_qu_per_h) == (peer, "A CPU", 3_600)
    assert not listing.verified
    assert [event["listing_id"] for event in await heard(db)] == [listing.listing_id]


@pytest.mark.asyncio
async def test_a_listing_says_what_its_jobs_run_in_and_nothing_said_is_no_box(db: Database) -> None:
    peer = await enrolled(db)
    for number, changes in enumerate(({}, {"isolation": Isolation.BOX}, {"isolation": Isolation.LIMITED})):
        await service.offer_received(db, peer, offer(**changes), b"signed", now_ms=NOW + number)
    assert [event["isolation"] for event in await heard(db)] == ["limited", "box", "limited"]
    (listing,) = await service.listings(db, now_ms=NOW + 3)
    assert listing.isolation is Isolation.LIMITED


@pytest.mark.asyncio
async def test_a_change_is_told_once(db: Database) -> None:
    peer = await enrolled(db)
    await service.offer_received(db, peer, offer(), b"1", now_ms=NOW)
    await service.offer_received(db, peer, offer(rate_qu_per_h=7), b"2", now_ms=NOW + 1)
    await service.offer_received(db, peer, offer(rate_qu_per_h=7), b"3", now_ms=NOW + 2)
    assert [event["rate_qu_per_h"] for event in await heard(db)] == [3_600, 7]
    (listing,) = await service.listings(db, now_ms=NOW + 2)
    assert listing.updated_ms == NOW + 1


@pytest.mark.asyncio
async def test_a_node_that_leaves_takes_its_listings_with_it(db: Database) -> None:
    peer = await enrolled(db)
    await service.offer_received(db, peer, offer(), b"1", now_ms=NOW)
    (listing,) = await service.listings(db, now_ms=NOW)
    await service.node_offline(db, peer, incarnation=0, now_ms=NOW + 1)
    assert await service.listings(db, now_ms=NOW + 1) == []
    assert (await heard(db))[-1] == {"gone": listing.listing_id}
    await service.node_online(db, peer, now_ms=NOW + 2)
    assert [one.listing_id for one in await service.listings(db, now_ms=NOW + 2)] == [listing.listing_id]


@pytest.mark.asyncio
async def test_a_node_that_moved_to_another_replica_is_not_taken_off_the_market_by_the_old_one(db: Database) -> None:
    peer = await enrolled(db)
    old = await db.run(lambda tx: accounts.next_incarnation(tx, peer))
    await service.offer_received(db, peer, offer(), b"1", now_ms=NOW)
    new = await db.run(lambda tx: accounts.next_incarnation(tx, peer))
    await service.node_offline(db, peer, incarnation=old, now_ms=NOW + 1)
    assert len(await service.listings(db, now_ms=NOW + 1)) == 1
    await service.node_offline(db, peer, incarnation=new, now_ms=NOW + 2)
    assert await service.listings(db, now_ms=NOW + 2) == []


@pytest.mark.asyncio
async def test_offers_that_stay_away_leave_the_market(db: Database) -> None:
    peer = await enrolled(db)
    await service.offer_received(db, peer, offer(), b"1", now_ms=NOW)
    assert len(await service.listings(db, now_ms=NOW + 90_000)) == 1
    assert await service.listings(db, now_ms=NOW + 90_001) == []
    assert await db.run(lambda tx: service.candidates(tx, now_ms=NOW + 90_001)) == []


@pytest.mark.asyncio
async def test_old_metrics_are_marked(db: Database) -> None:
    """P9."""
    peer = await enrolled(db)
    await service.offer_received(db, peer, offer(metrics=Sample(at_ms=NOW, utilisation_pct=5.0)), b"1", now_ms=NOW)
    await service.metrics_received(db, {(peer, "cpu-1"): Sample(at_ms=NOW + 1, utilisation_pct=50.0)}, now_ms=NOW + 1)
    (fresh,) = await service.listings(db, now_ms=NOW + 45_001)
    (old,) = await service.listings(db, now_ms=NOW + 45_002)
    assert fresh.metrics is not None
    assert (fresh.metrics.utilisation_pct, fresh.metrics_age_ms, fresh.stale) == (50.0, 45_000, False)
    assert old.stale, "it was up to 15 s old when it came"
    assert len(await heard(db)) == 2


@pytest.mark.asyncio
async def test_a_reading_that_waited_is_as_old_as_it_is(db: Database) -> None:
    """P9: one that waited for a database that was away is not shown as what is now."""
    peer = await enrolled(db)
    await service.offer_received(db, peer, offer(), b"1", now_ms=NOW)
    sample, device = Sample(at_ms=NOW, utilisation_pct=50.0), (peer, "cpu-1")
    await service.metrics_received(db, {device: sample}, now_ms=NOW + 70_000, heard_ms={device: NOW + 5})
    (view,) = await service.listings(db, now_ms=NOW + 70_000)
    assert (view.metrics, view.metrics_age_ms, view.stale) == (sample, 69_995, True)


@pytest.mark.asyncio
async def test_a_reading_that_is_said_again_does_not_become_young(db: Database) -> None:
    """P9: an offer is repeated every half minute, whatever became of the card's driver meanwhile."""
    peer = await enrolled(db)
    reading = Sample(at_ms=NOW, utilisation_pct=5.0)
    await service.offer_received(db, peer, offer(metrics=reading), b"1", now_ms=NOW)
    for later in (30_000, 60_000):
        await service.offer_received(db, peer, offer(metrics=reading), b"2", now_ms=NOW + later)
        await service.metrics_received(db, {(peer, "cpu-1"): reading}, now_ms=NOW + later)
    (listing,) = await service.listings(db, now_ms=NOW + 60_001)
    assert (listing.metrics_age_ms, listing.stale) == (60_001, True)
    back = Sample(at_ms=NOW - 3_600_000, utilisation_pct=6.0)
    await service.metrics_received(db, {(peer, "cpu-1"): back}, now_ms=NOW + 61_000)
    (listing,) = await service.listings(db, now_ms=NOW + 61_000)
    assert (listing.metrics, listing.stale) == (back, False), "the node's clock was put back"


@pytest.mark.asyncio
async def test_failures_pause_a_provider_and_good_work_forgives_them(db: Database) -> None:
    peer = await enrolled(db)
    await service.offer_received(db, peer, offer(), b"1", now_ms=NOW)
    key = service.listing_id(peer, "cpu-1")

    async def candidate() -> rules.Candidate:
        (found,) = await db.run(lambda tx: service.candidates(tx, now_ms=NOW))
        return found

    await db.run(lambda tx: service.count_failure(tx, key, now_ms=NOW))
    assert (await candidate()).backoff_until_ms == NOW + rules.BACKOFF_FIRST_MS
    await db.run(lambda tx: service.count_failure(tx, key, now_ms=NOW))
    assert (await candidate()).backoff_until_ms == NOW + 2 * rules.BACKOFF_FIRST_MS
    await db.run(lambda tx: service.count_accepted(tx, key, now_ms=NOW, forgive=True))
    assert ((await candidate()).backoff_until_ms, (await candidate()).failures) == (0, 0)
    await db.run(lambda tx: service.count_rejected(tx, key, now_ms=NOW))
    (listing,) = await service.listings(db, now_ms=NOW)
    assert (listing.verified, listing.jobs_accepted, listing.jobs_rejected) == (False, 1, 1)
    assert (await candidate()).backoff_until_ms == NOW + rules.WRONG_RESULT_BACKOFF_MS


@pytest.mark.asyncio
async def test_a_listing_is_in_one_deciders_hands_at_a_time(db: Database) -> None:
    peer = await enrolled(db)
    await service.offer_received(db, peer, offer(), b"1", now_ms=NOW)
    key = service.listing_id(peer, "cpu-1")
    async with db.transaction() as first, db.transaction() as second:
        assert await service.lock(first, key) is not None
        assert await service.lock(second, key) is None
