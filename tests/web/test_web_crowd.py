# SPDX-License-Identifier: Apache-2.0
"""A market larger than what is told live: its first page is read again and again, and all else goes on."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import expect

from bench.search_bench import fill
from qubix_coordinator.db.database import Database
from qubix_coordinator.feed.bounds import Bounds
from qubix_coordinator.settings import Settings
from tests.support.browser import DEADLINE_MS, Tabs
from tests.support.web_market import WebMarket

PARTS = ()
OFFERS = Bounds().listings + 50
AHEAD_MS = 3_600_000

pytestmark = pytest.mark.slow


async def furnished(url: str) -> None:
    db = await Database.connect(Settings(), url)
    try:
        await fill(db, OFFERS, round(time.time() * 1000) + AHEAD_MS)
    finally:
        await db.close()


def test_more_offers_than_are_told_live_are_read_by_pages(market: WebMarket, tabs: Tabs) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, furnished(market.env["DATABASE_URL"])).result()
    page = tabs.open(token=market.token, size=(1920, 1080))
    page.goto("/")
    expect(page.get_by_text("These are the first 200 in this order")).to_be_visible(timeout=2 * DEADLINE_MS)
    expect(page.get_by_text(f"{OFFERS:,} offers", exact=True)).to_be_visible()
    expect(page.get_by_role("banner")).to_contain_text("Live")  # the account goes on being told
    table = page.get_by_role("region", name="Market")
    for order in ("price", "price-"):
        page.goto(f"/?order={order}")
        wanted = page.request.get(f"/api/v1/offers?limit=1&order={order}").json()["offers"][0]
        expect(table.locator("tbody tr:not([aria-hidden])").first).to_contain_text(f"{wanted['rate_qu_per_h']:,}")
    table.get_by_role("button", name="QU/h").click()
    cheapest = page.request.get("/api/v1/offers?limit=1&order=price").json()["offers"][0]
    expect(table.locator("tbody tr:not([aria-hidden])").first).to_contain_text(f"{cheapest['rate_qu_per_h']:,}")
    page.get_by_role("searchbox").fill("gpu_name=RTX_4090 region=eu")
    expect(page.get_by_text("in this order")).to_have_count(0)
    expect(page.get_by_role("banner")).to_contain_text("Live")
    visitor = tabs.open()
    visitor.goto("/")
    expect(visitor.get_by_text("These are the first 200 in this order")).to_be_visible(timeout=2 * DEADLINE_MS)
    expect(visitor.get_by_role("banner")).to_contain_text("Not connected")
