# SPDX-License-Identifier: Apache-2.0
"""The browser's own key for orders (M6, docs/adr/0038) beside a real SDK's: both spend from one account."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

import qubix
from qubix_protocol.order_keys import OrderKeyView
from qubix_protocol.states import OrderKeyKind, OrderKeyWay
from tests.chain.vectors import OTHER_SEED, SEED
from tests.db.test_sdk_wallets import SeedWallet
from tests.support.browser import DEADLINE_MS, Tabs
from tests.support.chain_market import wait_for
from tests.support.funds import fund_market
from tests.support.wallet_double import ExtensionWallet
from tests.support.web_market import WebMarket
from tests.web import reach

pytestmark = pytest.mark.slow
T = TypeVar("T")
FUNDS = 1_000_000
THIEFS_SEED = "t" * 55
SMALL = {"width": 96, "height": 64}
NO_ED25519 = """
const make = crypto.subtle.generateKey.bind(crypto.subtle);
crypto.subtle.generateKey = (kind, ...rest) =>
  kind.name === 'Ed25519' ? Promise.reject(new DOMException('unknown', 'NotSupportedError')) : make(kind, ...rest);
"""


@pytest.fixture(scope="module", autouse=True)
def node(market: WebMarket) -> str:
    return market.start_quick_node("node")


def aside(work: Callable[[], T]) -> T:
    """In a thread, since Playwright's loop runs in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def sdk_job(market: WebMarket, folder: Path, token: str = "") -> list[OrderKeyView]:
    """A whole job by the SDK, and the account's keys afterwards."""

    def work() -> list[OrderKeyView]:
        with qubix.Client(market.url, token=token, data_dir=folder) as api:
            wait_for("a free node", lambda: api.offers("availability=available"))
            api.submit("mandelbrot", cap_qu=50_000, params=SMALL).result(timeout_s=120)
            return list(api.order_keys.list().keys)

    return aside(work)


def keys_of(page: Page) -> Locator:
    page.goto("/account")
    return page.get_by_role("region", name="Keys that sign orders")


def run(page: Page) -> None:
    """As far as the click that spends."""
    page.goto("/run?kernel=mandelbrot")
    for name, value in SMALL.items():
        page.get_by_role("spinbutton", name=name).fill(str(value))
    page.get_by_role("button", name="Forecast").click()
    page.get_by_role("button", name="Run it").click()


def rent(page: Page) -> None:
    """And stopped, for whoever needs the node next."""
    page.goto("/")
    page.get_by_role("region", name="Market").get_by_role("link").filter(has_text="(CPU)").click()
    page.get_by_role("button", name="Rent it").click()
    rental = page.get_by_role("row").filter(has_text="(CPU)")
    rental.get_by_role("button", name="Stop").click()
    expect(rental).to_contain_text("Ended")


def test_m6_the_browsers_key_is_added_by_the_wallet_and_the_sdk_goes_on(
    market: WebMarket, tabs: Tabs, tmp_path: Path
) -> None:
    def first() -> None:
        with qubix.Client(market.url, token="", data_dir=tmp_path) as api:
            api.sign_in(SeedWallet(SEED))
            fund_market(market, api, FUNDS)

    aside(first)
    (sdk,) = sdk_job(market, tmp_path)
    assert (sdk.kind, sdk.added_by) == (OrderKeyKind.SDK, OrderKeyWay.ORDER)

    wallet = ExtensionWallet(SEED)
    page = tabs.open(wallet=wallet)
    page.goto("/account")
    page.get_by_role("button", name="Sign in with the browser extension").click()
    expect(page.get_by_role("banner")).to_contain_text(re.compile(r"[\d,]+ QU"))
    run(page)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("this browser has no key that signs them")
    alert.get_by_role("link", name="To the keys of your account").click()
    keys = page.get_by_role("region", name="Keys that sign orders")
    expect(keys.get_by_role("listitem")).to_have_count(1)
    wallet.answer = False
    keys.get_by_role("button", name="Add this browser by the wallet").click()
    expect(keys.get_by_role("alert")).to_contain_text("You said no in your wallet")
    wallet.answer = True
    keys.get_by_role("button", name="Add this browser by the wallet").click()
    expect(keys.get_by_role("status")).to_have_text("This browser signs your orders now.")
    expect(keys.get_by_role("listitem")).to_have_count(2)
    assert page.evaluate(EXPORTED) == "InvalidAccessError"

    run(page)
    expect(page.get_by_text("Done and paid")).to_be_visible(timeout=4 * DEADLINE_MS)
    after = sdk_job(market, tmp_path)
    assert [(one.kind, one.added_by, one.revoked_ms) for one in after] == [
        (OrderKeyKind.SDK, OrderKeyWay.ORDER, None),
        (OrderKeyKind.BROWSER, OrderKeyWay.WALLET, None),
    ]
    assert after[1].last_used_ms is not None
    assert after[1].added_by_identity == wallet.account.identity

    mine = keys_of(page).get_by_role("listitem").filter(has_text="This browser")
    mine.get_by_role("button", name="Withdraw").click()
    mine.get_by_role("button", name=re.compile("Withdraw .* for good")).click()
    expect(keys.get_by_text("Withdrawn keys (1)")).to_be_visible()
    run(page)
    expect(alert).to_contain_text("this browser has no key that signs them")
    assert [one.revoked_ms is None for one in sdk_job(market, tmp_path)] == [True, False]


