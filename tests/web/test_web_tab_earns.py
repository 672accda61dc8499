# SPDX-License-Identifier: Apache-2.0
"""A browser tab that shares its GPU earns: a consumer's job runs in it, is checked, and is paid to the tab's account;
a reload goes on with it; a tab that closes or stops hands it on."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import numpy as np
import pytest

import qubix
from qubix import receipts
from qubix_protocol.api import AttemptView, ListingView
from qubix_protocol.states import AttemptState, JobState, Reason
from tests.support import books, web_gpu
from tests.support.browser import Tabs
from tests.support.funds import fund_market
from tests.support.web_market import WebMarket
from tests.support.web_tab import SharingTab

ENV = {
    "QUBIX_ALLOW_FALLBACK_ADAPTERS": "true",
    # Ten times what a reload takes; and only by its own word does a tab's attempt end in these.
    "QUBIX_LEAVE_S": "20",
    "QUBIX_RETURN_S": "1000",
    "QUBIX_LEASE_S": "2000",
}
DEADLINE_S = 100.0
DEAR = "200000000"
"""So that the tab is asked first, although a processor is faster than the one that poses as a card here."""
LONG = 1_280
CAP = 400_000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tab")
    web_gpu.build(folder)
    return folder


@pytest.fixture(scope="module")
def api(market: WebMarket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[qubix.Client]:
    with qubix.Client(market.url, token=market.token, data_dir=tmp_path_factory.mktemp("client")) as found:
        fund_market(market, found, 5_000_000)
        yield found


@pytest.fixture
def tab(market: WebMarket, tabs: Tabs, built: Path) -> Iterator[SharingTab]:
    found = SharingTab(tabs, built, market.token)
    found.load()
    found.start()
    yield found
    found.page.context.close()


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.05)


def measured(api: qubix.Client, tab: SharingTab) -> ListingView:
    """The tab's listing, once it can be given work."""
    peer_id = tab.until(lambda state: state["phase"] == "listed")["peerId"]
    found: list[ListingView] = []

    def there() -> bool:
        found[:] = [one for one in api.offers() if one.provider == peer_id and one.backends]
        return bool(found)

    until(there)
    return found[0]


def product(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    return rng.standard_normal((n, n), dtype=np.float32), rng.standard_normal((n, n), dtype=np.float32)


def long_job(api: qubix.Client, listing: ListingView) -> tuple[Any, np.ndarray]:
    """Several chunks on the processor that stands in for a card here."""
    a, b = product(LONG)
    return api.submit("matmul", a=a, b=b, cap_qu=CAP, provider=listing.provider), a @ b


def earned_qu(market: WebMarket, account_id: str) -> int:
    """By the ledger. In a thread, since Playwright's loop runs in this one."""

    async def asked() -> int:
        connection = await asyncpg.connect(market.env["DATABASE_URL"], timeout=30)
        try:
            sql = (
                "SELECT coalesce(sum(e.amount_qu), 0) FROM entry e JOIN ledger_account a ON a.id = e.account_id"
                " WHERE a.kind = 'user' AND a.owner = $1"
            )
            return int(await connection.fetchval(sql, UUID(account_id)))
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, asked()).result()


def under_way(job: Any, units: int = 1) -> None:
    until(lambda: any(one.units_done >= units for one in job.refresh().attempts))


def test_a_job_runs_in_a_tab_is_checked_and_paid_to_its_account(
    market: WebMarket, tab: SharingTab, api: qubix.Client
) -> None:
    listing = measured(api, tab)
    assert (listing.browser, listing.fallback, listing.verified) == (True, True, False)
    assert listing.listing_id == tab.state["listingId"]
    assert listing.title.endswith("(browser, software)")
    a, b = product(256)
    job = api.submit("matmul", a=a, b=b, cap_qu=CAP)
    outputs = job.result(timeout_s=DEADLINE_S)
    np.testing.assert_allclose(outputs["c"], a @ b, rtol=1e-3, atol=1e-3)
    view = job.refresh()
    assert view.state is JobState.SETTLED
    (attempt,) = view.attempts
    assert (attempt.provider, attempt.backend, attempt.state) == (listing.provider, "webgpu", AttemptState.ACCEPTED)
    state = tab.until(lambda state: state["earnings"] and state["phase"] == "listed")
    assert state["earned"] == attempt.paid_qu > 0
    assert earned_qu(market, state["accountId"]) == attempt.paid_qu
    key = httpx.get(f"{market.url}/api/v1/network").json()["coordinator_key"]
    proved = receipts.verify(job.receipt().raw, key)
    proved.check_result(outputs)
    assert [one.terms.provider for one in proved.proof.attempts] == [listing.provider]
    books.audit(market.env)


