# SPDX-License-Identifier: Apache-2.0
"""Folds offers into listings and tells everybody who watches the market.

One device is one listing however often it is offered. Every change that a reader can see emits the whole listing on the
topic `market`; a listing that leaves emits `{"gone": listing_id}`.
"""

import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec
from tortoise.queryset import QuerySet

from qubix_coordinator.accounts import pairings
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database, Tx, execute
from qubix_coordinator.errors import Conflict, Forbidden, LimitExceeded, NotFound
from qubix_coordinator.market import cards, rules, standing
from qubix_coordinator.market.tables import Listing
from qubix_coordinator.market.views import CHOSEN_BY, TOPIC, candidate, emit, expired, told_of, view
from qubix_coordinator.outbox import events
from qubix_protocol import digests
from qubix_protocol.api import ListingView
from qubix_protocol.messages import Device, Offer, Sample
from qubix_protocol.states import Availability
from qubix_protocol.units import DEVICES_MAX, OFFER_S

log = logging.getLogger(__name__)
LISTINGS_MAX = 10_000
READINGS_AT_ONCE = 32
_NAMESPACE = uuid.UUID("6f1d3f0e-5d0b-5f7a-9d3c-0b1c7a3a9b11")


def listing_id(peer_id: str, device_id: str) -> UUID:
    """The same device of the same node is always the same listing."""
    return uuid.uuid5(_NAMESPACE, f"{peer_id}/{device_id}")


async def offer_received(
    db: Database, peer_id: str, offer: Offer, raw: bytes, *, now_ms: int, way: rules.Way = rules.BY_MESH
) -> bool:
    """Folds a verified offer; `raw` is its envelope, kept as evidence. Saying the same again changes nothing else.
    Whether somebody who waits could find in it what was not there before. Raises Conflict for a card that another node
    has in the market, and Forbidden for a device that is not to be offered in this way."""
    wrong = rules.unwelcome(offer.device, way)
    if wrong is not None:
        raise Forbidden(wrong.problem, field="device", remedy=wrong.remedy)
    news = await db.run(lambda tx: _fold(tx, peer_id, offer, raw, now_ms, way))
    if news is None:
        raise Conflict(
            "another node offers this very card and can be reached",
            field="device.device_id",
            remedy="Stop the other node that uses the card, or wait until its offers expire",
        )
    return news


async def _fold(tx: Tx, peer_id: str, offer: Offer, raw: bytes, now_ms: int, way: rules.Way) -> bool | None:
    """None when the card stays with another node."""
    device = offer.device
    key = listing_id(peer_id, device.device_id)
    await cards.turn(tx, device.kind, device.device_id, peer_id)
    row = await Listing.filter(id=key).using_db(tx).select_for_update().first()
    if not await _settled(tx, peer_id, device, row, now_ms):
        return None
    if way.browser and row is not None and row.rental_id is not None:
        raise Conflict("the device is rented", field="device", remedy="Offer it from the node that it was rented from")
    claimed = _claims(offer) | {"offer_digest": digests.of_bytes(raw), "offer_raw": raw, "offered_ms": now_ms}
    claimed |= {"country": way.country or offer.country, "country_seen": bool(way.country)}
    claimed |= {"browser": way.browser, "fallback": rules.software(device)}
    if offer.metrics is not None and (row is None or rules.fresher(_reading_ms(row), offer.metrics.at_ms)):
        claimed |= {"metrics": msgspec.to_builtins(offer.metrics), "metrics_ms": now_ms}
    if row is None:
        await _check_room(tx, peer_id)
        row = Listing(id=key, peer_id=peer_id, updated_ms=now_ms, listed_ms=now_ms, **claimed)
        standing.offered(row, now_ms)
        await row.save(using_db=tx, force_create=True)
        log.info("market.listed", extra={"peer": peer_id, "device": device.device_id, "model": row.model})
        await emit(tx, row, now_ms)
        await _recount(tx, peer_id, now_ms)
        await pairings.tell(tx, peer_id, now_ms=now_ms)
        return True
    shown = any(getattr(row, name) != value for name, value in _shown(claimed).items())
    changed = shown or not row.online or expired(row)
    back = row.offered_ms < rules.visible_since_ms(now_ms, OFFER_S)
    news = changed or back or row.rates != list(claimed["rates"])
    if any(getattr(row, name) != claimed[name] for name in _TRIED):
        # What was tried is not what is offered now (trust C6).
        row.verified, row.score = False, 0.0
    standing.offered(row, now_ms)
    row.update_from_dict(claimed | {"online": True, "updated_ms": now_ms if changed else row.updated_ms})
    await row.save(using_db=tx)
    if changed:
        await emit(tx, row, now_ms)
        await _recount(tx, peer_id, now_ms)
    return news and row.availability == Availability.AVAILABLE.value and row.rental_id is None


