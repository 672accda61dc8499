# SPDX-License-Identifier: Apache-2.0
"""A person's whole story in a real browser, on a real market: sign in, pay in, find a GPU, run a job on it, watch it,
fetch its result, check its receipt. Others look on, lose their connection, and get it back."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from qubix import receipts
from qubix_node.offers import price
from qubix_protocol.arrays import to_npy
from tests.chain.vectors import SEED
from tests.support.browser import DEADLINE_MS, REFUSED_LATE, Tabs
from tests.support.chain_market import wait_for
from tests.support.devnet import held
from tests.support.wallet_double import ExtensionWallet, HttpNetwork
from tests.support.web_market import ALL, Line, WebMarket
from tests.web import places, reach

PARTS = ALL
ENV = {"QUBIX_REGIONS": "eu-west,us-east", "QUBIX_SESSION_CHECK_S": "1"}
CHEAP, DEAR, MOVED = 40_000, 90_000, 65_432
PAID_IN = 1_000_000
POINTS, QUERIES = 2_000, 300
COLUMNS = ["GPU", "VRAM", "QU/h", "Score", "Score per QU", "Reliability", "Location", "Network", "Back end"]
COLUMNS += ["Driver / CUDA", "Availability", "In use"]
NOISE_OF_A_CUT = "WebSocket connection|ERR_|Failed to load"


@pytest.fixture(scope="module", autouse=True)
def providers(market: WebMarket) -> tuple[str, str]:
    """Two nodes that differ in region and price; their peer ids."""
    cheap = market.start_quick_node("cheap", QUBIX_NODE_RATE_QU_PER_H=str(CHEAP), QUBIX_NODE_REGION="eu-west")
    dear = market.start_quick_node("dear", QUBIX_NODE_RATE_QU_PER_H=str(DEAR), QUBIX_NODE_REGION="us-east")
    return cheap, dear


def query(page: Page) -> str:
    return parse_qs(urlsplit(page.url).query).get("q", [""])[0]


def offers(page: Page) -> Locator:
    return page.get_by_role("region", name="Market").locator("tbody tr:not([aria-hidden])")


def columns_fit_and_sort(page: Page) -> None:
    """In a laptop's width, nothing is beyond the edge."""
    table = page.get_by_role("region", name="Market").first
    assert table.evaluate("(shown) => shown.scrollWidth <= shown.clientWidth")
    expect(table.get_by_role("button")).to_have_text(COLUMNS)
    for column in COLUMNS:
        by = table.get_by_role("button", name=column, exact=True)
        by.click()
        expect(by).to_have_attribute("aria-pressed", "true")
        expect(table.locator("[aria-sort=ascending], [aria-sort=descending]")).to_contain_text([column])
    for dearest in (offers(page).last, offers(page).first):
        table.get_by_role("button", name="QU/h").click()
        expect(dearest).to_contain_text(f"{DEAR:,}")


def balance(page: Page) -> int:
    found = re.search(r"([\d,]+) QU", page.get_by_role("banner").inner_text())
    assert found is not None
    return int(found[1].replace(",", ""))


def test_from_sign_in_to_a_checked_receipt(market: WebMarket, tabs: Tabs, tmp_path: Path) -> None:
    tabs.allow("status of 422 .*nonsense")
    wallet = ExtensionWallet(SEED, HttpNetwork(market.qubic_url))
    page = tabs.open(wallet=wallet)
    page.goto("/wallet")
    page.get_by_role("button", name="Sign in with the browser extension").click()
    _deposit(page, market, wallet)
    _find(page)
    _run(page, tmp_path)


