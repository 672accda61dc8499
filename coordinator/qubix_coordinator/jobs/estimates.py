# SPDX-License-Identifier: Apache-2.0
"""What a job would take and cost on each device, before anybody pays (B5), and why the others cannot run it.

By the very rules that deal it out: who comes first here is asked first.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from qubix_coordinator.db.database import Tx
from qubix_coordinator.jobs import assign, needs
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.ledger import read as ledger
from qubix_coordinator.ledger.rules import split_fee, user
from qubix_coordinator.market import learned, wanted
from qubix_coordinator.market import rules as market_rules
from qubix_coordinator.market import service as market
from qubix_coordinator.market.rules import Choice, Misfit, Need, Obstacle
from qubix_protocol.api import (
    CandidateView,
    EstimateBody,
    EstimateView,
    ListingView,
    MisfitView,
    ObstacleView,
)

SHOWN_MAX: Final = 100


async def estimate(desk: Desk, body: EstimateBody, account_id: UUID | None = None) -> EstimateView:
    """Needs no data. Raises InvalidInput. `account_id`: whose balance is looked at."""
    plan = needs.plan_of(body.kernel, body.params, body.inputs)
    asked = wanted.query_of(body.where or "")
    now_ms = desk.now_ms()

    async def step(tx: Tx) -> EstimateView:
        offers = await market.offers(tx, now_ms=now_ms)
        need = dataclasses.replace(
            plan.need(),
            hold_left_qu=body.cap_qu,
            rate_qu_per_h_max=body.rate_qu_per_h_max,
            provider=body.provider,
            time_left_ms=body.deadline_s * 1000 if body.deadline_s is not None else None,
            wanted=wanted.found_by(asked, [listing for _, listing in offers]),
            region=body.region or "",
            history=await learned.of(tx, plan.subject, now_ms=now_ms),
        )
        balance = await ledger.balance_qu(tx, user(account_id)) if account_id is not None else None
        running = await assign.running_counts(tx)
        return _view(plan, need, offers, running, balance, now_ms, desk.settings.fee_bps)

    return await desk.db.run(step)


def _view(
    plan: needs.Plan,
    need: Need,
    offers: Sequence[tuple[market_rules.Candidate, ListingView]],
    running: Mapping[UUID, int],
    balance_qu: int | None,
    now_ms: int,
    fee_bps: int,
) -> EstimateView:
    fitting, misfits = market_rules.sorted_out([candidate for candidate, _ in offers], need)
    listings = {candidate.listing_id: listing for candidate, listing in offers}
    counted = Counter(one.obstacle for one in misfits)
    passing = {
        key: market_rules.occupied(candidate, running.get(key, 0), now_ms)
        for key, candidate in ((one.candidate.listing_id, one.candidate) for one in fitting)
    }
    fitting.sort(key=lambda one: passing[one.candidate.listing_id] is not None)

    def candidate_view(one: Choice) -> CandidateView:
        key = one.candidate.listing_id
        return _candidate_view(one, listings[key], passing[key], balance_qu, fee_bps)

    return EstimateView(
        candidates=tuple(candidate_view(one) for one in fitting[:SHOWN_MAX]),
        flops=plan.flops,
        units=plan.units,
        output=plan.outputs,
        check_flops=plan.check_flops,
        fee_bps=fee_bps,
        fitting=len(fitting),
        misfits=tuple(_misfit_view(one) for one in misfits[:SHOWN_MAX]),
        obstacles=tuple(
            ObstacleView(obstacle=one.name.lower(), why=one.value, offers=counted[one])
            for one in Obstacle
            if counted[one]
        ),
        balance_qu=balance_qu,
        cap_least_qu=_cap_least_qu(fitting, misfits),
    )


def _cap_least_qu(fitting: Sequence[Choice], misfits: Sequence[Misfit]) -> int | None:
    """Of those that fit, and of those that only the cap keeps out: the cap is looked at after everything lasting but
    the deadline."""
    dear = [one.forecast for one in misfits if one.obstacle is Obstacle.CAP and one.forecast is not None]
    return min((one.cost_high_qu for one in (*dear, *(choice.forecast for choice in fitting))), default=None)


def _candidate_view(
    choice: Choice, listing: ListingView, passing: Obstacle | None, balance_qu: int | None, fee_bps: int
) -> CandidateView:
    told = choice.forecast
    return CandidateView(
        listing_id=listing.listing_id,
        provider=listing.provider,
        model=listing.model,
        backend=choice.backend,
        rate_qu_per_h=listing.rate_qu_per_h,
        run_ms=told.run_ms,
        run_low_ms=told.run_low_ms,
        run_high_ms=told.run_high_ms,
        time_low_ms=told.total_low_ms,
        time_ms=told.total_ms,
        time_high_ms=told.total_high_ms,
        cost_low_qu=told.cost_low_qu,
        cost_qu=told.cost_qu,
        cost_high_qu=told.cost_high_qu,
        fee_qu=split_fee(told.cost_qu, fee_bps).fee_qu,
        region=listing.region,
        country=listing.country,
        verified=listing.verified,
        reliability=listing.reliability,
        score=listing.score,
        runs=round(told.own_runs),
        waiting=passing.value if passing is not None else "",
        affordable=balance_qu is None or told.cost_high_qu <= balance_qu,
    )


def _misfit_view(one: Misfit) -> MisfitView:
    return MisfitView(
        listing_id=str(one.candidate.listing_id),
        provider=one.candidate.peer_id,
        model=one.candidate.model,
        rate_qu_per_h=one.candidate.rate_qu_per_h,
        obstacle=one.obstacle.name.lower(),
        why=one.obstacle.value,
    )