@pytest.mark.slow
def test_a_reload_goes_on_with_the_job_in_hand(
    market: WebMarket, tabs: Tabs, tab: SharingTab, api: qubix.Client
) -> None:
    # What the page before was sending may still be under way, or signed in the session before: it is sent again.
    tabs.allow(r"status of (401|409) .*/api/v1/artifacts/")
    job, wanted = long_job(api, measured(api, tab))
    under_way(job)
    tab.reload()
    tab.until(lambda state: state["phase"] in ("running", "listed"))
    np.testing.assert_allclose(job.result(timeout_s=DEADLINE_S)["c"], wanted, rtol=1e-3, atol=1e-3)
    view = job.refresh()
    assert len(view.attempts) == 1, [(one.reason, one.detail) for one in view.attempts]
    (attempt,) = view.attempts
    assert (attempt.state, attempt.units_accepted) == (AttemptState.ACCEPTED, view.units)
    assert tab.until(lambda state: state["phase"] == "listed")["peerId"] == attempt.provider


@pytest.mark.slow
@pytest.mark.parametrize("way", ["closed", "stopped"])
def test_a_tab_that_goes_hands_its_job_on(
    market: WebMarket, tabs: Tabs, tab: SharingTab, api: qubix.Client, way: str
) -> None:
    # When it is back, it goes on with what it had until it hears that this is over.
    tabs.allow(r"status of 403 .*/api/v1/artifacts/")
    listing = measured(api, tab)
    heir = str(market.start_node(f"heir-{way}", QUBIX_NODE_RATE_QU_PER_H=DEAR).info["peer_id"])
    until(lambda: any(one.provider == heir for one in api.offers()))
    a, b = product(LONG)
    job = api.submit("matmul", a=a, b=b, cap_qu=CAP)
    under_way(job)
    assert [one.provider for one in job.refresh().attempts] == [listing.provider]
    if way == "closed":
        tab.page.close(run_before_unload=True)
    else:
        tab.call("stop()")
    until(lambda: listing.listing_id not in {one.listing_id for one in api.offers()})
    np.testing.assert_allclose(job.result(timeout_s=DEADLINE_S)["c"], a @ b, rtol=1e-2, atol=1e-2)
    view = job.refresh()
    by_provider = {one.provider: one for one in view.attempts}
    assert sorted(by_provider) == sorted([listing.provider, heir])
    first = by_provider[listing.provider]
    assert first.units_accepted > 0
    assert first.paid_qu > 0
    assert sum(one.units_accepted for one in view.attempts) == view.units
    assert first.reason is (Reason.LEFT if way == "closed" else Reason.NODE_FAILED)
    assert (first.ended_ms or 0) <= (by_provider[heir].started_ms or 0)
    _hears_what_it_earned(tab, first)
    market.parts[f"heir-{way}"].stop()
    books.audit(market.env)


def _hears_what_it_earned(tab: SharingTab, attempt: AttemptView) -> None:
    """It was settled while the tab was away."""
    tab.again()
    state = tab.until(lambda state: state["earnings"])
    (earning,) = state["earnings"]
    assert (earning["attemptId"], earning["paidQu"]) == (attempt.attempt_id, attempt.paid_qu)
    assert state["earned"] == attempt.paid_qu


@pytest.mark.slow
def test_a_paused_tab_finishes_what_it_has_and_leaves_the_market(
    market: WebMarket, tab: SharingTab, api: qubix.Client
) -> None:
    listing = measured(api, tab)
    job, wanted = long_job(api, listing)
    under_way(job)
    tab.call("pause()")
    np.testing.assert_allclose(job.result(timeout_s=DEADLINE_S)["c"], wanted, rtol=1e-3, atol=1e-3)
    tab.until(lambda state: state["phase"] == "paused")
    until(lambda: listing.listing_id not in {one.listing_id for one in api.offers()})
    tab.call("resume()")
    measured(api, tab)