def _deposit(page: Page, market: WebMarket, wallet: ExtensionWallet) -> None:
    """The page shows the identity, the wallet pays to it on the devnet, and the page shows the money by itself."""
    expect(page.get_by_role("banner")).to_contain_text("0 QU")
    identity = page.get_by_text(re.compile("^[A-Z]{60}$")).inner_text()
    faucet = {"identity": wallet.account.identity, "amount": 2 * PAID_IN}
    httpx.post(f"{market.qubic_url}/devnet/v1/faucet", json=faucet, timeout=30).raise_for_status()
    look = f"{market.qubic_url}/live/v1/balances/{wallet.account.identity}"
    wait_for("the wallet's own money", lambda: int(httpx.get(look).json()["balance"]["balance"]) >= 2 * PAID_IN)
    with held(market.qubic_url):
        page.evaluate(
            "async (given) => { await window.qubic.sendTransaction(given) }",
            {"toIdentity": identity, "amount": PAID_IN},
        )
    expect(page.get_by_role("banner")).to_contain_text(f"{PAID_IN:,} QU", timeout=2 * DEADLINE_MS)
    expect(page.get_by_role("region", name="Deposits")).to_contain_text(f"{PAID_IN:,}")


def _find(page: Page) -> None:
    """By a filter and by the query line, which are one thing and live in the address."""
    page.get_by_role("link", name="Market", exact=True).click()
    expect(offers(page)).to_have_count(2)
    page.get_by_role("combobox", name="Location", exact=True).select_option("us-east")
    expect(offers(page)).to_have_count(1)
    expect(offers(page)).to_contain_text(f"{DEAR:,}")
    assert query(page) == "region=us-east"
    line = page.get_by_role("searchbox", name="Search")
    expect(line).to_have_value("region=us-east")
    line.fill("price<50000 and gpu_ram>=1GiB")
    expect(offers(page)).to_contain_text([f"{CHEAP:,}"])
    assert query(page) == "price<50000 and gpu_ram>=1GiB"
    expect(page.get_by_role("combobox", name="Location", exact=True)).to_have_value("")
    page.reload()
    expect(line).to_have_value("price<50000 and gpu_ram>=1GiB")
    expect(offers(page)).to_have_count(1)
    line.fill("price<50000 and nonsense>=1")
    expect(page.get_by_role("alert")).to_contain_text("nonsense")
    line.fill("price<50000 and region=us-east")
    expect(page.get_by_role("heading", name="No offer matches")).to_be_visible()
    page.get_by_role("button", name="Leave it out").first.click()
    expect(offers(page)).to_have_count(1)
    page.goto("/?q=price<50000")
    expect(offers(page).get_by_role("link")).to_contain_text("(CPU)")
    offers(page).get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("(CPU)")


def _run(page: Page, folder: Path) -> None:
    page.get_by_role("link", name="Run one job here").click()
    rng = np.random.default_rng(6)
    data, queries = (rng.standard_normal((rows, 8), dtype=np.float32) for rows in (POINTS, QUERIES))
    page.get_by_role("combobox", name="Kernel").select_option("knn")
    page.get_by_role("spinbutton", name="k ").fill("3")
    for name, array in (("queries", queries), ("data", data)):
        file = FilePayload(name=f"{name}.npy", mimeType="application/octet-stream", buffer=to_npy(array))
        page.get_by_label(re.compile(f"^{name}: ")).set_input_files(file)
    page.get_by_role("button", name="Forecast").click()
    candidates = page.get_by_role("region", name="Who could run it")
    expect(candidates.get_by_role("row")).to_have_count(2)  # the head, and the provider that was chosen
    expect(candidates).to_contain_text(f"{CHEAP:,}")
    page.get_by_label("Cap, QU").fill("5000")
    page.get_by_role("button", name="Run it").click()
    page.wait_for_url(re.compile("/jobs/[0-9a-f-]{36}$"))
    expect(page.get_by_text("Done and paid")).to_be_visible(timeout=2 * DEADLINE_MS)
    expect(page.get_by_role("progressbar", name="Progress")).to_have_attribute("value", "100")
    distances = ((queries[:, None, :] - data[None]) ** 2).sum(-1)
    _receive(page, folder, np.argsort(distances, axis=1, kind="stable")[:, :3])


