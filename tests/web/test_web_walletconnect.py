# SPDX-License-Identifier: Apache-2.0
"""A wallet on a phone, by WalletConnect: the pages in Chromium, the relay's twin, the wallet's twin and the devnet. The
page's cryptography is TypeScript on WebCrypto, the wallet's Python's own."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.background import Background
from tests.support.browser import DEADLINE_MS, PHONE, REFUSED_LATE, Tabs
from tests.support.chain_market import wait_for
from tests.support.devnet import held
from tests.support.wallet_double import Account, HttpNetwork, WalletConnectWallet
from tests.support.wc_crypto import seal
from tests.support.wc_relay import PROJECT, RelayTwin
from tests.support.wc_wallet import CHAIN, Phone
from tests.support.web_market import MONEY, WebMarket
from tests.web.reach import axe, violations

PARTS = (MONEY,)
THIEF_SEED: Final = "b" * 55
ENV: dict[str, str] = {}
SIGN_IN: Final = "Sign in with WalletConnect"
BIND: Final = "Bind with WalletConnect"
PAY: Final = "Pay with WalletConnect"
COARSE: Final = """
const real = window.matchMedia;
window.matchMedia = (asked) => (asked.includes('coarse') ? { matches: true } : real.call(window, asked));
"""
PAID_IN: Final = 40_000
RELAY_AWAY: Final = r"WebSocket connection to 'ws://127\.0\.0\.1:\d+/"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    with Background() as loop:
        yield loop


@pytest.fixture(scope="module")
def relay(background: Background) -> Iterator[RelayTwin]:
    twin = RelayTwin()
    background.run(twin.start())
    yield twin
    background.run(twin.stop())


@pytest.fixture(scope="module", autouse=True)
def settings(relay: RelayTwin) -> None:
    """Before the market starts: it is told of the relay."""
    told = {"PROJECT_ID": PROJECT, "RELAY": relay.url, "CHAIN": CHAIN}
    ENV.update({f"QUBIX_WALLETCONNECT_{name}": value for name, value in told.items()})


@contextlib.contextmanager
def opened(background: Background, phone: Phone) -> Iterator[Phone]:
    background.run(phone.open())
    try:
        yield phone
    finally:
        background.run(phone.close())


def seed(of: str) -> str:
    """Another one for each test: a key is bound to one account of the market."""
    return "".join(chr(ord("a") + byte % 26) for byte in hashlib.sha512(of.encode()).digest())[:55]


@pytest.fixture
def phone(
    request: pytest.FixtureRequest, background: Background, relay: RelayTwin, market: WebMarket
) -> Iterator[Phone]:
    """With two accounts."""
    seeds = (seed(request.node.name), seed(f"{request.node.name} too"))
    wallet = WalletConnectWallet(*seeds, network=HttpNetwork(market.qubic_url))
    with opened(background, Phone(wallet, relay.url)) as found:
        yield found


def first(phone: Phone) -> str:
    return next(iter(phone.wallet.accounts))


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog")


def code(page: Page) -> str:
    """What the wallet's camera would read."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expect(dialog(page).get_by_role("img", name="The connection as a code")).to_be_visible()
    dialog(page).get_by_role("button", name="Copy the code").click()
    expect(dialog(page).get_by_role("button", name="Copied")).to_be_visible()
    return str(page.evaluate("navigator.clipboard.readText()"))


def connect(page: Page, background: Background, phone: Phone, button: str) -> None:
    page.get_by_role("button", name=button).click()
    background.run(phone.scan(code(page)))
    expect(dialog(page)).to_contain_text("Connected with Qubic Wallet")


def wallets(page: Page) -> Locator:
    return page.get_by_role("region", name="Wallets")


def bound(page: Page) -> list[str]:
    return [one["identity"] for one in page.request.get("/api/v1/wallets").json()["wallets"]]