async def _settled(tx: Tx, peer_id: str, device: Device, row: Listing | None, now_ms: int) -> bool:
    """Of the nodes that offer this card, the one that keeps it; what the others have of it leaves the market."""
    others = await cards.rivals(tx, peer_id, device.kind.value, device.device_id, now_ms=now_ms)
    stays = not cards.yields(row, others)
    leaving = others if stays else [row] if row is not None and row.online else []
    for one in leaving:
        log.warning("market.card_claimed_twice", extra={"peer": one.peer_id, "device": device.device_id})
        one.online, one.updated_ms = False, now_ms
        await one.save(using_db=tx, update_fields=["online", "updated_ms"])
        await emit(tx, one, now_ms)
        await _recount(tx, one.peer_id, now_ms)
    return stays


async def _recount(tx: Tx, peer_id: str, now_ms: int) -> None:
    changed = await cards.recount(tx, peer_id)
    for row in await Listing.filter(id__in=changed).using_db(tx).order_by("id") if changed else ():
        await emit(tx, row, now_ms)


_TRIED: Final = ("kind", "model", "driver", "memory_bytes")
"""Claims that a trial was about."""


async def _check_room(tx: Tx, peer_id: str) -> None:
    """The market shows a bounded number of listings: one node must not fill it with devices that it makes up."""
    if await Listing.filter(peer_id=peer_id).using_db(tx).count() >= DEVICES_MAX:
        raise LimitExceeded(
            f"this node has {DEVICES_MAX} devices in the market already",
            field="device.device_id",
            remedy="Offer the devices that are there, each under the id it had before",
        )


def _claims(offer: Offer) -> dict[str, Any]:
    device = offer.device
    return {
        "device_id": device.device_id,
        "kind": device.kind.value,
        "model": device.model,
        "memory_bytes": device.memory_bytes,
        "cores": device.cores,
        "driver": device.driver,
        "cuda": device.cuda,
        "compute_capability": device.compute_capability,
        "backends": list(device.backends),
        "rate_qu_per_h": offer.rate_qu_per_h,
        "region": offer.region,
        "availability": offer.availability.value,
        "rates": msgspec.to_builtins(offer.rates),
        "jobs_parallel": offer.jobs_parallel,
        "isolation": offer.isolation.value,
        "cpu_cores": offer.cpu_cores,
        "cpu_memory_bytes": offer.cpu_memory_bytes,
        "disk_free_bytes": offer.disk_free_bytes,
        "inet_down_bytes_per_s": offer.inet_down_bytes_per_s,
        "inet_up_bytes_per_s": offer.inet_up_bytes_per_s,
        "notice_s": offer.notice_s,
    }


