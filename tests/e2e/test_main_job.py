# SPDX-License-Identifier: Apache-2.0
"""The main job on real processes: PostgreSQL, coordinator, gateway, verifier, nodes on libp2p (R4, R8, P5, P7, P13)."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import qubix
from qubix_protocol.api import JobView
from qubix_protocol.states import AttemptState, JobState
from tests.support import books
from tests.support.funds import fund_market
from tests.support.market import Market

DEADLINE_S = 120.0


def client(market: Market) -> qubix.Client:
    found = qubix.Client(market.url, token=market.token, data_dir=market.folder / "client")
    fund_market(market, found, 1_000_000)
    return found


def until(what: Callable[[], object], *, deadline_s: float = DEADLINE_S) -> None:
    """Wait for a state that must come: the deadline is far beyond what is expected."""
    end = time.monotonic() + deadline_s
    while not what():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.05)


def offers(market: qubix.Client, count: int) -> Callable[[], bool]:
    return lambda: len(market.offers()) >= count


def audit(market: Market) -> None:
    books.audit(market.env)


def settled(job: JobView) -> None:
    assert job.state is JobState.SETTLED, job
    assert job.held_qu == 0
    assert job.paid_qu + job.fee_qu + job.returned_qu == job.cap_qu
    assert job.units_accepted == job.units


def matrices(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, n), dtype=np.float32), rng.standard_normal((n, n), dtype=np.float32)


CORE = ("database", "coordinator", "gateway", "verifier")


class Shared:
    """One market for the whole file. After each test its nodes are gone, as if there had been none; after one that
    failed, or that stopped the market, the next gets a new one."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._market: Market | None = None

    def get(self) -> Market:
        if self._market is None:
            folder = Path(tempfile.mkdtemp(prefix="qx-"))
            folder.chmod(0o755)
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self._market = self._stack.enter_context(Market(folder))
        return self._market

    def tidy(self) -> None:
        market = self.get()
        for name in [name for name in market.parts if name not in CORE]:
            part = market.parts.pop(name)
            if part.running:
                part.stop()
            # Who comes next under this name is somebody else.
            shutil.rmtree(market.folder / name, ignore_errors=True)
        if not market.parts["database"].running:
            self.close()
            return
        if not market.parts["verifier"].running:
            market.start_verifier()
        with qubix.Client(market.url, token=market.token, data_dir=market.folder / "client") as api:
            until(lambda: not api.offers())

    def close(self) -> None:
        self._market = None
        self._stack.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    found = Shared()
    yield found
    found.close()


@pytest.fixture
def market(shared: Shared, request: pytest.FixtureRequest) -> Iterator[Market]:
    failed = request.session.testsfailed
    yield shared.get()
    if request.session.testsfailed == failed:
        shared.tidy()
    else:
        shared.close()


def test_a_job_is_run_checked_settled_and_proved(market: Market) -> None:
    market.start_node()
    with client(market) as api:
        until(offers(api, 1))
        before_qu = api.account().balance_qu
        a, b = matrices(700)
        job = api.submit("matmul", a=a, b=b, cap_qu=500)
        fractions = [update.fraction for update in job.follow()]
        assert fractions == sorted(fractions)
        np.testing.assert_allclose(job.result()["c"], a @ b, rtol=1e-3, atol=1e-3)
        view = job.refresh()
        settled(view)
        assert view.paid_qu >= 1
        assert [attempt.state for attempt in view.attempts] == [AttemptState.ACCEPTED]
        (receipt,) = job.receipts()
        assert receipt.settlement.paid_qu == view.paid_qu
        balance = api.account().balance_qu
        assert balance == before_qu - view.paid_qu - view.fee_qu
    audit(market)


def test_vector_search_over_the_wire_equals_numpy(market: Market) -> None:
    market.start_node()
    with client(market) as api:
        until(offers(api, 1))
        rng = np.random.default_rng(2)
        data, queries = (
            rng.standard_normal((500, 16), dtype=np.float32),
            rng.standard_normal((40, 16), dtype=np.float32),
        )
        found = api.submit("knn", queries=queries, data=data, k=3, cap_qu=500).result()
        distances = ((queries[:, None, :] - data[None]) ** 2).sum(-1)
        np.testing.assert_array_equal(found["indices"], np.argsort(distances, axis=1, kind="stable")[:, :3])


@pytest.mark.parametrize(
    "cheat", ["element", *(pytest.param(one, marks=pytest.mark.slow) for one in ("nan", "zeros", "float16"))]
)
def test_a_wrong_result_is_not_paid_and_the_job_completes_elsewhere(market: Market, cheat: str) -> None:
    market.start_node("cheat", "tests.support.cheating_node", QUBIX_NODE_RATE_QU_PER_H="1000", CHEAT=cheat)
    with client(market) as api:
        until(offers(api, 1))
        cheater = market.parts["cheat"].info["peer_id"]
        market.start_node("honest", QUBIX_NODE_RATE_QU_PER_H="900000")
        until(offers(api, 2))
        a, b = matrices(1024)
        job = api.submit("matmul", a=a, b=b, cap_qu=5_000)
        np.testing.assert_allclose(job.result()["c"], a @ b, rtol=1e-3, atol=1e-3)
        view = job.refresh()
        settled(view)
        by_provider = {attempt.provider: attempt for attempt in view.attempts}
        assert by_provider[cheater].state is AttemptState.REJECTED
        assert by_provider[cheater].paid_qu == 0
        assert by_provider[market.parts["honest"].info["peer_id"]].state is AttemptState.ACCEPTED
        listing = next(offer for offer in api.offers() if offer.provider == cheater)
        assert listing.jobs_rejected == 1
    audit(market)