def test_sign_in_bind_and_deposit_by_a_wallet_on_a_phone(
    background: Background, market: WebMarket, relay: RelayTwin, tabs: Tabs, phone: Phone
) -> None:
    tabs.allow(REFUSED_LATE)
    _, other = phone.wallet.accounts
    faucet = {"identity": first(phone), "amount": 2 * PAID_IN}
    httpx.post(f"{market.qubic_url}/devnet/v1/faucet", json=faucet, timeout=30).raise_for_status()
    page = tabs.open()
    page.goto("/wallet")
    connect(page, background, phone, SIGN_IN)
    expect(dialog(page).get_by_role("radio")).to_have_count(2)
    expect(dialog(page)).to_contain_text("Main")
    dialog(page).get_by_role("button", name=SIGN_IN).click()
    expect(page.get_by_role("banner")).to_contain_text("0 QU")
    expect(dialog(page)).to_have_count(0)
    assert bound(page) == [first(phone)]
    assert phone.session is not None
    background.run(phone.acknowledged.wait())

    # The session lives on: neither another page nor a reload asks for a code.
    page.reload()
    expect(wallets(page)).to_contain_text("Connected by WalletConnect: Qubic Wallet")
    wallets(page).get_by_role("button", name=BIND).click()
    dialog(page).get_by_role("radio").nth(1).check()
    dialog(page).get_by_role("button", name=BIND).click()
    expect(wallets(page).get_by_role("row")).to_have_count(3)
    assert sorted(bound(page)) == sorted([first(phone), other])

    look = f"{market.qubic_url}/live/v1/balances/{first(phone)}"
    wait_for("the wallet's money", lambda: int(httpx.get(look).json()["balance"]["balance"]) >= 2 * PAID_IN)
    page.get_by_label("From your wallet, QU").fill(str(PAID_IN))
    page.get_by_role("button", name=PAY).click()
    with held(market.qubic_url):
        dialog(page).get_by_role("button", name=PAY).click()
        expect(page.get_by_role("status").filter(has_text="Sent as")).to_be_visible()
    expect(page.get_by_role("banner")).to_contain_text(f"{PAID_IN:,} QU", timeout=2 * DEADLINE_MS)
    asked = [one for one in phone.asked if one != "qubic_requestAccounts"]
    assert asked == ["qubic_sign", "qubic_sign", "qubic_sendQubic"]
    assert len(phone.proposals) == 1

    # What the relay saw is sealed: neither texts nor identities are in it.
    seen = json.dumps([one.message for one in relay.seen])
    assert first(phone) not in seen
    assert "qubic_sign" not in seen

    # Signing out ends it in the wallet, too.
    page.get_by_role("button", name="Your account").click()
    page.get_by_role("button", name="Sign out").click()
    background.run(phone.ended.wait())
    assert page.evaluate("JSON.parse(localStorage.getItem('qubix.walletconnect')).session") is None


def test_whoever_says_no_is_told_so_and_may_try_again(background: Background, tabs: Tabs, phone: Phone) -> None:
    page = tabs.open()
    page.goto("/wallet")
    phone.agrees = False
    page.get_by_role("button", name=SIGN_IN).click()
    background.run(phone.scan(code(page)))
    expect(dialog(page).get_by_role("alert")).to_contain_text("You said no in your wallet")
    phone.agrees = True
    dialog(page).get_by_role("button", name="Make a new code").click()
    background.run(phone.scan(code(page)))
    for answer, words in ((False, "You said no in your wallet"), ("busy", "has another request open")):
        phone.wallet.answer = answer
        dialog(page).get_by_role("button", name=SIGN_IN).click()
        expect(dialog(page).get_by_role("alert")).to_contain_text(words)
    phone.wallet.answer = True
    dialog(page).get_by_role("button", name=SIGN_IN).click()
    expect(page.get_by_role("banner")).to_contain_text("0 QU")


def test_the_wallet_ends_it_while_the_page_is_open_and_while_it_is_not(
    background: Background, market: WebMarket, tabs: Tabs, phone: Phone
) -> None:
    page = tabs.open(token=market.person())
    page.goto("/wallet")
    for away in (False, True):
        connect(page, background, phone, BIND)
        page.keyboard.press("Escape")
        expect(wallets(page)).to_contain_text("Connected by WalletConnect")
        if away:
            page.goto("about:blank")
        background.run(phone.disconnect())
        if away:
            page.goto("/wallet")
        expect(wallets(page).get_by_role("button", name=BIND)).to_be_visible()
        expect(wallets(page).get_by_text("Connected by WalletConnect")).to_have_count(0)


