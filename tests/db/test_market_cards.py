# SPDX-License-Identifier: Apache-2.0
"""One card is one listing, whoever says so; several cards of a node are a listing each and know of each other."""

import asyncio
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database, Tx, execute
from qubix_coordinator.errors import Conflict
from qubix_coordinator.market import service
from qubix_coordinator.market.rules import Way
from qubix_coordinator.market.tables import Listing
from qubix_coordinator.outbox import events
from qubix_coordinator.outbox.rules import START
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Device, Offer
from qubix_protocol.states import Availability, DeviceKind

pytestmark = pytest.mark.asyncio
NOW = 1_700_000_000_000
CARD = "GPU-3f2c0b1a-0000-1111-2222-333344445555"


def card(device_id: str = CARD, **changes: Any) -> Offer:
    device = Device(device_id=device_id, kind=DeviceKind.CUDA, model="H100", memory_bytes=80 << 30, backends=("cuda",))
    given: dict[str, Any] = {"rate_qu_per_h": 9, "region": "local", "availability": Availability.AVAILABLE}
    return Offer(device=device, **{**given, **changes})


async def enrolled(db: Database) -> str:
    key = SigningKey.generate()
    await db.run(lambda tx: accounts.ensure_node(tx, key.peer_id))
    return key.peer_id


async def said(db: Database, peer: str, at_ms: int, offer: Offer | None = None, **how: Any) -> None:
    await service.offer_received(db, peer, offer or card(), b"signed", now_ms=NOW + at_ms, **how)


async def owners(db: Database, at_ms: int) -> list[str]:
    return [one.provider for one in await service.listings(db, now_ms=NOW + at_ms)]


async def feed(db: Database) -> dict[str, dict[str, Any]]:
    """What a reader who followed from the start has."""
    table: dict[str, dict[str, Any]] = {}
    for event in await events.read(db, START, ["market"]):
        if "gone" in event.payload:
            table.pop(str(event.payload["gone"]), None)
        else:
            table[str(event.payload["listing_id"])] = dict(event.payload)
    return table


async def rented(db: Database, key: UUID) -> UUID:
    """Without the rental's own row, which is of no account here."""
    rental = uuid4()

    async def step(tx: Tx) -> None:
        await execute(tx, "SET LOCAL session_replication_role = replica")
        await service.rent(tx, key, rental, now_ms=NOW + 12)

    await db.run(step)
    return rental


async def test_a_claim_of_a_card_that_is_there_is_refused_and_takes_nothing(db: Database) -> None:
    first, second = await enrolled(db), await enrolled(db)
    await said(db, first, 0)
    for at_ms in (1, 2):
        with pytest.raises(Conflict, match="another node"):
            await said(db, second, at_ms)
    assert await owners(db, 3) == [first]
    assert [one["provider"] for one in (await feed(db)).values()] == [first]
    await said(db, second, 4, card("GPU-another"))
    assert sorted(await owners(db, 5)) == sorted([first, second])


async def test_a_node_installed_anew_lists_its_card_once_the_old_one_is_away(db: Database) -> None:
    old, new = await enrolled(db), await enrolled(db)
    await said(db, old, 0)
    await service.node_offline(db, old, incarnation=0, now_ms=NOW + 1)
    await said(db, new, 2)
    assert await owners(db, 3) == [new]


async def test_an_offer_that_expired_holds_no_card(db: Database) -> None:
    silent, other = await enrolled(db), await enrolled(db)
    await said(db, silent, 0)
    await said(db, other, 91_000)
    assert await owners(db, 91_001) == [other]


async def test_who_was_there_first_takes_its_card_back_from_a_claim_made_meanwhile(db: Database) -> None:
    owner, claimer = await enrolled(db), await enrolled(db)
    await said(db, owner, 0)
    await service.node_offline(db, owner, incarnation=0, now_ms=NOW + 1)
    await said(db, claimer, 2)
    await service.node_online(db, owner, now_ms=NOW + 3)
    assert await owners(db, 3) == [claimer], "whose it is, its next offer settles"
    await said(db, owner, 4)
    assert await owners(db, 5) == [owner]
    with pytest.raises(Conflict):
        await said(db, claimer, 6)
    assert [one["provider"] for one in (await feed(db)).values()] == [owner]


