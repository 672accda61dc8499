# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL is killed under a working market and comes back: everybody waits, nothing acknowledged is lost (P13)."""

import json
import os
import signal
import time

import httpx
import numpy as np
import pytest

from qubix_protocol.states import AttemptState
from tests.e2e.test_main_job import DEADLINE_S, audit, client, matrices, offers, settled, until
from tests.support.market import Market


def kill_postgres(market: Market) -> None:
    """kill -9 of the postmaster; its supervisor then ends by itself."""
    pid = int((market.folder / "data/postgres/data/postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    assert market.parts["database"].popen.wait(30) == 1


def lines(market: Market, part: str, event: str) -> int:
    return market.parts[part].log.read_text().count(event)


@pytest.mark.slow
def test_a_killed_database_comes_back_and_everything_goes_on(market: Market) -> None:
    node = market.start_node(QUBIX_NODE_THREADS="1")
    with client(market) as api, httpx.Client(base_url=market.url, timeout=60) as http:
        until(offers(api, 1))
        until(lambda: http.get("/readyz").status_code == 200)
        a, b = matrices(5_000)
        job = api.submit("matmul", a=a, b=b, cap_qu=50_000)
        until(lambda: any(attempt.units_done for attempt in job.refresh().attempts))
        acknowledged = job.refresh()

        kill_postgres(market)
        headers = {"Authorization": f"Bearer {market.token}"}
        for method, path in (("GET", f"/api/v1/jobs/{acknowledged.job_id}"), ("POST", "/api/v1/account/payout/stop")):
            refused = http.request(method, path, headers=headers)
            assert refused.status_code == 503, refused.text
            assert refused.headers["Content-Type"] == "application/problem+json"
            assert int(refused.headers["Retry-After"]) >= 1
            assert refused.json()["code"] == "unavailable"
        ready = http.get("/readyz")
        assert (ready.status_code, ready.json()["database"]) == (503, False)
        assert "the database does not answer" in ready.json()["missing"]
        assert http.get("/healthz").status_code == 200
        # Long enough for every loop of every process to meet the outage more than once.
        time.sleep(4)
        assert [name for name, part in market.parts.items() if not part.running] == ["database"]

        market.start_database()
        until(lambda: http.get("/readyz").status_code == 200)
        again = job.refresh()
        assert again.units_accepted >= acknowledged.units_accepted
        assert sum(x.units_done for x in again.attempts) >= sum(x.units_done for x in acknowledged.attempts)
        result = job.result(timeout_s=DEADLINE_S)["c"]
        rows = [0, 1, 2500, 4998, 4999]
        np.testing.assert_allclose(result[rows], a[rows] @ b, rtol=1e-2, atol=1e-2)
        view = job.refresh()
        settled(view)
        assert [attempt.state for attempt in view.attempts] == [AttemptState.ACCEPTED], "the node kept its attempt"
        assert api.account().balance_qu == 1_000_000 - view.paid_qu - view.fee_qu

        second = api.submit("matmul", **dict(zip("ab", matrices(300), strict=True)), cap_qu=500)
        second.result(timeout_s=DEADLINE_S)
        settled(second.refresh())
        receipt_of_first = job.receipts()
        assert len(receipt_of_first) == 1
    for part in ("coordinator", "verifier"):
        assert lines(market, part, "db.away") == 1, "an outage is told once"
        assert lines(market, part, "db.back") == 1
    assert lines(market, "coordinator", "mesh.node_up") == 1, f"the session went on: {json.dumps(node.info)}"
    audit(market)


def test_a_check_that_was_made_while_the_database_was_away_is_not_lost(market: Market) -> None:
    """Killed again and again, at whatever point the jobs then are: each settles, once."""
    market.start_node()
    with client(market) as api:
        until(offers(api, 1))
        a, b = matrices(600)
        jobs = [api.submit("matmul", a=a, b=b, cap_qu=500) for _ in range(12)]
        for pause_s in (0.3, 0.7, 1.1):
            time.sleep(pause_s)
            kill_postgres(market)
            market.start_database()
        for job in jobs:
            np.testing.assert_allclose(job.result(timeout_s=DEADLINE_S)["c"], a @ b, rtol=1e-3, atol=1e-3)
        views = [job.refresh() for job in jobs]
        for view in views:
            settled(view)
        spent = sum(view.paid_qu + view.fee_qu for view in views)
        assert api.account().balance_qu == 1_000_000 - spent
    audit(market)
