# SPDX-License-Identifier: Apache-2.0
"""A listing as others see it: readers, those who watch the market, and the choice of who gets a job."""

from typing import Any, Final

import msgspec

from qubix_coordinator.db.database import Tx
from qubix_coordinator.market import rules
from qubix_coordinator.market.tables import Listing
from qubix_coordinator.outbox import events
from qubix_protocol.api import ListingView
from qubix_protocol.messages import KernelRate, Sample
from qubix_protocol.states import Availability, DeviceKind, Isolation

TOPIC: Final = "market"
HEARD: Final = "metrics_ms"
"""Beside the listing in its events: when its reading came, by which its age can be told at any later time."""
CHOSEN_BY: Final = (
    *("id", "peer_id", "device_id", "model", "memory_bytes", "backends", "rate_qu_per_h", "availability", "rates"),
    *("jobs_parallel", "browser", "jobs_rejected", "failures", "backoff_until_ms", "offer_digest"),
    *("inet_down_bytes_per_s", "inet_up_bytes_per_s", "reliability", "region"),
)
"""The columns of which a candidate is made."""


async def emit(tx: Tx, row: Listing, now_ms: int) -> None:
    """A rented device left the market when it was rented: what becomes of it meanwhile is no news there."""
    if row.rental_id is None:
        await events.emit(tx, TOPIC, told_of(row, now_ms))


def told_of(row: Listing, now_ms: int) -> dict[str, Any]:
    """What watchers of the market are told of it."""
    gone = not row.online or row.availability == Availability.OFFLINE.value or expired(row)
    return {"gone": str(row.id)} if gone else msgspec.to_builtins(view(row, now_ms)) | {HEARD: row.metrics_ms}


def expired(row: Listing) -> bool:
    """As it was told; by the clock it may be a moment before that (`market.due`)."""
    return row.expired_told_ms is not None and bool(row.expired_told_ms == row.offered_ms)


def candidate(row: Listing) -> rules.Candidate:
    return rules.Candidate(
        listing_id=row.id,
        peer_id=row.peer_id,
        device_id=row.device_id,
        model=row.model,
        memory_bytes=row.memory_bytes,
        backends=tuple(row.backends),
        rate_qu_per_h=row.rate_qu_per_h,
        availability=Availability(row.availability),
        rates=msgspec.convert(row.rates, tuple[KernelRate, ...]),
        jobs_parallel=row.jobs_parallel,
        browser=row.browser,
        jobs_rejected=row.jobs_rejected,
        failures=row.failures,
        backoff_until_ms=row.backoff_until_ms,
        offer_digest=bytes(row.offer_digest),
        inet_bytes_per_s=min(row.inet_down_bytes_per_s, row.inet_up_bytes_per_s),
        reliability=row.reliability,
        region=row.region,
    )


def view(row: Listing, now_ms: int) -> ListingView:
    age_ms = max(0, now_ms - row.metrics_ms) if row.metrics_ms is not None else None
    return ListingView(
        listing_id=str(row.id),
        provider=row.peer_id,
        device_id=row.device_id,
        kind=DeviceKind(row.kind),
        model=row.model,
        memory_bytes=row.memory_bytes,
        cores=row.cores,
        driver=row.driver,
        cuda=row.cuda,
        compute_capability=row.compute_capability,
        backends=tuple(row.backends),
        rate_qu_per_h=row.rate_qu_per_h,
        region=row.region,
        availability=Availability(row.availability),
        isolation=Isolation(row.isolation),
        verified=row.verified,
        jobs_accepted=row.jobs_accepted,
        jobs_rejected=row.jobs_rejected,
        metrics=msgspec.convert(row.metrics, Sample) if row.metrics is not None else None,
        metrics_age_ms=age_ms,
        stale=rules.stale(age_ms),
        updated_ms=row.updated_ms,
        cpu_cores=row.cpu_cores,
        cpu_memory_bytes=row.cpu_memory_bytes,
        disk_free_bytes=row.disk_free_bytes,
        inet_down_bytes_per_s=row.inet_down_bytes_per_s,
        inet_up_bytes_per_s=row.inet_up_bytes_per_s,
        notice_s=row.notice_s,
        country=row.country,
        country_seen=row.country_seen,
        devices_alike=row.devices_alike,
        score=row.score,
        reliability=row.reliability,
        listed_ms=row.listed_ms,
        browser=row.browser,
        fallback=row.fallback,
    )
