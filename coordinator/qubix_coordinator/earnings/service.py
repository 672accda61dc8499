# SPDX-License-Identifier: Apache-2.0
"""Earnings by day, week or month, and by device: the ledger's entries, grouped and nothing else."""

from typing import Any, Final

from qubix_coordinator.accounts.rules import Principal
from qubix_coordinator.db.database import Database, Row, Tx, rows, value
from qubix_coordinator.errors import InvalidInput
from qubix_protocol.earnings import EarningsListing, EarningsPeriod, EarningsView, Period, Sums

EARNINGS_PERIODS_MAX: Final = 1_000
_FOREVER_MS: Final = 253_402_300_799_000
"""The end of the year 9999."""

# Whole quarters of an hour from the parts that the ledger keeps; entries by themselves where the range cuts one.
_GROUPED: Final = """
    WITH asked AS (
        SELECT id AS account_id, to_timestamp($2::double precision / 1000) AS since,
               to_timestamp($3::double precision / 1000) AS until
          FROM ledger_account WHERE kind = 'user' AND owner = $1
    ), touched AS (
        SELECT p.*, p.quarter >= a.since AND p.quarter + interval '15 minutes' <= a.until AS whole
          FROM asked a JOIN earnings_part p ON p.account_id = a.account_id
           AND p.quarter > a.since - interval '15 minutes' AND p.quarter < a.until
    ), moved AS MATERIALIZED (
        SELECT quarter AS at, listing_id, earned_qu, fee_qu, awarded_qu, taken_back_qu, settlements
          FROM touched WHERE whole
        UNION ALL
        SELECT m.posted_at, m.listing_id, m.earned_qu, m.fee_qu, m.awarded_qu, m.taken_back_qu, m.settlements
          FROM asked a
          JOIN (SELECT quarter, min(entry_first) AS first, max(entry_last) AS last FROM touched
                 WHERE NOT whole GROUP BY quarter) cut ON true
          JOIN earnings_moved m ON m.account_id = a.account_id AND m.entry_id BETWEEN cut.first AND cut.last
           AND quarter_of(m.posted_at) = cut.quarter AND m.posted_at >= a.since AND m.posted_at < a.until
    ), summed AS (
        SELECT grouping(listing_id) AS not_listing, grouping(date_trunc($4, at AT TIME ZONE $5)) AS not_period,
               listing_id, date_trunc($4, at AT TIME ZONE $5) AS first,
               coalesce(sum(earned_qu), 0)::bigint AS earned_qu, coalesce(sum(fee_qu), 0)::bigint AS fee_qu,
               coalesce(sum(awarded_qu), 0)::bigint AS awarded_qu,
               coalesce(sum(taken_back_qu), 0)::bigint AS taken_back_qu,
               coalesce(sum(earned_qu + awarded_qu - taken_back_qu), 0)::bigint AS net_qu,
               coalesce(sum(settlements), 0)::bigint AS settlements
          FROM moved GROUP BY GROUPING SETS ((), (listing_id), (date_trunc($4, at AT TIME ZONE $5)))
    )
    SELECT s.*, to_char(s.first, 'YYYY-MM-DD') AS first_day, l.peer_id, coalesce(l.model, '') AS model,
           (extract(epoch FROM s.first AT TIME ZONE $5) * 1000)::bigint AS since_ms,
           (extract(epoch FROM (s.first + ('1 ' || $4)::interval) AT TIME ZONE $5) * 1000)::bigint AS until_ms
      FROM summed s LEFT JOIN listing l ON l.id = s.listing_id
     ORDER BY s.first, s.net_qu DESC, s.listing_id
"""
_SUM_NAMES: Final = ("earned_qu", "fee_qu", "awarded_qu", "taken_back_qu", "net_qu", "settlements")


class Zones:
    """The time zones that the database knows by their IANA names, asked for once."""

    def __init__(self) -> None:
        self._names: frozenset[str] = frozenset()

    async def check(self, tx: Tx, tz: str) -> None:
        """Raises InvalidInput."""
        if not self._names:
            found = await value(tx, "SELECT array_agg(name) FROM pg_timezone_names")
            self._names = frozenset(found)
        if tz not in self._names:
            raise InvalidInput("tz", f"{tz!r} is not a time zone", "Give an IANA name, such as UTC or Europe/Berlin")


_zones: Final = Zones()


async def earnings(
    db: Database,
    who: Principal,
    *,
    by: Period,
    tz: str = "UTC",
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> EarningsView:
    """Raises InvalidInput."""
    since, until = since_ms or 0, until_ms if until_ms is not None else _FOREVER_MS
    if since >= until:
        raise InvalidInput("until", "it is not after `since`", "Give a later `until`, or none")

    async def step(tx: Tx) -> list[Row]:
        await _zones.check(tx, tz)
        return await rows(tx, _GROUPED, who.account_id, since, until, by.value, tz)

    found = await db.run(step)
    wholes = [row for row in found if row["not_listing"] and row["not_period"]]
    periods = [row for row in found if not row["not_period"]]
    listings = [row for row in found if not row["not_listing"]]
    return EarningsView(
        by=by,
        tz=tz,
        whole=Sums(**_sums(wholes[0])),
        periods=tuple(_period(row) for row in periods[-EARNINGS_PERIODS_MAX:]),
        listings=tuple(_listing(row) for row in listings),
    )


def _sums(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in _SUM_NAMES}


def _period(row: Row) -> EarningsPeriod:
    return EarningsPeriod(first_day=row["first_day"], since_ms=row["since_ms"], until_ms=row["until_ms"], **_sums(row))


def _listing(row: Row) -> EarningsListing:
    key = row["listing_id"]
    return EarningsListing(
        listing_id=None if key is None else str(key), provider=row["peer_id"], model=row["model"], **_sums(row)
    )