@pytest.mark.slow  # test_spread kills a node daily, and reads its payments as well
def test_a_killed_node_s_job_goes_on_elsewhere_and_each_chunk_is_paid_once(market: Market) -> None:
    market.start_node("first", QUBIX_NODE_RATE_QU_PER_H="1000", QUBIX_NODE_THREADS="1")
    with client(market) as api:
        until(offers(api, 1))
        first = market.parts["first"].info["peer_id"]
        job = api.submit("matmul", **dict(zip("ab", matrices(5_000), strict=True)), cap_qu=50_000)
        until(lambda: any(attempt.units_done for attempt in job.refresh().attempts))
        market.parts["first"].kill()
        market.start_node("second", QUBIX_NODE_RATE_QU_PER_H="900000")
        result = job.result(timeout_s=DEADLINE_S)["c"]
        a, b = matrices(5_000)
        rows = [0, 1, 2500, 4998, 4999]
        np.testing.assert_allclose(result[rows], a[rows] @ b, rtol=1e-2, atol=1e-2)
        view = job.refresh()
        settled(view)
        by_provider = {attempt.provider: attempt for attempt in view.attempts}
        assert by_provider[first].units_accepted > 0
        assert by_provider[first].paid_qu > 0
        assert sum(attempt.units_accepted for attempt in view.attempts) == view.units
        assert sum(attempt.units_done for attempt in view.attempts) == view.units, "a verified chunk ran twice"
    audit(market)


@pytest.mark.slow
def test_a_killed_coordinator_comes_back_and_the_job_goes_on(market: Market) -> None:
    market.start_node(QUBIX_NODE_THREADS="1")
    with client(market) as api:
        until(offers(api, 1))
        a, b = matrices(4_000)
        job = api.submit("matmul", a=a, b=b, cap_qu=50_000)
        until(lambda: any(attempt.units_done for attempt in job.refresh().attempts))
        market.parts["coordinator"].kill()
        market.start_coordinator()
        job.result(timeout_s=DEADLINE_S)
        view = job.refresh()
        settled(view)
        assert len(view.attempts) == 1, "the node went on with the attempt it had"
    audit(market)


@pytest.mark.slow  # sim/test_node_jobs restarts a node daily
def test_a_restarted_node_reports_what_it_had_finished(market: Market) -> None:
    market.start_node(QUBIX_NODE_THREADS="1")
    with client(market) as api:
        until(offers(api, 1))
        a, b = matrices(4_000)
        job = api.submit("matmul", a=a, b=b, cap_qu=50_000)
        until(lambda: any(attempt.units_done for attempt in job.refresh().attempts))
        market.parts["node"].kill()
        market.start_node(QUBIX_NODE_THREADS="1")
        job.result(timeout_s=DEADLINE_S)
        view = job.refresh()
        settled(view)
        assert sum(attempt.units_accepted for attempt in view.attempts) == view.units
        assert view.attempts[0].units_accepted > 0
    audit(market)


def test_a_cancelled_job_pays_what_was_checked_and_returns_the_rest(market: Market) -> None:
    market.start_node(QUBIX_NODE_THREADS="1")
    with client(market) as api:
        until(offers(api, 1))
        a, b = matrices(5_000)
        job = api.submit("matmul", a=a, b=b, cap_qu=50_000)
        until(lambda: any(attempt.units_done for attempt in job.refresh().attempts))
        job.cancel()
        with pytest.raises(qubix.JobCancelled):
            job.result(timeout_s=DEADLINE_S)
        view = job.refresh()
        assert view.state is JobState.CANCELLED
        assert view.held_qu == 0
        assert view.paid_qu >= 1
        assert view.paid_qu + view.fee_qu + view.returned_qu == view.cap_qu
    audit(market)


def test_a_killed_verifier_is_replaced_and_nothing_waits_for_ever(market: Market) -> None:
    market.parts["verifier"].kill()
    market.start_node()
    with client(market) as api:
        until(offers(api, 1))
        a, b = matrices(300)
        job = api.submit("matmul", a=a, b=b, cap_qu=500)
        until(lambda: job.refresh().state is JobState.VERIFYING)
        market.start_verifier("second")
        np.testing.assert_allclose(job.result()["c"], a @ b, rtol=1e-3, atol=1e-3)
        settled(job.refresh())


def test_all_parts_stop_cleanly_when_asked(market: Market) -> None:
    market.start_node()
    for name in ("node", *reversed(CORE)):
        assert market.parts[name].stop() == 0, market.parts[name].tail()
