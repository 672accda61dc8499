# SPDX-License-Identifier: Apache-2.0
"""Every page of the web marketplace, with real things on it: what axe and the screenshots look at."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from playwright.sync_api import FilePayload, Page, expect

import qubix
from qubix_kernels import get
from qubix_protocol.keys import SigningKey
from tests.support.chain_market import wait_for
from tests.support.funds import fund_by_faucet, fund_market
from tests.support.web_market import WebMarket

FUNDS = 2_000_000
DEVELOPER, PROVIDER, NOBODY = "developer", "provider", ""
MANDELBROT = {"width": 360, "height": 240, "pixel": 0.0085, "top": 1.02, "left": -2.2, "max_iterations": 400}


class Place(NamedTuple):
    """`shows` is a text that is there once the page has what it asked for, and `after` is done then;
    `stay`: the page is there already."""

    name: str
    path: str
    shows: str
    who: str = DEVELOPER
    after: Callable[[Page], None] | None = None
    stay: bool = False

    def open(self, page: Page) -> None:
        if not self.stay:
            page.goto(self.path)
        expect(page.get_by_text(self.shows).locator("visible=true").first).to_be_visible()
        if self.after is not None:
            self.after(page)
        expect(page.locator(".skeleton")).to_have_count(0)
        page.evaluate("document.fonts.ready.then(() => true)")


@dataclass
class Made:
    """What was done on the market, and the tokens of those who look at it, by their names."""

    tokens: dict[str, str]
    offer: str
    job: str
    failed: str
    more: list[Place] = field(default_factory=list)

    def places(self) -> list[Place]:
        return [
            Place("visitor", "/", "offers", NOBODY),
            Place("visitor offer", f"/offers/{self.offer}", "Specification", NOBODY),
            Place("sign in", "/signin", "Sign in", NOBODY),
            Place("market", "/", "offers"),
            Place("market none", "/?q=price<1", "No offer matches"),
            Place("market wrong", "/?q=prize<1", "prize"),
            Place("offer", f"/offers/{self.offer}", "Specification"),
            Place("offer gone", "/offers/00000000-0000-0000-0000-000000000000", "not in the market"),
            Place("run", "/run?kernel=mandelbrot", "columns"),
            Place("run model", "/run?kernel=onnx", "Drop an .onnx file"),
            Place("run model card", "/run?kernel=onnx", "Drop an .onnx file", after=_forecast_model),
            Place("run model refused", "/run?kernel=onnx", "Drop an .onnx file", after=_refused_model),
            Place("jobs", "/jobs", "mandelbrot"),
            Place("job", f"/jobs/{self.job}", "Done and paid"),
            Place("job failed", f"/jobs/{self.failed}", "Failed"),
            Place("rentals", "/rentals", "Ended"),
            Place("provider", "/provider", "mandelbrot", PROVIDER),
            Place("provider empty", "/provider", "Provider"),
            Place("wallet", "/wallet", "Statement"),
            Place("disputes", "/disputes", "Disputes"),
            Place("operator", "/operator", "Operator"),
            Place("account", "/account", "Tokens"),
            Place("share", "/share", "native worker"),
            Place("missing", "/jobs/nowhere", "no such page"),
            *self.more,
        ]


def _choose_model(page: Page, data: bytes) -> None:
    file = FilePayload(name="classifier.onnx", mimeType="application/octet-stream", buffer=data)
    page.get_by_label("Model file (.onnx)").set_input_files(file)


def _forecast_model(page: Page) -> None:
    inputs, _ = get("onnx").example(np.random.default_rng(1), 1)
    _choose_model(page, inputs["model"].tobytes())
    page.get_by_role("group", name="How x is given").get_by_role("button", name="Noise").click()
    page.get_by_role("button", name="Forecast").click()
    expect(page.get_by_role("region", name="Who could run it")).to_be_visible()


def _refused_model(page: Page) -> None:
    _choose_model(page, b"PK no model")
    expect(page.get_by_text("Cannot be run")).to_be_visible()


def make(market: WebMarket, node: str = "cheap") -> Made:
    """Jobs and a rental on the node of that name, by the developer. In a thread, since Playwright's loop runs here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_make, market, node).result()


def _make(market: WebMarket, node: str) -> Made:
    with qubix.Client(market.url, token=market.token, data_dir=market.folder / "client") as api:
        if market.qubic_url:
            fund_by_faucet(api, market.qubic_url, FUNDS)
        else:
            fund_market(market, api, FUNDS)
        peer = market.parts[node].info["peer_id"]
        offer = wait_for("the node's offer", lambda: [one for one in api.offers() if one.provider == peer])[0]
        job = api.submit("mandelbrot", cap_qu=50_000, provider=peer, params=MANDELBROT)
        job.result(timeout_s=120)
        spoilt = np.full((64, 8), np.nan, dtype=np.float32)
        failed = api.submit("knn", queries=spoilt, data=spoilt, k=1, cap_qu=500, provider=peer)
        failed.wait(120)
        wait_for("the device to be free", lambda: api.offers("availability=available", provider=peer))
        with api.rent(seconds=120, provider=peer) as rental:
            rental.wait_started()
        key = SigningKey((market.folder / node / "node.key").read_bytes())
    with qubix.Client(market.url, token="", data_dir=market.folder / "owner") as owner:
        token = owner.sign_in_by_key(key).token
    return Made({DEVELOPER: market.token, PROVIDER: token, NOBODY: ""}, offer.listing_id, job.id, failed.id)
