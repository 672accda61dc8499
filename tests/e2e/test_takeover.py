# SPDX-License-Identifier: Apache-2.0
"""Who goes on with a job, from where, and who is paid for what: takeover, poisoned links, nodes back from the dead."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from qubix_protocol.api import AttemptView, JobView
from qubix_protocol.barriers import Barrier
from qubix_protocol.states import AttemptState
from tests.support.crash_market import Consumer, CrashMarket, check_everything, offered, until

CHUNKED = "tests.support.chunked_node"
CHEAP = {"QUBIX_NODE_RATE_QU_PER_H": "1000"}
DEAR = {"QUBIX_NODE_RATE_QU_PER_H": "900000"}
LINKS = 4
MANY = 16_000
"""So many queries that the job is worth two shares."""


@pytest.fixture
def market(folder: Path) -> Iterator[CrashMarket]:
    with CrashMarket(folder) as running:
        yield running


def by_provider(market: CrashMarket, view: JobView, node: str) -> list[AttemptView]:
    return [one for one in view.attempts if one.provider == market.parts[node].info["peer_id"]]


def units(ranges: list[tuple[int, int]]) -> set[int]:
    return {unit for start, stop in ranges for unit in range(start, stop)}


def links_of(market: CrashMarket, view: JobView, node: str, *, paid: bool) -> list[tuple[int, int]]:
    rows = market.rows(
        "SELECT l.start, l.stop FROM link l JOIN attempt a ON a.id = l.attempt_id"
        " WHERE a.job_id = $1::text::uuid AND a.peer_id = $2 AND l.paid = $3 ORDER BY l.start",
        view.job_id,
        market.parts[node].info["peer_id"],
        paid,
    )
    return [(row["start"], row["stop"]) for row in rows]


@pytest.mark.slow
def test_the_next_attempt_computes_no_chunk_that_was_verified(market: CrashMarket) -> None:
    market.start_node("first", CHUNKED, **CHEAP)
    with Consumer(market) as consumer:
        until(offered(consumer.api, 1))
        with market.barriers.armed(Barrier.LINK_COMMITTED, skip=LINKS - 1) as step:
            job = consumer.submit_aside()
            step.wait()
            market.kill("first")
        market.start_node("second", CHUNKED, **DEAR)
        view = job.finish()
        check_everything(market, view, job.key)
        verified = links_of(market, view, "first", paid=True)
        assert len(verified) >= LINKS, "all that was committed before the kill, the one not acknowledged too"
        assert sum(one.paid_qu for one in by_provider(market, view, "first")) > 0
        (executed,) = market.computed("second").values()
        assert units(executed).isdisjoint(units(verified)), "a verified chunk was computed again"
        assert units(executed) | units(verified) == set(range(view.units)), "and nothing was left out"


def test_a_poisoned_checkpoint_blames_its_signer_and_not_its_heir(market: CrashMarket) -> None:
    market.start_node("poisoner", CHUNKED, POISON="2", **CHEAP)
    with Consumer(market) as consumer:
        until(offered(consumer.api, 1))
        with market.barriers.armed(Barrier.LINK_COMMITTED, skip=LINKS - 1) as step:
            job = consumer.submit_aside()
            step.wait()
            market.kill("poisoner")
        market.start_node("heir", CHUNKED, **DEAR)
        view = job.finish()
        check_everything(market, view, job.key)
        (bad,) = by_provider(market, view, "poisoner")
        assert bad.state is AttemptState.REJECTED
        good, refused = links_of(market, view, "poisoner", paid=True), links_of(market, view, "poisoner", paid=False)
        assert len(good) == 2, "the two links before the bad one are paid to their maker"
        assert bad.units_accepted == len(units(good))
        assert bad.paid_qu > 0
        assert len(refused) >= LINKS - 2, "neither the bad link nor the honest one that follows it is paid"
        (heir,) = by_provider(market, view, "heir")
        assert heir.state is AttemptState.ACCEPTED
        assert heir.units_accepted == view.units - bad.units_accepted
        executed = [part for parts in market.computed("heir").values() for part in parts]
        assert units(executed).isdisjoint(units(good)), "a verified chunk was computed again"
        rejected = {offer.provider: offer.jobs_rejected for offer in consumer.api.offers()}
        assert rejected[market.parts["heir"].info["peer_id"]] == 0
        stored = market.rows("SELECT peer_id, jobs_rejected FROM listing")
        assert {row["peer_id"]: row["jobs_rejected"] for row in stored} == {
            market.parts["poisoner"].info["peer_id"]: 1,
            market.parts["heir"].info["peer_id"]: 0,
        }


@pytest.mark.slow
def test_a_node_that_comes_back_after_it_was_given_up_is_heard_and_not_paid(market: CrashMarket) -> None:
    """Stopped, not killed: it wakes up with a link in its journal and a worker at work, and says all of it too late."""
    zombie = market.start_node("zombie", CHUNKED, **CHEAP)
    with Consumer(market) as consumer:
        until(offered(consumer.api, 1))
        with market.barriers.armed(Barrier.LINK_JOURNALLED, skip=LINKS - 1) as step:
            job = consumer.submit_aside()
            os.kill(step.wait(), signal.SIGSTOP)
        market.start_node("heir", CHUNKED, **DEAR)
        view = job.finish()
        paid = [one.paid_qu for one in view.attempts]
        zombie.popen.send_signal(signal.SIGCONT)
        until(lambda: {"progress", "report"} <= {row["kind"] for row in market.rows("SELECT kind FROM evidence")})
        late = market.rows("SELECT DISTINCT a.peer_id FROM evidence e JOIN attempt a ON a.id = e.attempt_id")
        assert [row["peer_id"] for row in late] == [zombie.info["peer_id"]]
        again = consumer.api.job(view.job_id).view
        assert [one.paid_qu for one in again.attempts] == paid
        check_everything(market, again, job.key)
        assert units(links_of(market, view, "zombie", paid=True)).isdisjoint(
            units(links_of(market, view, "heir", paid=True))
        )
        heir_did = units([part for parts in market.computed("heir").values() for part in parts])
        assert heir_did == units(links_of(market, view, "heir", paid=True))


@pytest.mark.slow
def test_when_one_of_two_hands_dies_the_other_computes_only_what_is_left(market: CrashMarket) -> None:
    """Both work on the job at once, each on a share of its own; one is killed with a link that nobody heard of."""
    dying = market.start_node("dying", CHUNKED)
    market.start_node("living", CHUNKED)
    with Consumer(market, queries=MANY) as consumer:
        until(offered(consumer.api, 2))
        with market.barriers.armed(Barrier.LINK_JOURNALLED, dying.popen.pid, skip=LINKS - 1) as step:
            job = consumer.submit_aside(spread=2)
            step.wait()
            assert len(consumer.api.job(job.acknowledged()).view.attempts) == 2, "the job is in two hands"
            market.kill("dying")
        view = job.finish()
        check_everything(market, view, job.key)
        verified = units(links_of(market, view, "dying", paid=True))
        executed = units([part for parts in market.computed("living").values() for part in parts])
        assert verified, "what it had said before is paid to it"
        assert executed.isdisjoint(verified), "a verified chunk was computed again"
        assert executed | verified == set(range(view.units))
        assert len(by_provider(market, view, "living")) >= 2, "its own share, and what was left of the other"
