# SPDX-License-Identifier: Apache-2.0
"""What people do on their own pages, in a real browser: tokens, wallets, devices from afar, a dispute."""

import csv
import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.chain.vectors import SEED
from tests.support.browser import Tabs
from tests.support.wallet_double import ExtensionWallet, HttpNetwork
from tests.support.web_market import ALL, WebMarket
from tests.web import places
from tests.web.places import DEVELOPER, PROVIDER, Made

pytestmark = pytest.mark.slow
PARTS = ALL


@pytest.fixture(scope="module")
def made(market: WebMarket) -> Made:
    market.start_quick_node("cheap")
    return places.make(market)


def test_a_token_is_shown_once_opens_what_it_may_and_is_revoked(market: WebMarket, tabs: Tabs, made: Made) -> None:
    page = tabs.open(token=made.tokens[DEVELOPER])
    page.goto("/account")
    tokens = page.get_by_role("region", name="API tokens")
    tokens.get_by_role("button", name="Make a token").click()
    tokens.get_by_label("What it is for").fill("a screen in the hall")
    tokens.get_by_role("button", name="Make a token").click()
    token = tokens.get_by_text(re.compile("^qx_")).inner_text()
    with httpx.Client(base_url=market.url, headers={"Authorization": f"Bearer {token}"}) as program:
        assert program.get("/api/v1/account").status_code == 200
        assert program.post("/api/v1/account/deposit-identity", json={}).status_code == 403
        tokens.get_by_role("button", name="I have it").click()
        expect(tokens.get_by_text(token)).to_have_count(0)
        row = tokens.get_by_role("listitem").filter(has_text="a screen in the hall")
        row.get_by_role("button", name="Revoke").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke a screen in the hall").click()
        expect(row).to_have_count(0)
        assert program.get("/api/v1/account").status_code == 401


def test_a_wallet_is_bound_pays_in_and_the_whole_statement_is_saved(market: WebMarket, tabs: Tabs, made: Made) -> None:
    wallet = ExtensionWallet(SEED, HttpNetwork(market.qubic_url))
    page = tabs.open(token=made.tokens[DEVELOPER], wallet=wallet)
    page.goto("/wallet")
    wallets = page.get_by_role("region", name="Wallets")
    wallet.answer = False
    wallets.get_by_role("button", name="Bind the wallet in this browser").click()
    expect(wallets.get_by_role("alert")).to_contain_text("You said no in your wallet")
    wallet.answer = True
    wallets.get_by_role("button", name="Bind the wallet in this browser").click()
    expect(wallets).to_contain_text("Sign in, be paid")
    wallets.get_by_role("button", name="Bind by a payment").click()
    other = "A" * 59
    wallets.get_by_label("Its identity").fill(other)
    assert wallets.get_by_label("Its identity").evaluate("(one) => one.checkValidity()") is False
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as CSV").click()
    rows = list(csv.DictReader(saved.value.path().read_text().splitlines()))
    assert {"hold", "settle"} & {one["kind"] for one in rows}
    assert sum(int(one["amount_qu"]) for one in rows) == balance(market, made)


def balance(market: WebMarket, made: Made) -> int:
    headers = {"Authorization": f"Bearer {made.tokens[DEVELOPER]}"}
    found = httpx.get(f"{market.url}/api/v1/account", headers=headers).json()
    return int(found["balance_qu"])


def test_a_device_is_priced_and_paused_from_afar_and_nothing_is_shown_before_the_node_says_so(
    tabs: Tabs, made: Made
) -> None:
    page = tabs.open(token=made.tokens[PROVIDER])
    page.goto("/provider")
    device = page.get_by_role("region", name="Devices").get_by_role("article").first
    expect(device.get_by_role("heading").first).to_contain_text("(CPU)")
    device.get_by_role("button", name="Price").click()
    device.get_by_label("QU for an hour").fill("4321")
    device.get_by_role("button", name="Ask 4,321 QU/h").click()
    expect(device.get_by_role("status")).to_contain_text("The node has it")
    expect(device).to_contain_text("4,321 QU/h")
    device.get_by_role("button", name="Pause").click()
    expect(device).to_contain_text("Draining")
    device.get_by_role("button", name="Take work again").click()
    expect(device).to_contain_text("Available")
    device.get_by_role("button", name="History").click()
    expect(device.get_by_role("img", name="Price")).to_be_visible()


def test_a_result_is_seen_and_disputed_with_its_bond_told_first(tabs: Tabs, made: Made) -> None:
    page = tabs.open(token=made.tokens[DEVELOPER])
    page.goto(f"/jobs/{made.job}")
    expect(page.get_by_role("img", name="iterations as an image")).to_be_visible()
    page.get_by_role("button", name="Numbers").click()
    expect(page.get_by_role("region", name="Numbers").get_by_role("row")).to_have_count(12)
    expect(page.get_by_role("region", name="Checks")).to_contain_text("Passed")
    disputes = page.get_by_role("region", name="Disputes")
    disputes.get_by_role("button", name="Dispute it").click()
    expect(disputes).to_contain_text("staked as a bond")
    disputes.get_by_label("What is wrong with it").fill("the colours are wrong")
    disputes.get_by_role("button", name="Open the dispute").click()
    expect(page.get_by_role("heading", name=re.compile("mandelbrot, attempt"))).to_be_visible()
    expect(page.get_by_role("article", name="Consumer")).to_contain_text("the colours are wrong")
    _answer(tabs, page, made)


def _answer(tabs: Tabs, consumer: Page, made: Made) -> None:
    """The provider's answer is seen by the consumer without a reload."""
    provider = tabs.open(token=made.tokens[PROVIDER])
    provider.goto(consumer.url)
    provider.get_by_label("Your answer").fill("they are what the kernel gives")
    provider.get_by_role("button", name="Answer").click()
    expect(consumer.get_by_role("article", name="Provider")).to_contain_text("they are what the kernel gives")
