# SPDX-License-Identifier: Apache-2.0
"""Numbered SQL files, each run once in a transaction of its own (docs/adr/0003-migrations.md).

Append to STEPS; never reorder, and never edit a file that has been released: its checksum is kept with it.
"""

import hashlib
import logging
from pathlib import Path
from typing import Any

from qubix_coordinator.db.database import plain_connection, refuse_other_network, until_reachable
from qubix_coordinator.errors import WrongDatabase

log = logging.getLogger(__name__)
PACKAGE = Path(__file__).resolve().parent.parent
# Any constant will do, as long as every replica takes the same lock.
LOCK_KEY = 0x71756278

STEPS = (
    "db/schema.sql",
    "outbox/schema.sql",
    "accounts/schema.sql",
    "ledger/schema.sql",
    "artifacts/schema.sql",
    "market/schema.sql",
    "telemetry/schema.sql",
    "jobs/schema.sql",
    "telemetry/schema_2_gpu.sql",
    "jobs/schema_2_spread.sql",
    "market/schema_2_isolation.sql",
    "market/schema_2_gateways.sql",
    "ledger/schema_2_chain.sql",
    "accounts/schema_2_wallets.sql",
    "withdrawals/schema.sql",
    "market/schema_3_rented.sql",
    "rentals/schema.sql",
    "deposits/schema.sql",
    "jobs/schema_3_acceptance.sql",
    "receipts/schema.sql",
    "jobs/schema_3_fee.sql",
    "ledger/schema_3_audit.sql",
    "jobs/schema_3_rentals.sql",
    "accounts/schema_3_arbiter.sql",
    "jobs/schema_4_second_look.sql",
    "disputes/schema.sql",
    "deposits/schema_2_reserves.sql",
    "ledger/schema_3_fees.sql",
    "market/schema_4_searched.sql",
    "telemetry/schema_5_partitions.sql",
    "market/schema_5_reputation.sql",
    "earnings/schema.sql",
    "market/schema_5_forecast.sql",
    "jobs/schema_5_forecast.sql",
    "market/schema_5_live.sql",
    "telemetry/schema_5_rollups.sql",
    "trials/schema.sql",
    "jobs/schema_5_region.sql",
    "rentals/schema_5_groups.sql",
    "market/schema_5_query.sql",
    "market/schema_5_cards.sql",
    "ledger/schema_5_forfeit.sql",
    "withdrawals/schema_5_forfeit.sql",
    "jobs/schema_5_spot.sql",
    "jobs/schema_5_where.sql",
    "market/schema_6_observed.sql",
    "trials/schema_2_trials.sql",
    "market/schema_5_lately.sql",
    "jobs/schema_5_usual.sql",
    "jobs/schema_5_related.sql",
    "market/schema_7_browser.sql",
    "accounts/schema_6_pairing.sql",
    "jobs/schema_6_proven.sql",
    "wishes/schema.sql",
    "accounts/schema_6_read.sql",
    "market/schema_8_words.sql",
    "models/schema.sql",
    "jobs/schema_9_tab.sql",
    "earnings/schema_9_parts.sql",
    "market/schema_9_counts.sql",
    "wishes/schema_9_again.sql",
    "accounts/schema_7_order_keys.sql",
)

CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS migration (
    step text PRIMARY KEY,
    digest text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now())
"""


async def migrate(dsn: str, network: str, wait_s: float = 30.0) -> list[str]:
    """Brings the database up to date and gives the steps that ran; replicas that start together wait for each other.

    Waits up to `wait_s` for a server that is still starting (then Unavailable). Raises WrongDatabase when the database
    belongs to another network or has seen other migrations than these.
    """
    connection = await until_reachable(lambda: plain_connection(dsn), wait_s)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)
        await connection.execute(CREATE_TABLE)
        ran = await _apply_missing(connection)
        await _remember_network(connection, network)
        return ran
    finally:
        await connection.close(timeout=5)


def digest_of(step: str) -> str:
    return hashlib.sha256((PACKAGE / step).read_bytes()).hexdigest()


async def _apply_missing(connection: Any) -> list[str]:
    applied = {row["step"]: row["digest"] for row in await connection.fetch("SELECT step, digest FROM migration")}
    _check_known(applied)
    missing = [step for step in STEPS if step not in applied and (PACKAGE / step).exists()]
    for step in missing:
        async with connection.transaction():
            await connection.execute((PACKAGE / step).read_text(encoding="utf-8"))
            await connection.execute("INSERT INTO migration (step, digest) VALUES ($1, $2)", step, digest_of(step))
        log.info("db.migrated", extra={"step": step})
    return missing


def _check_known(applied: dict[str, str]) -> None:
    for step, digest in applied.items():
        if step not in STEPS or not (PACKAGE / step).exists():
            raise WrongDatabase(
                f"the database has seen migration {step}, which this version does not know",
                remedy="Run the version of QUBIX that wrote this database, or a newer one",
            )
        if digest != digest_of(step):
            raise WrongDatabase(
                f"migration {step} is not the one this database was made with",
                remedy="Run the version of QUBIX that wrote this database, or start with an empty data folder",
            )


async def _remember_network(connection: Any, network: str) -> None:
    await connection.execute("INSERT INTO network (name) VALUES ($1) ON CONFLICT (single) DO NOTHING", network)
    found = await connection.fetchval("SELECT name FROM network")
    refuse_other_network(found, network)
