# SPDX-License-Identifier: Apache-2.0
"""Sharing a card by one click, seen by another page at once; over a reload; and the way on where it does not go."""

import re

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.support.browser import DEADLINE_MS, Tabs
from tests.support.web_market import VERIFIER, WebMarket

PARTS = (VERIFIER,)
ENV = {"QUBIX_ALLOW_FALLBACK_ADAPTERS": "true"}
CARD = "Google SwiftShader"
WAITS = "In the market, waiting for work"


def _offered(page: Page) -> Locator:
    return page.get_by_role("region", name="Market").locator("tbody tr:not([aria-hidden])", has_text=CARD)


def _share(page: Page) -> None:
    page.goto("/share")
    page.get_by_role("button", name="Share this GPU").click()
    expect(page.get_by_text(WAITS)).to_be_visible()


def test_one_click_lists_the_card_for_everybody_and_a_stop_takes_it_away(market: WebMarket, tabs: Tabs) -> None:
    other = tabs.open(token=market.token)
    other.goto("/")
    expect(other.get_by_text("Nothing is offered yet")).to_be_visible()
    mine = tabs.open(gpu=True)
    _share(mine)
    expect(_offered(other)).to_have_count(1)
    expect(_offered(other)).not_to_contain_text("Verified")
    _tested(mine)
    _own_account(mine)
    _priced(mine, other)
    mine.get_by_role("button", name="Stop sharing").click()
    expect(mine.get_by_role("button", name="Share this GPU")).to_be_visible()
    expect(_offered(other)).to_have_count(0)


def _tested(page: Page) -> None:
    """Every check has ended well, but for what a processor that poses as a card cannot have."""
    test = page.get_by_role("region", name="Self-test")
    expect(test.get_by_text("Everything that was looked at is as it should be")).to_be_visible(timeout=2 * DEADLINE_MS)
    for kernel in ("matmul", "mandelbrot", "montecarlo_option"):
        expect(test.locator("li", has_text=f"{kernel} on WebGPU")).to_contain_text("Good")
    expect(test.locator("li", has_text="Clock")).to_contain_text("Good")
    expect(page.get_by_role("region", name="Steps").get_by_text("Not done")).to_have_count(0)


def _own_account(page: Page) -> None:
    """Nobody was signed in: the page has opened the account of the tab's own key."""
    expect(page.get_by_role("banner")).to_contain_text("0 QU")
    expect(page.get_by_text("To the account that is signed in here.")).to_be_visible()


def _priced(mine: Page, other: Page) -> None:
    expect(mine.get_by_text("nothing like it is offered now")).to_be_visible()
    mine.get_by_label("QU an hour").fill("4321")
    mine.get_by_role("button", name="Set it").click()
    expect(_offered(other)).to_contain_text("4,321")
    mine.get_by_role("button", name="Follow the market").click()
    expect(_offered(other)).to_contain_text("1,000")


def test_it_goes_on_after_a_reload_on_whatever_page(market: WebMarket, tabs: Tabs) -> None:
    page = tabs.open(token=market.token, gpu=True)
    _share(page)
    page.get_by_role("link", name="Jobs", exact=True).click()
    expect(page.get_by_role("banner").get_by_role("link", name="Sharing", exact=True)).to_be_visible()
    page.reload()
    page.get_by_role("banner").get_by_role("link", name="Sharing", exact=True).click()
    expect(page.get_by_text(WAITS)).to_be_visible()
    page.get_by_role("button", name="Stop sharing").click()
    expect(page.get_by_role("button", name="Share this GPU")).to_be_enabled()
    page.reload()
    expect(page.get_by_role("button", name="Share this GPU")).to_be_enabled()


def test_a_tab_earns_into_the_account_that_is_signed_in_by_one_click(market: WebMarket, tabs: Tabs) -> None:
    page = tabs.open(token=market.token, gpu=True)
    _share(page)
    page.get_by_role("button", name="Let it earn into my account").click()
    expect(page.get_by_text("To the account that is signed in here.")).to_be_visible()
    page.reload()
    expect(page.get_by_text("To the account that is signed in here.")).to_be_visible()


_NO_GPU = "Object.defineProperty(navigator, 'gpu', { value: undefined });"


@pytest.mark.parametrize(
    ("init", "said", "remedy"),
    [
        (_NO_GPU, "This browser has no WebGPU", "Use a current Chrome"),
        (f"{_NO_GPU} Object.defineProperty(window, 'isSecureContext', {{ value: false }});", "not secure", "HTTPS"),
        ("GPU.prototype.requestAdapter = async () => null;", "No graphics card was found", "hardware acceleration"),
        (
            "GPU.prototype.requestAdapter = async () => { throw new DOMException('no', 'SecurityError'); };",
            "The browser keeps the card back",
            "Allow WebGPU",
        ),
    ],
)
def test_where_there_is_no_card_there_is_a_reason_and_a_way_on(
    init: str, said: str, remedy: str, market: WebMarket, tabs: Tabs
) -> None:
    page = tabs.open(token=market.token, gpu=True, init=init)
    page.goto("/share")
    trouble = page.get_by_role("alert")
    expect(trouble).to_contain_text(said)
    expect(trouble).to_contain_text(remedy)
    expect(trouble.get_by_role("button", name="Try again")).to_be_enabled()
    expect(page.get_by_role("heading", name=re.compile("native worker"))).to_be_visible()


def test_a_processor_that_poses_as_a_card_is_told_as_one_where_the_market_takes_none(
    market: WebMarket, tabs: Tabs
) -> None:
    def without(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "fallback_adapters": False})

    page = tabs.open(token=market.token, gpu=True)
    page.route("**/api/v1/network", without)
    page.goto("/share")
    expect(page.get_by_role("alert")).to_contain_text("only a processor that poses as a graphics card")
    page.unroute("**/api/v1/network")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("button", name="Share this GPU")).to_be_enabled()
