# SPDX-License-Identifier: Apache-2.0
"""Two coordinators and two gateways on one PostgreSQL: work goes on when either dies, and nothing is said for nothing.

Leases are long here: a node that moves keeps its attempt, so each job has one attempt and one only.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from qubix_protocol.api import JobView
from qubix_protocol.barriers import Barrier
from qubix_protocol.states import AttemptState
from tests.support.crash_market import REPLICA, Consumer, CrashMarket, check_everything, offered, until

CHUNKED = "tests.support.chunked_node"
REPLICA_GATEWAY = f"{REPLICA}-gateway"


@pytest.fixture
def market(folder: Path) -> Iterator[CrashMarket]:
    with CrashMarket(folder, QUBIX_LEASE_S="60") as running:
        yield running


def one_attempt(market: CrashMarket, view: JobView) -> str:
    (attempt,) = view.attempts
    assert attempt.state is AttemptState.ACCEPTED
    (row,) = market.rows("SELECT id FROM attempt WHERE job_id = $1::text::uuid", view.job_id)
    return str(row["id"])


def sessions(market: CrashMarket, node: str = "node") -> int:
    return market.parts[node].log.read_text().count("link.up ")


@pytest.mark.slow
def test_a_node_moves_to_another_gateway_and_says_there_what_was_not_acknowledged(market: CrashMarket) -> None:
    market.start_gateway("other")
    market.start_node("node", CHUNKED)
    with Consumer(market) as consumer:
        until(offered(consumer.api, 1))
        with market.barriers.armed(Barrier.LINK_COMMITTED, skip=1) as step:
            job = consumer.submit_aside()
            step.wait()
            market.kill("gateway")
        view = job.finish()
        check_everything(market, view, job.key)
        attempt = one_attempt(market, view)
        assert market.wire.times[attempt, 1] >= 2, "said by both gateways"
        assert (attempt, 1) in market.wire.acknowledged_of({attempt}), "acknowledged by the other one"
        assert sessions(market) == 2

        market.start_gateway("gateway")
        until(lambda: market.parts["gateway"].log.read_text().count("gateway.link_up ") == 2)
        with market.barriers.armed(Barrier.REPORT_COMMITTED) as step:
            job = consumer.submit_aside()
            step.wait()
            market.kill("other")
        view = job.finish()
        attempt = one_attempt(market, view)
        until(lambda: (attempt, None) in market.wire.acknowledged_of({attempt}))
        check_everything(market, view, job.key)
        assert market.wire.reports[attempt] >= 2


@pytest.mark.slow
def test_with_no_gateway_left_the_report_goes_by_https(market: CrashMarket) -> None:
    market.start_node("node", CHUNKED)
    with Consumer(market) as consumer:
        until(offered(consumer.api, 1))
        with market.barriers.armed(Barrier.REPORT_JOURNALLED) as step:
            job = consumer.submit_aside()
            step.wait()
            market.kill("gateway")
        view = job.finish()
        check_everything(market, view, job.key)
        attempt = one_attempt(market, view)
        assert market.wire.reports[attempt] == 0, "no gateway ever passed it"
        assert (attempt, None) not in market.wire.acknowledged_of({attempt})
        until(lambda: (attempt, None) in market.brought())


@pytest.mark.slow
def test_either_of_two_coordinators_may_die_in_the_middle_of_a_job(market: CrashMarket) -> None:
    first_gateway = market.env["QUBIX_BOOTSTRAP"]
    replica = market.start_replica()
    market.start_node("node", CHUNKED, QUBIX_BOOTSTRAP=first_gateway)  # of the other one it hears from its coordinator
    with Consumer(market) as first, Consumer(market, str(replica.info["url"])) as second:
        until(offered(second.api, 1))
        with market.barriers.armed(Barrier.LINK_COMMITTED, market.parts["coordinator"].popen.pid, skip=1) as step:
            job = second.submit_aside()
            step.wait()
            market.kill("coordinator")
        view = job.finish()
        check_everything(market, view, job.key)
        one_attempt(market, view)
        assert sessions(market) == 2, "the node went over to the replica's gateway"

        market.start_coordinator()
        with market.barriers.armed(Barrier.LINK_COMMITTED, replica.popen.pid, skip=1) as step:
            job = first.submit_aside()
            step.wait()
            market.kill(REPLICA)
        view = job.finish()
        check_everything(market, view, job.key)
        one_attempt(market, view)
        assert sessions(market) == 3, "and back"