def test_the_page_ends_it(background: Background, market: WebMarket, tabs: Tabs, phone: Phone) -> None:
    page = tabs.open(token=market.person())
    page.goto("/wallet")
    connect(page, background, phone, BIND)
    page.keyboard.press("Escape")
    wallets(page).get_by_role("button", name="Disconnect").click()
    expect(wallets(page).get_by_text("Connected by WalletConnect")).to_have_count(0)
    background.run(phone.ended.wait())


def test_a_session_that_is_over_is_not_asked(
    background: Background, market: WebMarket, tabs: Tabs, phone: Phone
) -> None:
    page = tabs.open(token=market.person())
    page.clock.install()
    page.goto("/wallet")
    connect(page, background, phone, BIND)
    page.keyboard.press("Escape")
    page.clock.fast_forward(8 * 86_400 * 1000)
    expect(wallets(page).get_by_text("Connected by WalletConnect")).to_have_count(0)
    wallets(page).get_by_role("button", name=BIND).click()
    expect(dialog(page).get_by_role("img", name="The connection as a code")).to_be_visible()


def test_a_code_and_a_request_that_nobody_answers_end(
    background: Background, market: WebMarket, tabs: Tabs, phone: Phone
) -> None:
    page = tabs.open(token=market.person())
    page.clock.install()
    page.goto("/wallet")
    page.get_by_role("button", name=BIND).click()
    before = code(page)
    page.clock.run_for(301_000)
    expect(dialog(page).get_by_role("alert")).to_contain_text("did not answer in time")
    dialog(page).get_by_role("button", name="Make a new code").click()
    after = code(page)
    assert after != before
    background.run(phone.scan(after))
    phone.answers = False
    dialog(page).get_by_role("button", name=BIND).click()
    wait_for("the request", lambda: "qubic_sign" in phone.asked)
    page.clock.run_for(301_000)
    expect(dialog(page).get_by_role("alert")).to_contain_text("look at your wallet before you ask again")


def test_a_relay_that_goes_away_comes_back_to_the_same_code(
    background: Background, market: WebMarket, relay: RelayTwin, tabs: Tabs, phone: Phone
) -> None:
    tabs.allow(RELAY_AWAY)
    page = tabs.open(token=market.person())
    page.goto("/wallet")
    background.run(relay.stop())
    try:
        page.get_by_role("button", name=BIND).click()
        expect(dialog(page).get_by_role("status").first).to_contain_text("relay does not answer")
    finally:
        background.run(relay.start())
    dialog(page).get_by_role("button", name="Try now").click()
    uri = code(page)
    background.run(phone.close())
    background.run(relay.stop())
    expect(dialog(page).get_by_role("status").first).to_contain_text("relay does not answer")
    background.run(relay.start())
    background.run(phone.open())
    background.run(phone.scan(uri))
    expect(dialog(page)).to_contain_text("Connected with Qubic Wallet")
    dialog(page).get_by_role("button", name=BIND).click()
    expect(wallets(page).get_by_role("row")).to_have_count(2)


def test_a_relay_that_does_not_serve_the_market_says_so(
    background: Background, market: WebMarket, relay: RelayTwin, tabs: Tabs
) -> None:
    page = tabs.open(token=market.person())
    page.goto("/wallet")
    relay.serves = "another"
    try:
        page.get_by_role("button", name=BIND).click()
        expect(dialog(page).get_by_role("alert")).to_contain_text("does not serve this market")
    finally:
        relay.serves = PROJECT


