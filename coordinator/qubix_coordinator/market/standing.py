# SPDX-License-Identifier: Apache-2.0
"""Keeps each listing's record (rules in `reputation`), and says what it is made of, with its numbers."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from qubix_coordinator.db.database import Database, Tx, execute, one, rows
from qubix_coordinator.errors import NotFound
from qubix_coordinator.market import reputation as rep
from qubix_coordinator.market import rules
from qubix_coordinator.market.reputation import Outcome, Record, Uptime, What
from qubix_coordinator.market.tables import Listing
from qubix_protocol.reputation import ReputationPart, ReputationView
from qubix_protocol.units import OFFER_S

GAP_MAX_MS = round(rules.OFFERS_MISSED_MAX * OFFER_S * 1000)
REFRESH_BATCH = 500
SUMS = tuple(field.name for field in dataclasses.fields(Record))


@dataclass(frozen=True, slots=True)
class About:
    """Whose work an outcome is about, and for whom it was."""

    attempt_id: UUID
    listing_id: UUID
    provider_id: UUID
    consumer_id: UUID


async def record(tx: Tx, about: About, outcome: Outcome, unit_qu: int) -> bool:
    """Counts it once, however often it is told; False when it was known. Call under the job's lock."""
    known = await one(
        tx,
        "INSERT INTO work_outcome (attempt_id, what, listing_id, provider_id, consumer_id, counts, worth_qu, run_ms,"
        " forecast_ms, at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING RETURNING no",
        about.attempt_id,
        outcome.what.value,
        about.listing_id,
        about.provider_id,
        about.consumer_id,
        outcome.counts,
        outcome.worth_qu,
        outcome.run_ms,
        outcome.forecast_ms,
        outcome.at_ms,
    )
    if known is None:
        return False
    row = await Listing.filter(id=about.listing_id).using_db(tx).select_for_update().get()
    found = rep.fold(await record_of(tx, row.id), outcome, unit_qu)
    await _save(tx, row.id, found)
    await _count(tx, row.id, outcome)
    await _rate(tx, row, found, outcome.at_ms)
    return True


async def _count(tx: Tx, listing_id: UUID, outcome: Outcome) -> None:
    """Of each kind, since the beginning; those that prove nothing under `related`."""
    if outcome.counts or outcome.what in (What.FINISHED, What.RIGHT):
        await execute(
            tx,
            "INSERT INTO outcome_count AS c (listing_id, what, n) VALUES ($1, $2, 1)"
            " ON CONFLICT (listing_id, what) DO UPDATE SET n = c.n + 1",
            listing_id,
            outcome.what.value if outcome.counts else "related",
        )


async def record_of(tx: Tx, listing_id: UUID) -> Record:
    found = await one(tx, "SELECT * FROM reputation WHERE listing_id = $1", listing_id)
    return Record() if found is None else Record(**{name: found[name] for name in SUMS})


async def _save(tx: Tx, listing_id: UUID, found: Record) -> None:
    names = ", ".join(f'"{name}"' for name in SUMS)
    places = ", ".join(f"${number + 2}" for number in range(len(SUMS)))
    changes = ", ".join(f'"{name}" = excluded."{name}"' for name in SUMS)
    await execute(
        tx,
        f"INSERT INTO reputation (listing_id, {names}) VALUES ($1, {places})"  # noqa: S608 - our own field names
        f" ON CONFLICT (listing_id) DO UPDATE SET {changes}",
        listing_id,
        *(getattr(found, name) for name in SUMS),
    )


async def _rate(tx: Tx, row: Listing, found: Record, now_ms: int) -> None:
    """Written to the listing; whoever changed more of it tells the market."""
    now = rep.faded(found, now_ms)
    row.reliability = rep.reliability(now, rep.availability(uptime(row), now_ms, GAP_MAX_MS))
    await row.save(using_db=tx, update_fields=["reliability"])


def uptime(row: Listing) -> Uptime:
    return Uptime(row.up_since_ms, row.up_seen_ms, row.up_ms)


def offered(row: Listing, now_ms: int) -> None:
    """An offer came; the caller saves the row."""
    now = rep.seen(uptime(row), now_ms, GAP_MAX_MS)
    row.up_since_ms, row.up_seen_ms, row.up_ms = now.since_ms, now.seen_ms, now.up_ms


async def refresh(db: Database, now_ms: int) -> int:
    """Every record fades: brings the listings' reliability up to date, a batch at a time; gives how many."""
    done, after = 0, UUID(int=0)

    async def batch(tx: Tx) -> Sequence[UUID]:
        found = await rows(
            tx,
            "SELECT listing_id FROM reputation WHERE listing_id > $1 ORDER BY listing_id LIMIT $2",
            after,
            REFRESH_BATCH,
        )
        keys = [UUID(str(one["listing_id"])) for one in found]
        for row in await Listing.filter(id__in=keys).using_db(tx).order_by("id").select_for_update():
            await _rate(tx, row, await record_of(tx, row.id), now_ms)
        return keys

    while keys := await db.run(batch):
        done, after = done + len(keys), keys[-1]
    return done


