# SPDX-License-Identifier: Apache-2.0
"""Two people, two browsers: one shares the card of a tab, the other finds it, runs a job there and pays; by pages."""

import pytest
from playwright.sync_api import Dialog, Page, expect

from tests.support.browser import DEADLINE_MS, Tabs
from tests.support.web_market import VERIFIER, WebMarket

PARTS = (VERIFIER,)
ENV = {"QUBIX_ALLOW_FALLBACK_ADAPTERS": "true"}
CARD = "Google SwiftShader"
FUNDS = 1_000_000

pytestmark = pytest.mark.slow


def test_one_browser_earns_from_the_job_of_another(market: WebMarket, tabs: Tabs) -> None:
    sharing = tabs.open(token=market.person(), gpu=True)
    _share(sharing)
    renting = tabs.open(token=market.person(FUNDS))
    renting.goto("/?q=backend=webgpu")
    renting.get_by_role("region", name="Market").get_by_role("link", name=CARD).click()
    renting.get_by_role("link", name="Run one job here").click()
    renting.get_by_role("combobox", name="Kernel").select_option("mandelbrot")
    renting.get_by_role("spinbutton", name="width").fill("96")
    renting.get_by_role("spinbutton", name="height").fill("64")
    renting.get_by_role("button", name="Forecast").click()
    renting.get_by_role("button", name="Run it").click()
    expect(renting.get_by_text("Done and paid")).to_be_visible(timeout=4 * DEADLINE_MS)
    view = renting.request.get(f"/api/v1{renting.url.removeprefix(market.url.rstrip('/'))}").json()
    assert [attempt["backend"] for attempt in view["attempts"]] == ["webgpu"]
    assert view["paid_qu"] >= 1
    expect(renting.get_by_role("banner")).to_contain_text(f"{FUNDS - view['paid_qu'] - view['fee_qu']:,} QU")
    expect(sharing.get_by_role("banner")).to_contain_text(f"{view['paid_qu']:,} QU")


def test_a_tab_asks_before_it_closes_while_a_job_runs_in_it_and_not_after(market: WebMarket, tabs: Tabs) -> None:
    sharing = tabs.open(token=market.person(), gpu=True)
    _share(sharing)
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    sharing.on("dialog", stay)
    renting = tabs.open(token=market.person(FUNDS))
    renting.goto("/run")
    renting.get_by_role("combobox", name="Kernel").select_option("mandelbrot")
    renting.get_by_role("spinbutton", name="width").fill("1024")
    renting.get_by_role("spinbutton", name="height").fill("1024")
    renting.get_by_role("spinbutton", name="max_iterations").fill("20000")
    renting.get_by_role("button", name="Forecast").click()
    renting.get_by_role("button", name="Run it").click()
    expect(sharing.get_by_text("Running a job")).to_be_visible(timeout=2 * DEADLINE_MS)
    with sharing.expect_event("dialog"):
        sharing.close(run_before_unload=True)
    assert asked == ["beforeunload"]
    expect(renting.get_by_text("Done and paid")).to_be_visible(timeout=8 * DEADLINE_MS)
    expect(sharing.get_by_text("In the market, waiting for work")).to_be_visible()
    with sharing.expect_event("close"):
        sharing.close(run_before_unload=True)
    assert asked == ["beforeunload"]


def _share(page: Page) -> None:
    """Until it is in the market, tested, and earns into this person's account."""
    page.goto("/share")
    page.get_by_role("button", name="Share this GPU").click()
    expect(page.get_by_text("In the market, waiting for work")).to_be_visible()
    page.get_by_role("button", name="Let it earn into my account").click()
    expect(page.get_by_text("To the account that is signed in here.")).to_be_visible()
    passed = page.get_by_role("region", name="Self-test").get_by_text(
        "Everything that was looked at is as it should be"
    )
    expect(passed).to_be_visible(timeout=4 * DEADLINE_MS)