async def test_the_proven_and_the_rented_listing_keep_their_card(db: Database) -> None:
    first, proven = await enrolled(db), await enrolled(db)
    await said(db, first, 0)
    await service.node_offline(db, first, incarnation=0, now_ms=NOW + 1)
    await said(db, proven, 2)
    key = service.listing_id(proven, CARD)
    await db.run(lambda tx: Listing.filter(id=key).using_db(tx).update(verified=True))
    with pytest.raises(Conflict):
        await said(db, first, 3)
    assert await owners(db, 4) == [proven]
    await db.run(lambda tx: Listing.filter(id=key).using_db(tx).update(verified=False))
    await rented(db, key)
    with pytest.raises(Conflict):
        await said(db, first, 5)
    await said(db, proven, 6)


async def test_who_rents_its_own_claim_of_a_card_does_not_keep_the_proven_owner_off_the_market(db: Database) -> None:
    owner, claimer = await enrolled(db), await enrolled(db)
    await said(db, owner, 0)
    key = service.listing_id(owner, CARD)
    await db.run(lambda tx: Listing.filter(id=key).using_db(tx).update(verified=True))
    await service.node_offline(db, owner, incarnation=0, now_ms=NOW + 1)
    await said(db, claimer, 2)
    await rented(db, service.listing_id(claimer, CARD))
    await said(db, owner, 13)
    assert await owners(db, 14) == [owner]
    with pytest.raises(Conflict):
        await said(db, claimer, 15)


async def test_two_who_claim_one_card_at_the_same_moment_are_one_listing(db: Database) -> None:
    peers = [await enrolled(db) for _ in range(6)]
    outcomes = await asyncio.gather(*(said(db, peer, 0) for peer in peers), return_exceptions=True)
    assert [type(one) for one in outcomes].count(Conflict) == 5
    assert len(await owners(db, 1)) == 1


async def test_processors_are_never_one_anothers(db: Database) -> None:
    one, other = await enrolled(db), await enrolled(db)
    cpu = Device(device_id="cpu-1", kind=DeviceKind.CPU, model="m", memory_bytes=1, backends=("cpu",))
    for peer in (one, other):
        offer = Offer(device=cpu, rate_qu_per_h=1, region="local", availability=Availability.AVAILABLE)
        await said(db, peer, 0, offer)
    assert sorted(await owners(db, 1)) == sorted([one, other])


async def test_cards_of_a_node_count_those_like_them_and_readers_hear_of_it(db: Database) -> None:
    peer = await enrolled(db)

    async def alike(at_ms: int) -> list[int]:
        found = await service.listings(db, now_ms=NOW + at_ms)
        told = await feed(db)
        assert {one.listing_id: one.devices_alike for one in found} == {
            key: one["devices_alike"] for key, one in told.items()
        }
        return sorted(one.devices_alike for one in found)

    seen = []
    for number in range(4):
        await said(db, peer, number, card(f"GPU-{number}"))
        seen.append(await alike(number))
    assert seen == [[1], [2, 2], [3, 3, 3], [4, 4, 4, 4]]
    await said(db, peer, 10, card("GPU-0", availability=Availability.OFFLINE))
    assert await alike(11) == [3, 3, 3]
    key = service.listing_id(peer, "GPU-1")
    rental = await rented(db, key)
    assert await alike(13) == [2, 2]
    await db.run(lambda tx: service.release(tx, key, rental, now_ms=NOW + 14))
    assert await alike(15) == [3, 3, 3]
    await service.node_offline(db, peer, incarnation=0, now_ms=NOW + 16)
    assert await alike(17) == []
    await said(db, peer, 18, card("GPU-2"))
    assert await alike(19) == [1]


async def test_a_country_that_was_seen_stands_before_the_nodes_word(db: Database) -> None:
    peer = await enrolled(db)
    told = []
    for at_ms, (claimed, seen) in enumerate((("", ""), ("FR", ""), ("FR", "DE"), ("FR", ""))):
        await said(db, peer, at_ms, card(country=claimed), way=Way(country=seen))
        (listing,) = await service.listings(db, now_ms=NOW + at_ms)
        told.append((listing.country, listing.country_seen))
    assert told == [("", False), ("FR", False), ("DE", True), ("FR", False)]
    assert all(before != after for before, after in pairwise(told))