# What it is made of -------------------------------------------------------------------------------------------------


async def view(db: Database, listing_id: UUID, *, now_ms: int) -> ReputationView:
    """Raises NotFound."""

    async def step(tx: Tx) -> ReputationView:
        row = await Listing.filter(id=listing_id).using_db(tx).first()
        if row is None:
            raise NotFound("there is no such listing", field="listing_id", remedy="List the market with GET /offers")
        found = rep.faded(await record_of(tx, listing_id), now_ms)
        counted = await _counted(tx, listing_id)
        available = rep.availability(uptime(row), now_ms, GAP_MAX_MS)
        return ReputationView(
            listing_id=str(listing_id),
            reliability=rep.reliability(found, available),
            text=_text(rep.reliability(found, available), found),
            parts=(
                _completion(found, counted),
                _correctness(found, counted),
                _punctuality(found),
                _availability(available, uptime(row), now_ms),
                _disputes(counted),
                _standing(row),
            ),
        )

    return await db.run(step)


async def _counted(tx: Tx, listing_id: UUID) -> dict[str, int]:
    found = await rows(tx, "SELECT what, n FROM outcome_count WHERE listing_id = $1", listing_id)
    return {row["what"]: int(row["n"]) for row in found}


def _text(value: float, found: Record) -> str:
    if found.empty:
        return "No checked work for an unrelated consumer is on record yet."
    return (
        f"{value:.0%} of the work given to it can be counted on to come back finished and right: the product of"
        " completion and correctness, with a tenth each depending on punctuality and availability."
    )


def _completion(found: Record, counted: Mapping[str, int]) -> ReputationPart:
    done, failed = counted.get(What.FINISHED, 0), counted.get(What.FAILED, 0)
    value = rep.completion(found)
    return ReputationPart(
        name="completion",
        value=value,
        numbers={"finished": done, "failed": failed, "finished_weight": found.finished, "failed_weight": found.failed},
        text=f"Finished {_number(done, 'piece')} of work for unrelated consumers and failed at {failed}: by worth and"
        f" age, at least {value:.0%} are finished, with 95 % confidence.",
    )


def _correctness(found: Record, counted: Mapping[str, int]) -> ReputationPart:
    right, wrong, own = (counted.get(name, 0) for name in (What.RIGHT, What.WRONG, "related"))
    value = rep.correctness(found)
    beside = f"; {own} for consumers related to the provider prove nothing" if own else ""
    return ReputationPart(
        name="correctness",
        value=value,
        numbers={"right": right, "wrong": wrong, "right_weight": found.right, "wrong_weight": found.wrong},
        text=f"{_number(right, 'result')} passed the check and {wrong} did not, each of those counting"
        f" {rep.WRONG_WEIGHS:g} times: at least {value:.0%} are right, with 95 % confidence{beside}.",
    )


def _punctuality(found: Record) -> ReputationPart:
    value = rep.punctuality(found)
    usual = found.slowness / found.finished if found.finished > 0 else 0.0
    said = (
        f"{value:.0%} of the work, by worth, took no more than {rep.LATE:g} times its forecast; on average"
        f" {usual:.2f} times."
        if found.finished > 0
        else "No finished work yet whose time could be compared with its forecast."
    )
    return ReputationPart(name="punctuality", value=value, numbers={"times_forecast": usual}, text=said)


def _availability(value: float, up: Uptime, now_ms: int) -> ReputationPart:
    days = max(0, now_ms - up.since_ms) / rep.DAY_MS if up.since_ms else 0.0
    return ReputationPart(
        name="availability",
        value=value,
        numbers={"known_days": days},
        text=f"Its offers stood for {value:.0%} of the time, the last {rep.UPTIME_HALF_LIFE_MS // rep.DAY_MS} days"
        f" counting as much as all before; it is known for {_time(days)}.",
    )


def _number(of: int, what: str) -> str:
    return f"{of:,} {what}" if of == 1 else f"{of:,} {what}s"


def _time(days: float) -> str:
    return _number(round(days), "day") if days >= 1 else _number(round(days * 24), "hour")


def _disputes(counted: Mapping[str, int]) -> ReputationPart:
    won, lost = counted.get(What.DISPUTE_WON, 0), counted.get(What.DISPUTE_LOST, 0)
    value = won / (won + lost) if won + lost else 1.0
    return ReputationPart(
        name="disputes",
        value=value,
        numbers={"won": won, "lost": lost},
        text=f"Of the disputes that consumers opened about its work, it lost {lost} and won {won}; each one lost counts"
        " like a wrong result.",
    )


def _standing(row: Listing) -> ReputationPart:
    scored = f" at {row.score:,.0f} GFLOP/s" if row.score > 0 else ""
    said = f"What it claims to be was tested and challenged{scored}." if row.verified else "It is not verified yet."
    return ReputationPart(name="standing", value=float(row.verified), numbers={"score": row.score}, text=said)