def _receive(page: Page, folder: Path, indices: "np.ndarray[Any, Any]") -> None:
    found = {}
    for name in ("indices", "distances"):
        with page.expect_download() as result:
            page.locator(f"a[download='{name}.npy']").click()
        result.value.save_as(folder / f"{name}.npy")
        found[name] = np.load(folder / f"{name}.npy")
    np.testing.assert_array_equal(found["indices"], indices)
    with page.expect_download() as receipt:
        page.get_by_role("region", name="Receipt").get_by_role("button", name="Download").click()
    receipt.value.save_as(folder / "job.receipt")
    key = page.request.get("/api/v1/network").json()["coordinator_key"]
    proved = receipts.verify((folder / "job.receipt").read_bytes(), key)
    assert proved.proof.job_id == urlsplit(page.url).path.rsplit("/", 1)[1]
    proved.check_result(found)
    view = page.request.get(f"/api/v1/jobs/{proved.proof.job_id}").json()
    assert view["paid_qu"] >= 1
    expect(page.get_by_role("banner")).to_contain_text(f"{PAID_IN - view['paid_qu'] - view['fee_qu']:,} QU")
    assert balance(page) == page.request.get("/api/v1/account").json()["balance_qu"]
    page.get_by_role("link", name="Jobs", exact=True).click()
    expect(page.get_by_role("row").filter(has_text="knn")).to_contain_text("Done and paid")


def test_others_see_a_change_at_once_and_after_a_lost_connection(market: WebMarket, tabs: Tabs) -> None:
    """Two more browsers: one whose line is cut meanwhile. Nobody loads the page again."""
    with Line(market.url) as line:
        whole, cut = (tabs.open(token=market.token, url=url) for url in (market.url, line.url))
        for page in (whole, cut):
            page.goto("/?q=region=eu-west")
            expect(offers(page)).to_contain_text([f"{CHEAP:,}"])
            page.evaluate("window.notLoadedAgain = true")
        tabs.allow(NOISE_OF_A_CUT)
        line.cut()
        expect(cut.get_by_role("banner")).to_contain_text("Reconnecting")
        price.announce(market.folder / "cheap" / "node", MOVED, CHEAP)
        expect(offers(whole)).to_contain_text([f"{MOVED:,}"])
        expect(offers(cut)).to_contain_text([f"{CHEAP:,}"])  # the last data stay, and the chip says how old they are
        expect(cut.get_by_role("banner")).to_contain_text("data of")
        line.mend()
        expect(cut.get_by_role("banner")).to_contain_text("Live")
        expect(offers(cut)).to_contain_text([f"{MOVED:,}"])
        assert rows(cut) == rows(whole)
        assert all(page.evaluate("window.notLoadedAgain") for page in (whole, cut))


def test_a_form_says_at_its_field_what_is_missing_or_wrong(market: WebMarket, tabs: Tabs) -> None:
    page = tabs.open(token=market.person())
    page.goto("/run?kernel=mandelbrot")
    width, forecast = page.get_by_role("spinbutton", name="width"), page.get_by_role("button", name="Forecast")
    for typed, wrong in (("", "valueMissing"), ("0", "rangeUnderflow"), ("1.5", "stepMismatch")):
        width.fill(typed)
        forecast.click()
        expect(width).to_be_focused()
        assert width.evaluate("(field, wrong) => field.validity[wrong]", wrong)
    width.fill("64")
    page.get_by_role("spinbutton", name="height").fill("64")
    forecast.click()
    cap = page.get_by_role("spinbutton", name="Cap")
    for typed, wrong in (("", "valueMissing"), ("0", "rangeUnderflow"), ("1.5", "stepMismatch")):
        cap.fill(typed)
        page.get_by_role("button", name="Run it").click()
        expect(cap).to_be_focused()
        assert cap.evaluate("(field, wrong) => field.validity[wrong]", wrong)


