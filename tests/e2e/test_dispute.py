# SPDX-License-Identifier: Apache-2.0
"""A wrong result that no verifier can tell, on real processes: disputed, run again elsewhere, decided, paid (M7)."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import qubix
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.db.database import Database
from qubix_coordinator.settings import Settings
from qubix_protocol.disputes import DisputeState, Finding, Outcome
from qubix_protocol.states import JobState
from tests.e2e.test_main_job import audit, client, offers, until
from tests.support.own import unchecked
from tests.support.unchecked_market import UncheckedMarket

STEPS = 20_000


@pytest.fixture
def market(folder: Path) -> Iterator[UncheckedMarket]:
    with unchecked.registered(), UncheckedMarket(folder, QUBIX_LOG_LEVEL="INFO") as running:
        yield running


async def token_of(market: UncheckedMarket, peer_id: str) -> str:
    settings = Settings(data_dir=market.folder / "data", database_url=market.env["DATABASE_URL"])
    db = await Database.connect(settings)
    try:
        owner = await db.run(lambda tx: accounts.account_of_node(tx, peer_id))
        return await db.run(lambda tx: accounts.create_token(tx, owner, [Scope.USER]))
    finally:
        await db.close()


def test_a_wrong_result_is_disputed_run_again_and_refunded(market: UncheckedMarket) -> None:
    market.start_node("wrong", WRONG="1")
    with client(market) as api:
        until(offers(api, 1))
        maker = market.parts["wrong"].info["peer_id"]
        x = np.random.default_rng(1).random(2_000)
        job = api.submit("orbit", x=x, steps=STEPS, cap_qu=5_000, provider=maker)
        made = job.result(timeout_s=120)["y"]
        view = job.refresh()
        assert (view.state, view.paid_qu) == (JobState.DELIVERED, 0)
        assert view.owed_qu >= 1
        before = api.account()
        dispute = api.disputes.open(job.id, "every number is a little too large")
        assert api.account().balance_qu == before.balance_qu - dispute.bond_qu
        assert job.refresh().state is JobState.DISPUTED
        provider = qubix.Client(
            market.url, token=asyncio.run(token_of(market, maker)), data_dir=market.folder / "maker"
        )
        provider.disputes.answer(dispute.dispute_id, "they are as the map gives them")
        market.start_node("other")
        until(lambda: api.disputes.get(dispute.dispute_id).state is DisputeState.JUDGING, deadline_s=240)
        judged = api.disputes.get(dispute.dispute_id)
        assert judged.finding is Finding.REFUTED, judged.evidence
        assert judged.evidence.rerun_by == market.parts["other"].info["peer_id"]
        assert judged.rerun_cost_qu >= 1
        token = (market.folder / "data" / "arbiter.token").read_text().strip()
        arbiter = qubix.Client(market.url, token=token, data_dir=market.folder / "arbiter")
        assert [one.dispute_id for one in arbiter.disputes.all().disputes] == [dispute.dispute_id]
        arbiter.disputes.decide(dispute.dispute_id, judged.stake_qu, "another run gives other numbers")
        mine, theirs = api.disputes.get(dispute.dispute_id), provider.disputes.get(dispute.dispute_id)
        assert (mine.outcome, mine.award_qu, mine.awarded_from) == (
            Outcome.DECIDED,
            view.owed_qu,
            {"hold": view.owed_qu},
        )
        assert mine.steps == theirs.steps
        assert mine.evidence == theirs.evidence
        done = job.refresh()
        assert (done.state, done.paid_qu, done.returned_qu) == (JobState.RESOLVED, 0, done.cap_qu)
        assert api.account().balance_qu == 1_000_000 - mine.rerun_cost_qu
        assert provider.account().balance_qu == 0
        np.testing.assert_allclose(made, x_after(x) + 0.01)
        provider.close()
        arbiter.close()
    audit(market)


def x_after(x: np.ndarray) -> np.ndarray:
    for _ in range(STEPS):
        x = 3.9 * x * (1.0 - x)
    return x
