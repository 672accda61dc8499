# SPDX-License-Identifier: Apache-2.0
"""What the tests in a browser stand on: a complaint of a page is heard, and a line can be cut."""

from playwright.sync_api import Page, expect

from tests.chain.vectors import SEED
from tests.support.browser import REFUSED_LATE, Tabs
from tests.support.wallet_double import ExtensionWallet
from tests.support.web_market import Line, WebMarket

PARTS = ()


PLANTED = (
    ("console.error('planted')", "planted"),
    ("setTimeout(() => { throw new Error('thrown') })", "uncaught: thrown"),
    ("Promise.reject(new Error('rejected'))", "uncaught: rejected"),
    ("document.head.append(Object.assign(document.createElement('style'), {textContent: 'a{}'}))", "policy: style-src"),
    ("document.body.insertAdjacentHTML('beforeend', '<img src=\"http://127.0.0.1:1/x\">')", "policy: img-src"),
    ("fetch('/api/v1/none')", "status of 404"),
)


def test_planted_complaints_are_heard(page: Page, tabs: Tabs) -> None:
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    for script, heard in PLANTED:
        assert not any(heard in text for text in tabs.unexpected()), "too early"
        _provoke(page, script, heard)
        assert any(heard in text for text in tabs.unexpected()), (heard, tabs.complaints)
    tabs.allow("planted|thrown|rejected|policy|violates|127.0.0.1:1|404")


def _provoke(page: Page, script: str, heard: str) -> None:
    if heard.startswith("uncaught"):
        with page.expect_event("pageerror"):
            page.evaluate(f"() => {{ {script} }}")
    else:
        with page.expect_console_message(lambda said: heard in said.text):
            page.evaluate(f"() => {{ {script} }}")


def test_a_wallet_signs_in_and_its_refusal_is_told(tabs: Tabs) -> None:
    tabs.allow(REFUSED_LATE)
    wallet = ExtensionWallet(SEED)
    page = tabs.open(wallet=wallet)
    page.goto("/jobs")
    page.get_by_role("button", name="Sign in with the browser extension").click()
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    assert page.evaluate("document.cookie") == "", "no script reads the session's token"
    page.get_by_role("button", name="Your account").click()
    page.get_by_role("button", name="Sign out").click()
    wallet.answer = False
    page.get_by_role("button", name="Sign in with the browser extension").click()
    expect(page.get_by_role("alert")).to_contain_text("You said no in your wallet")


def test_webgpu_is_where_it_is_asked_for(page: Page, gpu_page: Page) -> None:
    ask = "async () => (await navigator.gpu?.requestAdapter())?.info.isFallbackAdapter ?? null"
    for one, fallback in ((page, None), (gpu_page, True)):
        one.goto("/")
        assert one.evaluate(ask) is fallback


def test_a_line_is_cut_and_mended(tabs: Tabs, market: WebMarket) -> None:
    with Line(market.url) as line:
        page = tabs.open(token=market.token, url=line.url)
        page.goto("/")
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        tabs.allow("WebSocket connection|ERR_|Failed to load")
        line.cut()
        expect(page.get_by_text("Reconnecting")).to_be_visible()
        line.mend()
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
