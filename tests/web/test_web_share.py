# SPDX-License-Identifier: Apache-2.0
"""Sharing a card by one click, seen by another page at once; over a reload; and the way on where it does not go."""

import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from qubix_protocol.envelope import seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.pairing import Pair, fingerprint
from tests.support.browser import DEADLINE_MS, Tabs
from tests.support.web_market import VERIFIER, WebMarket
from tests.web import reach

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
    mine = tabs.open(gpu=True, init=reach.axe())
    _share(mine)
    expect(_offered(other)).to_have_count(1)
    expect(_offered(other)).not_to_contain_text("Verified")
    _tested(mine)
    _own_account(mine)
    _priced(mine, other)
    assert reach.violations(mine) == []
    mine.get_by_role("button", name="Stop sharing").click()
    expect(mine.get_by_role("button", name="Share this GPU")).to_be_visible()
    expect(_offered(other)).to_have_count(0)


def _tested(page: Page) -> None:
    """Every check has ended well, but for what a processor that poses as a card cannot have."""
    test = page.get_by_role("region", name="Self-test")
    expect(test.get_by_text("Everything that was looked at is as it should be")).to_be_visible(timeout=4 * DEADLINE_MS)
    for kernel in ("matmul", "mandelbrot", "montecarlo_option"):
        expect(test.locator("li", has_text=f"{kernel} on WebGPU")).to_contain_text("Good")
    for kind in ("Way to the store", "Clock"):
        expect(test.locator("li", has_text=kind)).to_contain_text("Good")
    expect(page.get_by_role("region", name="Steps").get_by_text("Not done")).to_have_count(0)


def _own_account(page: Page) -> None:
    """Nobody was signed in: the page has opened the account of the tab's own key."""
    expect(page.get_by_role("banner")).to_contain_text("0 QU")
    expect(page.get_by_text("To the account that is signed in here.")).to_be_visible()


def _priced(mine: Page, other: Page) -> None:
    expect(mine.get_by_text("nothing like it is offered now")).to_be_visible()
    mine.get_by_label("QU an hour").fill("12.5")
    expect(mine.get_by_role("alert")).to_contain_text("Write a whole number")
    mine.get_by_label("QU an hour").fill("4321")
    expect(mine.get_by_role("alert")).to_have_count(0)
    mine.get_by_role("button", name="Set it").click()
    expect(_offered(other)).to_contain_text("4,321")
    mine.get_by_role("button", name="Follow the market").click()
    expect(_offered(other)).to_contain_text("1,000")


def test_a_dialog_keeps_the_focus_and_gives_it_back(market: WebMarket, tabs: Tabs) -> None:
    page = tabs.open(token=market.token, init=reach.axe())
    page.goto("/account")
    opener = page.get_by_role("listitem").filter(has_text="This one").get_by_role("button", name="Revoke")
    dialog = page.get_by_role("dialog")
    opener.click()
    expect(dialog).to_be_visible()
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    for key in ("Tab", "Shift+Tab", "Shift+Tab", "Tab"):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.closest('dialog') !== null"), f"{key} leads out of the dialog"
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    assert reach.violations(page) == []
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(opener).to_be_focused()
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Cancel").click()
    expect(opener).to_be_focused()


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


@pytest.mark.slow
def test_a_tab_earns_into_the_account_that_is_signed_in_by_one_click(market: WebMarket, tabs: Tabs) -> None:
    page = tabs.open(token=market.token, gpu=True)
    _share(page)
    page.get_by_role("button", name="Let it earn into my account").click()
    expect(page.get_by_text("To the account that is signed in here.")).to_be_visible()
    page.reload()
    expect(page.get_by_text("To the account that is signed in here.")).to_be_visible()


_AWAY = """
const cards = new Set();
let away = false;
const open = GPUAdapter.prototype.requestDevice;
GPUAdapter.prototype.requestDevice = async function (...asked) {
  const device = await open.apply(this, asked);
  cards.add(device);
  if (away) device.destroy();
  return device;
};
const heard = new BroadcastChannel('card');
heard.onmessage = ({ data }) => {
  away = data;
  if (away) for (const one of cards) one.destroy();
  heard.postMessage('done');
};
"""
"""A worker whose card goes away, and comes back, as the test says."""
_SAY = """(away) => new Promise((resolve) => {
  const channel = new BroadcastChannel('card');
  channel.onmessage = resolve;
  channel.postMessage(away);
})"""


@pytest.mark.slow
def test_a_card_that_goes_away_leaves_the_market_and_comes_back_by_a_click(market: WebMarket, tabs: Tabs) -> None:
    def changed(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=f"{_AWAY}\n{answer.text()}")

    page, other = tabs.open(token=market.token, gpu=True), tabs.open(token=market.token)
    page.route(re.compile(r"/assets/worker-.*\.js$"), changed)
    other.goto("/")
    _share(page)
    expect(_offered(other)).to_have_count(1)
    expect(page.get_by_role("button", name="Test again")).to_be_enabled(timeout=4 * DEADLINE_MS)
    page.evaluate(_SAY, True)
    page.get_by_role("button", name="Test again").click()
    expect(page.get_by_role("alert")).to_contain_text("The graphics card went away")
    expect(page.get_by_role("alert")).to_contain_text("update its driver")
    expect(_offered(other)).to_have_count(0)
    page.get_by_role("alert").get_by_role("button", name="Try again").click()
    expect(page.get_by_text(WAITS)).to_be_visible()
    expect(_offered(other)).to_have_count(1)


def test_a_native_worker_is_one_file_and_one_click_away(market: WebMarket, tabs: Tabs) -> None:
    page = tabs.open(token=market.token, init=reach.axe())
    page.goto("/share")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download for Linux").click()
    script = Path(saved.value.path()).read_text()
    code = re.search(r"^\s*code=(\S+)$", script, re.MULTILINE)
    assert code is not None
    expect(page.get_by_text("Waiting for the worker to start")).to_be_visible()
    page.reload()
    expect(page.get_by_text("Waiting for the worker to start")).to_be_visible()
    key = SigningKey.generate()
    _brings(market, key, code[1])
    expect(page.get_by_text(fingerprint(key.public))).to_be_visible()
    assert reach.violations(page) == []
    page.get_by_role("button", name="Yes, the same").click()
    expect(page.get_by_text("This machine is yours")).to_be_visible()


def _brings(market: WebMarket, key: SigningKey, code: str) -> None:
    """What a node says when it is started with the code."""
    view = httpx.get(f"{market.url}/api/v1/network").json()
    raw = seal(
        Pair(code=code, clock_ms=view["clock_ms"]),
        key,
        network=view["network"],
        audience=bytes.fromhex(view["coordinator_key"]),
        incarnation=0,
        counter=1,
        expires_ms=view["clock_ms"] + 60_000,
    )
    headers = {"Content-Type": "application/msgpack"}
    httpx.post(f"{market.url}/api/v1/nodes/pair", content=raw, headers=headers).raise_for_status()


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
    expect(page.get_by_role("button", name="Download for Linux")).to_be_enabled()


@pytest.mark.slow
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