def test_a_visitor_looks_around_signs_in_where_they_stand_and_is_a_visitor_again_once_the_session_ends(
    market: WebMarket, tabs: Tabs
) -> None:
    tabs.allow(REFUSED_LATE)
    page = tabs.open(wallet=ExtensionWallet(SEED))
    page.goto("/")
    expect(page.get_by_role("region", name="Rent a GPU by the second")).to_be_visible()
    expect(page.get_by_role("navigation").get_by_role("link")).to_have_text(["Market", "Run", "Share my GPU"])
    expect(offers(page)).to_have_count(2)
    columns_fit_and_sort(page)
    page.get_by_role("searchbox").fill("region=us-east")
    expect(offers(page)).to_have_count(1)
    for rate in (DEAR + 2, DEAR):
        price.announce(market.folder / "dear" / "node", rate, DEAR)
        expect(offers(page)).to_contain_text([f"{rate:,}"])
    offers(page).get_by_role("link").click()
    for region in ("Specification", "Reliability", "Self-test"):
        expect(page.get_by_role("heading", name=region)).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("button", name="Rent it")).to_have_count(0)
    offer = page.url
    page.get_by_role("link", name="Sign in to rent it or run a job").click()
    page.get_by_role("button", name="Sign in with the browser extension").click()
    expect(page.get_by_role("button", name="Rent it")).to_be_visible()
    assert page.url == offer
    page.goto("/")
    expect(page.get_by_role("button", name="Your account")).to_be_visible()
    expect(page.get_by_role("banner")).to_contain_text("Live")
    expect(page.get_by_role("region", name="Rent a GPU by the second")).to_have_count(0)
    page.evaluate("window.notLoadedAgain = true")
    headers = {"Origin": market.url, "X-CSRF-Token": page.request.get("/api/v1/session").json()["csrf"]}
    page.request.delete("/api/v1/sessions?this_too=true", headers=headers)
    expect(page.get_by_role("region", name="Rent a GPU by the second")).to_be_visible(timeout=2 * DEADLINE_MS)
    expect(page.get_by_role("banner")).to_contain_text("Live")
    expect(offers(page)).to_have_count(2)
    assert page.evaluate("window.notLoadedAgain")
    for elsewhere in ("//example.org/", "/\\example.org", "https://example.org/"):
        page.goto(f"/signin?to={elsewhere}")
        page.get_by_role("button", name="Sign in with the browser extension").click()
        expect(page).to_have_url(f"{market.url}/")
        page.get_by_role("button", name="Your account").click()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("region", name="Rent a GPU by the second")).to_be_visible()


def test_a_page_that_was_opened_without_its_market_learns_who_is_signed_in_once_it_answers(
    market: WebMarket, tabs: Tabs
) -> None:
    tabs.allow(NOISE_OF_A_CUT)
    page = tabs.open(token=market.person())
    page.route("**/api/v1/**", lambda route: route.abort())
    page.goto("/run")
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    expect(page.get_by_role("button", name="Your account")).to_have_count(0)
    page.evaluate("window.notLoadedAgain = true")
    page.unroute("**/api/v1/**")
    page.get_by_role("button", name="Your account").click()
    expect(page.get_by_role("combobox", name="Kernel")).to_contain_text("matmul")
    page.route("**/api/v1/**", lambda route: route.abort())
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    page.unroute("**/api/v1/**")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.evaluate("window.notLoadedAgain")


def test_a_half_filled_form_waits_for_its_owner_and_for_nobody_else_and_all_tabs_know_who_is_here(
    market: WebMarket, tabs: Tabs
) -> None:
    tabs.allow(REFUSED_LATE)
    token, other = market.person(), market.person()
    page = tabs.open(token=token)
    page.goto("/run?kernel=montecarlo_option")
    beside = page.context.new_page()
    beside.goto("/account")
    for one in (page, beside):
        expect(one.get_by_role("button", name="Your account")).to_be_visible()
        one.evaluate("window.notLoadedAgain = true")
    seed = page.get_by_role("spinbutton", name="seed")

    def sign_out() -> None:
        beside.bring_to_front()
        beside.get_by_role("button", name="Your account").click()
        beside.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        expect(seed).to_be_hidden()

    def sign_in(token: str) -> None:
        beside.get_by_label("Token").fill(token)
        beside.get_by_role("button", name="Sign in", exact=True).click()
        for one in (page, beside):
            expect(one.get_by_role("button", name="Your account")).to_be_visible()

    seed.fill("1234")
    for whose, kept in ((token, "1234"), (other, "")):
        sign_out()
        sign_in(whose)
        expect(seed).to_have_value(kept)
    for one in (page, beside):
        assert one.evaluate("window.notLoadedAgain")