def _shown(claimed: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader of the market can see change. Readings come with telemetry, at their own pace."""
    hidden = {"offer_digest", "offer_raw", "offered_ms", "metrics_ms", "metrics", "rates"}
    return {name: value for name, value in claimed.items() if name not in hidden}


async def metrics_received(
    db: Database,
    newest: Mapping[tuple[str, str], Sample],
    *,
    now_ms: int,
    heard_ms: Mapping[tuple[str, str], int] | None = None,
) -> None:
    """The newest sample of each device, by peer and device id: one event a device, however many samples came. A few
    listings at a time, since nobody else can take one meanwhile. `heard_ms` is since when it waited: it is as old."""
    since_ms = heard_ms or {}
    by_id = {listing_id(*device): (sample, since_ms.get(device, now_ms)) for device, sample in newest.items()}
    keys = sorted(by_id)
    for first in range(0, len(keys), READINGS_AT_ONCE):
        await _read(db, {key: by_id[key] for key in keys[first : first + READINGS_AT_ONCE]}, now_ms)


async def _read(db: Database, newest: Mapping[UUID, tuple[Sample, int]], now_ms: int) -> None:
    async def step(tx: Tx) -> None:
        listed = await Listing.filter(id__in=list(newest)).using_db(tx).order_by("id").select_for_update()
        changed = [row for row in listed if rules.fresher(_reading_ms(row), newest[row.id][0].at_ms)]
        for row in changed:
            sample, row.metrics_ms = newest[row.id]
            row.metrics = msgspec.to_builtins(sample)
        await execute(
            tx,
            "UPDATE listing SET metrics = read.metrics::jsonb, metrics_ms = read.heard_ms"
            " FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS read (id, metrics, heard_ms)"
            " WHERE listing.id = read.id",
            [row.id for row in changed],
            [msgspec.json.encode(row.metrics).decode() for row in changed],
            [row.metrics_ms for row in changed],
        )
        await events.emit_all(tx, TOPIC, [told_of(row, now_ms) for row in changed if row.rental_id is None])

    await db.run(step)


async def device_of(db: Database, key: UUID) -> tuple[str, str]:
    """Peer and device id of a listing, in the market or not any more. Raises NotFound."""
    row = await db.run(lambda tx: Listing.filter(id=key).using_db(tx).only("peer_id", "device_id").first())
    if row is None:
        raise NotFound("there is no such listing", field="listing_id", remedy="List the market with GET /offers")
    return row.peer_id, row.device_id


def _reading_ms(row: Listing) -> int | None:
    """By the node's clock."""
    return msgspec.convert(row.metrics, Sample).at_ms if row.metrics is not None else None


async def node_online(db: Database, peer_id: str, *, now_ms: int) -> None:
    await _set_online(db, peer_id, True, now_ms)


async def node_offline(db: Database, peer_id: str, *, incarnation: int, now_ms: int) -> None:
    """Its listings leave the market at once, unless a newer session stands, here or at another replica.

    Its attempts go on until their leases end: it may come back.
    """
    await _set_online(db, peer_id, False, now_ms, incarnation)


async def _set_online(db: Database, peer_id: str, online: bool, now_ms: int, incarnation: int | None = None) -> None:
    async def step(tx: Tx) -> None:
        if incarnation is not None and await accounts.incarnation(tx, peer_id) > incarnation:
            return
        await cards.turn_of_node(tx, peer_id)
        for row in await Listing.filter(peer_id=peer_id, online=not online).using_db(tx).select_for_update():
            if online and await cards.rivals(tx, peer_id, row.kind, row.device_id, now_ms=now_ms):
                continue  # its next offer settles whose the card is
            row.online, row.updated_ms = online, now_ms
            await row.save(using_db=tx, update_fields=["online", "updated_ms"])
            await emit(tx, row, now_ms)
        await _recount(tx, peer_id, now_ms)

    await db.run(step)


async def listings(db: Database, *, now_ms: int, offer_s: float = OFFER_S) -> list[ListingView]:
    """Who can be reached now, in a stable order; metrics older than a minute are marked stale (P9)."""
    return await db.run(lambda tx: listings_in(tx, now_ms=now_ms, offer_s=offer_s))


async def listings_in(tx: Tx, *, now_ms: int, offer_s: float = OFFER_S) -> list[ListingView]:
    return [view(row, now_ms) for row in await _visible(tx, now_ms, offer_s)]


def _visible(tx: Tx, now_ms: int, offer_s: float = OFFER_S) -> QuerySet[Listing]:
    since_ms = rules.visible_since_ms(now_ms, offer_s)
    found = Listing.filter(online=True, rental_id__isnull=True, offered_ms__gte=since_ms).exclude(
        availability=Availability.OFFLINE.value
    )
    return found.using_db(tx).order_by("rate_qu_per_h", "id").limit(LISTINGS_MAX)


async def candidates(tx: Tx, *, now_ms: int, offer_s: float = OFFER_S) -> list[rules.Candidate]:
    """The visible listings as the choice sees them: without what it does not look at."""
    return [candidate(row) for row in await _visible(tx, now_ms, offer_s).only(*CHOSEN_BY)]


async def offers(tx: Tx, *, now_ms: int, offer_s: float = OFFER_S) -> list[tuple[rules.Candidate, ListingView]]:
    """The same listings, as the choice sees them and as everybody does."""
    return [(candidate(row), view(row, now_ms)) for row in await _visible(tx, now_ms, offer_s)]


async def lock(tx: Tx, key: UUID, *, rental_id: UUID | None = None) -> rules.Candidate | None:
    """The listing as it is now, locked until the transaction ends; None when it left, is rented to others than
    `rental_id`, or somebody else holds it."""
    row = await Listing.filter(id=key, online=True).using_db(tx).select_for_update(skip_locked=True).first()
    if row is None or row.rental_id != rental_id:
        return None
    return candidate(row) if rental_id is None else rules.rented(candidate(row))


async def rented_candidate(tx: Tx, rental_id: UUID) -> rules.Candidate | None:
    """The device of a rental as the choice of its consumer's jobs sees it; None while it cannot be reached."""
    row = await Listing.filter(rental_id=rental_id, online=True).using_db(tx).first()
    return rules.rented(candidate(row)) if row is not None else None


async def take_turn(tx: Tx, keys: Sequence[UUID]) -> None:
    """Before `lock_for_rent` and `release`, and before money moves: who rents or gives back devices of the same node
    does so one after the other. Ends with the transaction."""
    await cards.turns_of(tx, keys)


async def lock_for_rent(tx: Tx, key: UUID) -> rules.Rentable | None:
    """The listing, locked until the transaction ends; None for one that there is not. After `take_turn`."""
    row = await Listing.filter(id=key).using_db(tx).select_for_update().first()
    if row is None:
        return None
    return rules.Rentable(candidate(row), row.kind, row.online, row.offered_ms, row.rental_id)


async def alike(tx: Tx, key: UUID) -> list[UUID]:
    """This listing and all others of its node, kind and model, in the order in which they are locked."""
    row = await Listing.filter(id=key).using_db(tx).first()
    if row is None:
        return []
    found = Listing.filter(peer_id=row.peer_id, kind=row.kind, model=row.model).using_db(tx).order_by("id")
    return [one.id for one in await found.only("id")]


async def rent(tx: Tx, key: UUID, rental_id: UUID, *, now_ms: int) -> None:
    """Off the market at once."""
    row = await Listing.filter(id=key).using_db(tx).select_for_update().get()
    row.rental_id, row.updated_ms = rental_id, now_ms
    await row.save(using_db=tx, update_fields=["rental_id", "updated_ms"])
    await events.emit(tx, TOPIC, {"gone": str(row.id)})
    await _recount(tx, row.peer_id, now_ms)


async def release(tx: Tx, key: UUID, rental_id: UUID, *, now_ms: int) -> None:
    """Back in the market, when it is this rental's and can be reached. After `take_turn`."""
    row = await Listing.filter(id=key, rental_id=rental_id).using_db(tx).select_for_update().first()
    if row is not None:
        row.rental_id, row.updated_ms = None, now_ms
        await row.save(using_db=tx, update_fields=["rental_id", "updated_ms"])
        await emit(tx, row, now_ms)
        await _recount(tx, row.peer_id, now_ms)


async def set_standing(tx: Tx, key: UUID, *, verified: bool, score: float, now_ms: int) -> None:
    """What tests and trials have shown; `score` in GFLOP/s of float32 matrix products."""
    row = await Listing.filter(id=key).using_db(tx).select_for_update().get()
    row.verified, row.score, row.updated_ms = verified, score, now_ms
    await row.save(using_db=tx, update_fields=["verified", "score", "updated_ms"])
    await emit(tx, row, now_ms)


async def count_accepted(tx: Tx, key: UUID, *, now_ms: int, forgive: bool) -> None:
    """A checked, paid piece of work for somebody else. `forgive` the provider's earlier failures when it
    finished what it took on: one that fell silent after some good chunks is not asked again at once."""
    row = await Listing.filter(id=key).using_db(tx).select_for_update().get()
    row.jobs_accepted += 1
    if forgive:
        row.failures = row.backoff_until_ms = 0
    await row.save(using_db=tx)
    await emit(tx, row, now_ms)


async def draining(tx: Tx, key: UUID, *, now_ms: int) -> None:
    """Its node says that it takes no more: nobody is sent there until it offers the device again."""
    row = await Listing.filter(id=key).using_db(tx).select_for_update().get()
    if row.availability in (Availability.AVAILABLE.value, Availability.BUSY.value):
        row.availability, row.updated_ms = Availability.DRAINING.value, now_ms
        await row.save(using_db=tx, update_fields=["availability", "updated_ms"])
        await emit(tx, row, now_ms)


async def count_rejected(tx: Tx, key: UUID, *, now_ms: int) -> None:
    await _count_bad(tx, key, now_ms, rejected=True)


async def count_failure(tx: Tx, key: UUID, *, now_ms: int) -> None:
    """Declined, silent, or failed: it is left alone for a moment, longer each time."""
    await _count_bad(tx, key, now_ms, rejected=False)


async def _count_bad(tx: Tx, key: UUID, now_ms: int, *, rejected: bool) -> None:
    row = await Listing.filter(id=key).using_db(tx).select_for_update().get()
    row.failures += 1
    row.jobs_rejected += int(rejected)
    pause_ms = rules.WRONG_RESULT_BACKOFF_MS if rejected else rules.backoff_ms(row.failures)
    row.backoff_until_ms = now_ms + pause_ms
    await row.save(using_db=tx)
    await emit(tx, row, now_ms)