def test_a_hostile_relay_changes_nothing(
    background: Background, market: WebMarket, relay: RelayTwin, tabs: Tabs, phone: Phone
) -> None:
    page = tabs.open(token=market.person())
    page.goto("/wallet")
    connect(page, background, phone, BIND)
    assert phone.session is not None
    topic, _ = phone.session
    forged = seal(os.urandom(32), {"id": 1, "jsonrpc": "2.0", "method": "wc_sessionDelete", "params": {}})
    for one in [*reversed(relay.seen), *relay.seen]:
        background.run(relay.say(topic, one.message))
    for message in (forged, "", "AA==", "no envelope", "A" * 2_000_000):
        background.run(relay.say(topic, message))
    dialog(page).get_by_role("button", name=BIND).click()
    expect(wallets(page).get_by_role("row")).to_have_count(2)
    assert bound(page) == [first(phone)]
    assert [one for one in phone.asked if one == "qubic_sign"] == ["qubic_sign"]
    for one in [*reversed(relay.seen), *relay.seen]:
        background.run(relay.say(topic, one.message))
    page.reload()
    for one in [*reversed(relay.seen), *relay.seen]:
        background.run(relay.say(topic, one.message))
    expect(wallets(page)).to_contain_text("Connected by WalletConnect: Qubic Wallet")
    assert bound(page) == [first(phone)]


class Impostor(WalletConnectWallet):
    """Signs with a key of its own for whatever account it is asked."""

    async def _sign(self, params: Mapping[str, Any]) -> dict[str, Any]:
        thief = WalletConnectWallet(THIEF_SEED)
        return await thief._sign({**params, "from": next(iter(thief.accounts))})


class Liar(WalletConnectWallet):
    """Names an account that it has no key for."""

    async def _request_accounts(self, _: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"address": Account(THIEF_SEED).identity, "name": "<b>Somebody else</b>", "amount": 1}]

    async def _sign(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return await super()._sign({**params, "from": next(iter(self.accounts))})


class Nonsense(WalletConnectWallet):
    """Answers with what is no signature."""

    async def _sign(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {"signature": "AAAA", "digest": None}


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Impostor, "signature"), (Liar, "signature"), (Nonsense, "cannot be right")],
    ids=["impostor", "liar", "nonsense"],
)
def test_a_hostile_wallet_binds_nothing(
    background: Background,
    market: WebMarket,
    relay: RelayTwin,
    tabs: Tabs,
    kind: type[WalletConnectWallet],
    words: str,
) -> None:
    tabs.allow(r"status of 4\d\d .*/wallet/bind")
    page = tabs.open(token=market.person())
    page.goto("/wallet")
    with opened(background, Phone(kind(seed(kind.__name__)), relay.url)) as phone:
        connect(page, background, phone, BIND)
        if kind is Liar:
            expect(dialog(page)).to_contain_text("<b>Somebody else</b>")
        dialog(page).get_by_role("button", name=BIND).click()
        expect(dialog(page).get_by_role("alert")).to_contain_text(words)
        assert bound(page) == []


def test_on_a_phone_the_code_is_a_link_to_the_wallet(market: WebMarket, tabs: Tabs) -> None:
    page = tabs.open(token=market.person(), size=PHONE, init=COARSE + axe())
    page.goto("/wallet")
    page.get_by_role("button", name=BIND).click()
    uri = code(page)
    link = dialog(page).get_by_role("link", name="Open Qubic Wallet")
    assert link.get_attribute("href") == f"qubic-wallet://pairwc/{uri}"
    assert violations(page) == []
    look(page, "phone")


def test_the_dialog_is_for_everybody(background: Background, market: WebMarket, tabs: Tabs, phone: Phone) -> None:
    """axe finds nothing in any of its states, light and dark; Escape closes it, and the focus is where it was."""
    page = tabs.open(token=market.person(), init=axe())
    page.goto("/wallet")
    button = wallets(page).get_by_role("button", name=BIND)
    button.focus()
    page.keyboard.press("Enter")
    uri = code(page)
    look(page, "code")
    assert violations(page) == []
    background.run(phone.scan(uri))
    expect(dialog(page)).to_contain_text("Main")
    look(page, "choose")
    assert violations(page) == []
    phone.answers = False
    dialog(page).get_by_role("button", name=BIND).click()
    expect(dialog(page)).to_contain_text("Confirm it in your wallet")
    look(page, "asking")
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(dialog(page)).to_have_count(0)
    expect(button).to_be_focused()


def look(page: Page, name: str) -> None:
    """A picture, for whoever names a folder for them."""
    if folder := os.environ.get("QUBIX_TEST_PICTURES"):
        page.screenshot(path=f"{folder}/walletconnect-{name}.png")