def test_a_page_connects_again_when_its_machine_has_slept(market: WebMarket, tabs: Tabs) -> None:
    """The line may be dead by then, without a word, while nothing of the page has changed."""
    page = tabs.open()
    page.clock.install()
    page.goto("/")
    expect(page.get_by_role("banner")).to_contain_text("Live")
    with page.expect_websocket() as line:
        page.clock.fast_forward("01:00:00")
    assert line.value.url.endswith("/live")
    expect(page.get_by_role("banner")).to_contain_text("Live")


def rows(page: Page) -> list[list[str]]:
    """Device, memory and price, which do not move by themselves."""
    return [row.locator("td:nth-child(-n+2)").all_inner_texts() for row in offers(page).all()]


@pytest.mark.slow
def test_axe_finds_nothing_on_any_page_dark_or_light(market: WebMarket, tabs: Tabs) -> None:
    tabs.allow("status of 404 .*/offers/0000|status of 422 .*prize")
    made = places.make(market)
    pages = {who: tabs.open(token=token, init=reach.axe()) for who, token in made.tokens.items()}
    found = []
    for place in made.places():
        page = pages[place.who]
        place.open(page)
        found += [f"{place.name}: {one}" for one in reach.violations(page)]
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_the_keyboard_alone_suffices(market: WebMarket, tabs: Tabs) -> None:
    """From the market over an offer to a job that is done; each stop on the way is seen to have the focus."""
    page = tabs.open(token=market.person(PAID_IN))
    page.goto("/?q=region=eu-west")
    expect(offers(page)).to_have_count(1)
    reach.tab_to(page, "Skip to the content")
    page.keyboard.press("Enter")
    reach.tab_to(page, "Search")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("price<70000")
    expect(page).to_have_url(re.compile(r"q=price%3C70000"))
    reach.tab_to(page, "VRAM")
    reach.tab_to(page, offers(page).get_by_role("link").inner_text().strip())
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Specification")).to_be_visible()
    reach.tab_to(page, "Run one job here")
    page.keyboard.press("Enter")
    reach.tab_to(page, "Kernel")
    page.keyboard.type("Mandel")
    for name, value in (("width", "64"), ("height", "48")):
        reach.tab_to(page, name)
        page.keyboard.type(value)
    reach.tab_to(page, "Forecast")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Who could run it")).to_be_visible()
    reach.tab_to(page, "Run it")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Done and paid")).to_be_visible(timeout=2 * DEADLINE_MS)
    reach.tab_to(page, "All jobs", key="Shift+Tab")


@pytest.mark.slow
def test_the_coordinator_is_killed_and_the_page_goes_on(market: WebMarket, tabs: Tabs) -> None:
    page = tabs.open(token=market.token)
    page.goto("/?q=region=us-east")
    expect(offers(page)).to_contain_text([f"{DEAR:,}"])
    page.evaluate("window.notLoadedAgain = true")
    tabs.allow(NOISE_OF_A_CUT)
    market.parts["coordinator"].kill()
    expect(page.get_by_role("banner")).to_contain_text("Reconnecting")
    expect(offers(page)).to_have_count(1)
    market.start_coordinator()
    expect(page.get_by_role("banner")).to_contain_text("Live", timeout=2 * DEADLINE_MS)
    price.announce(market.folder / "dear" / "node", DEAR + 1, DEAR)
    expect(offers(page)).to_contain_text([f"{DEAR + 1:,}"], timeout=4 * DEADLINE_MS)
    assert page.evaluate("window.notLoadedAgain")
