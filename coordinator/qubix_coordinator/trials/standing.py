# SPDX-License-Identifier: Apache-2.0
"""What a listing may call itself, from the newest evidence there is: `verified`, and its score."""

from typing import Any

from qubix_coordinator.db.database import Tx, one
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.market import observed
from qubix_coordinator.market import service as market
from qubix_coordinator.market.tables import Listing
from qubix_coordinator.trials import rules
from qubix_coordinator.trials.rules import Evidence, State


async def refresh(desk: Desk, tx: Tx, peer_id: str) -> None:
    """Of every listing of the node."""
    now_ms, age_ms_max = desk.now_ms(), round(desk.settings.trial_age_s * 1000)
    for listing in await Listing.filter(peer_id=peer_id).using_db(tx).order_by("id"):
        found = rules.standing(await _evidence(tx, listing, now_ms), age_ms_max)
        if (listing.verified, listing.score) != (found.verified, found.score):
            await market.set_standing(tx, listing.id, verified=found.verified, score=found.score, now_ms=now_ms)


async def _evidence(tx: Tx, listing: Listing, now_ms: int) -> Evidence:
    test = await one(
        tx,
        "SELECT passed, heard_ms FROM self_test WHERE peer_id = $1 AND device_id = $2 AND whole"
        " ORDER BY heard_ms DESC, id LIMIT 1",
        listing.peer_id,
        listing.device_id,
    )
    trial = await one(
        tx,
        "SELECT t.state, t.ended_ms, p.model, p.driver, p.memory_bytes, p.kind, p.gflops FROM trial_part p"
        " JOIN trial t ON t.id = p.trial_id WHERE p.listing_id = $1 AND t.state IN ('passed', 'failed')"
        " ORDER BY t.asked_ms DESC LIMIT 1",
        listing.id,
    )
    known = trial or {}
    return Evidence(
        selftest_passed=bool(test and test["passed"]),
        selftest_age_ms=now_ms - test["heard_ms"] if test else None,
        trial_passed=known.get("state") == State.PASSED,
        trial_age_ms=now_ms - trial["ended_ms"] if trial else None,
        same_claims=trial is not None and _same(listing, trial),
        trial_gflops=known.get("gflops", 0.0),
        observed_gflops=await observed.gflops(tx, listing.id),
    )


def _same(listing: Listing, tried: Any) -> bool:
    return all(getattr(listing, name) == tried[name] for name in ("model", "driver", "memory_bytes", "kind"))
