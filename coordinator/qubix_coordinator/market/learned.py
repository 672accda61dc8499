# SPDX-License-Identifier: Apache-2.0
"""The table of past runs: read for the next forecast, written when a run is settled."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from qubix_coordinator.db.database import Database, Row, Tx, execute, one, rows
from qubix_coordinator.market import history
from qubix_coordinator.market.forecast import History, Kept, Lately
from qubix_coordinator.market.history import Fit

KEPT_MS: Final = 180 * 86_400_000
FORGET_BATCH: Final = 1_000


Fits = dict[str, History]
"""By subject: what has been read in one round of decisions."""


async def once(tx: Tx, subject: str, read: Fits, *, now_ms: int) -> History:
    """Reads it when this round has not done so yet."""
    if subject not in read:
        read[subject] = await of(tx, subject, now_ms=now_ms)
    return read[subject]


async def of(tx: Tx, subject: str, *, now_ms: int) -> History:
    """The fits alone, not the runs that they came from."""
    found = await rows(
        tx,
        "SELECT f.listing_id, l.model, f.backend, f.size, f.pace, cardinality(f.runs) AS runs, f.run_fit,"
        " cardinality(f.arounds) AS arounds, f.around_fit"
        " FROM forecast_fit f JOIN listing l ON l.id = f.listing_id WHERE f.subject = $1",
        subject,
    )
    newest = await rows(
        tx,
        "SELECT listing_id, runs, arounds, updated_ms FROM forecast_lately WHERE updated_ms > $1",
        now_ms - history.LATELY_KEPT_MS,
    )
    return History(map(_kept, found), {UUID(str(row["listing_id"])): _lately(row, now_ms) for row in newest})


def _lately(row: Row, now_ms: int) -> Lately:
    age_ms = now_ms - row["updated_ms"]
    return Lately(history.lately(row["runs"], age_ms), history.lately(row["arounds"], age_ms))


def _kept(row: Row) -> Kept:
    return Kept(
        listing_id=UUID(str(row["listing_id"])),
        model=row["model"],
        backend=row["backend"],
        size=row["size"],
        pace=row["pace"],
        run=_fit(row["runs"], row["run_fit"]),
        around=_fit(row["arounds"], row["around_fit"]),
    )


def _fit(runs: int, three: list[float]) -> Fit:
    return Fit(runs, *three) if runs else history.NO_RUNS


@dataclass(frozen=True, slots=True)
class Run:
    """One settled run. `around_ms` is None where it says nothing: the run was not whole. `around_plain_ms` and
    `rated_ms` were forecast without any history."""

    listing_id: UUID
    subject: str
    backend: str
    pace: float
    rated_ms: float
    run_ms: float
    around_plain_ms: float
    around_ms: float | None
    usual_ms: float
    usual_around_ms: float
    """By its history, without its state of the hour."""


async def remember(tx: Tx, run: Run, *, now_ms: int) -> None:
    """Locks the listing first, as everything does that writes about it."""
    await execute(tx, "SELECT FROM listing WHERE id = $1 FOR UPDATE", run.listing_id)
    key = (run.subject, run.listing_id, run.backend, history.size_of(run.rated_ms))
    kept = await one(
        tx,
        "SELECT runs, arounds, pace FROM forecast_fit"
        " WHERE subject = $1 AND listing_id = $2 AND backend = $3 AND size = $4",
        *key,
    )
    after = _after(kept, run)
    await execute(
        tx,
        "INSERT INTO forecast_fit (subject, listing_id, backend, size, pace, runs, arounds, run_fit, around_fit,"
        " updated_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        " ON CONFLICT (subject, listing_id, backend, size) DO UPDATE SET pace = excluded.pace, runs = excluded.runs,"
        " arounds = excluded.arounds, run_fit = excluded.run_fit, around_fit = excluded.around_fit,"
        " updated_ms = excluded.updated_ms",
        *key,
        run.pace,
        *after,
        now_ms,
    )
    await _remember_lately(tx, run, now_ms)


async def _remember_lately(tx: Tx, run: Run, now_ms: int) -> None:
    """What is older than its newest runs is dropped with them: after a pause nothing is known of its state."""
    kept = await one(
        tx,
        "SELECT runs, arounds FROM forecast_lately WHERE listing_id = $1 AND updated_ms > $2",
        run.listing_id,
        now_ms - history.LATELY_KEPT_MS,
    )
    runs: list[float] = kept["runs"] if kept is not None else []
    arounds: list[float] = kept["arounds"] if kept is not None else []
    if run.around_ms is not None:
        arounds = history.remember_lately(arounds, history.ratio(run.around_ms, run.usual_around_ms))
    await execute(
        tx,
        "INSERT INTO forecast_lately (listing_id, runs, arounds, updated_ms) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (listing_id) DO UPDATE SET runs = excluded.runs, arounds = excluded.arounds,"
        " updated_ms = excluded.updated_ms",
        run.listing_id,
        history.remember_lately(runs, history.ratio(run.run_ms, run.usual_ms)),
        arounds,
        now_ms,
    )


def _after(kept: Row | None, run: Run) -> tuple[list[float], list[float], list[float], list[float]]:
    runs: list[float] = list(kept["runs"]) if kept is not None else []
    arounds: list[float] = list(kept["arounds"]) if kept is not None else []
    if kept is not None:
        runs = history.moved(runs, kept["pace"], run.pace)
    runs = history.remember(runs, history.ratio(run.run_ms, run.rated_ms))
    if run.around_ms is not None:
        arounds = history.remember(arounds, history.ratio(run.around_ms, run.around_plain_ms))
    return runs, arounds, _three(history.fit_of(runs)), _three(history.fit_of(arounds))


def _three(fit: Fit) -> list[float]:
    return [fit.mid, fit.low, fit.high]


async def forget(db: Database, *, now_ms: int, batch: int = FORGET_BATCH) -> int:
    """What nobody ran for half a year, a batch at a time. Gives how many rows went."""
    gone = 0
    while found := await db.run(lambda tx: _forget(tx, now_ms - KEPT_MS, batch)):
        gone += found
    return gone


async def _forget(tx: Tx, before_ms: int, batch: int) -> int:
    return await execute(
        tx,
        "DELETE FROM forecast_fit WHERE ctid IN (SELECT ctid FROM forecast_fit WHERE updated_ms < $1 LIMIT $2)",
        before_ms,
        batch,
    )