EXPORTED = """
() => new Promise((resolve) => {
  const asked = indexedDB.open('qubix-orders');
  asked.onsuccess = () => {
    const all = asked.result.transaction('keys').objectStore('keys').getAll();
    all.onsuccess = () =>
      crypto.subtle
        .exportKey('pkcs8', all.result[0].privateKey)
        .then(() => resolve('exported'), (no) => resolve(no.name));
  };
})
"""
"""What a script of the page meets that wants the key itself."""


def test_one_click_makes_a_new_accounts_first_key_and_from_then_on_a_session_spends_nothing(
    market: WebMarket, tabs: Tabs, tmp_path: Path
) -> None:
    token = market.person(FUNDS)
    page = tabs.open(token=token)
    keys = keys_of(page)
    keys.get_by_role("button", name="Let this browser sign").click()
    expect(keys.get_by_role("listitem").filter(has_text="This browser")).to_have_count(1)
    keys = keys_of(page)
    expect(keys.get_by_role("listitem").filter(has_text="This browser")).to_have_count(1)
    expect(keys.get_by_text("No wallet could add another key")).to_be_visible()
    expect(keys.get_by_text("No wallet signs in to this account yet: bind one first.")).to_be_visible()

    def bound(*seeds: str) -> dict[str, bool]:
        with qubix.Client(market.url, token=token, data_dir=tmp_path) as api:
            for seed in seeds:
                api.bind_wallet(SeedWallet(seed))
            return {one.identity: one.approves_keys for one in api.wallets().wallets}

    own, thiefs = (SeedWallet(seed).identity for seed in (OTHER_SEED, THIEFS_SEED))
    assert aside(lambda: bound(OTHER_SEED, THIEFS_SEED)) == {own: False, thiefs: False}
    keys = keys_of(page)
    mine = keys.get_by_role("listitem").filter(has_text=own)
    mine.get_by_role("button", name="Let it add and withdraw keys").click()
    expect(keys.get_by_role("status")).to_have_text(re.compile("^The wallet .* adds and withdraws keys from now on"))
    expect(keys.get_by_text("No wallet could add another key")).to_have_count(0)
    assert aside(bound) == {own: True, thiefs: False}
    run(page)
    expect(page.get_by_text("Done and paid")).to_be_visible(timeout=4 * DEADLINE_MS)
    rent(page)
    body = {"listing_id": "00000000-0000-4000-8000-000000000000", "seconds": 60}
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "unsigned"}
    answer = httpx.post(f"{market.url}/api/v1/rentals", json=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "order_unsigned")


def test_without_a_wallet_a_key_that_signs_already_adds_the_browsers(
    market: WebMarket, tabs: Tabs, tmp_path: Path
) -> None:
    token = market.person(FUNDS)
    sdk_job(market, tmp_path, token)
    page = tabs.open(token=token, init=reach.axe())
    keys = keys_of(page)
    keys.get_by_role("button", name="Add it by another key").click()
    assert reach.violations(page) == []
    request = keys.get_by_text(re.compile("^qubix wallet keys add ")).inner_text().rpartition(" ")[2]

    def approve() -> None:
        with qubix.Client(market.url, token=token, data_dir=tmp_path) as api:
            api.order_keys.add(request)

    aside(approve)
    expect(keys.get_by_role("listitem").filter(has_text="This browser")).to_have_count(1)
    run(page)
    expect(page.get_by_text("Done and paid")).to_be_visible(timeout=4 * DEADLINE_MS)


def test_a_browser_without_ed25519_says_what_to_do(market: WebMarket, tabs: Tabs) -> None:
    page = tabs.open(token=market.person(), init=NO_ED25519)
    keys = keys_of(page)
    keys.get_by_role("button", name="Let this browser sign").click()
    expect(keys.get_by_role("alert")).to_contain_text("no Ed25519 keys")
    expect(keys.get_by_role("alert")).to_contain_text("submit by the SDK")
