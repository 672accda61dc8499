# SPDX-License-Identifier: Apache-2.0
"""`make screenshots`: every page of the web marketplace with real things on it, at three widths, light and dark, into
build/screenshots. The market is started here, and is gone afterwards. `--only PART` takes pages whose name has it;
`--keep` says where the market is and leaves it running until Enter."""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from playwright.sync_api import Page, expect

import qubix
from tests.support import browser, nvml
from tests.support.browser import Tabs
from tests.support.chain_market import wait_for
from tests.support.web_market import ALL, WebMarket
from tests.web.places import DEVELOPER, PROVIDER, Made, Place, make

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "build" / "screenshots"
SIZES: Final = ((390, 844), (1280, 800), (1920, 1080))
SCHEMES: Final = ("light", "dark")
TALL_MAX: Final = 4_000
SETTLED_MS: Final = 400
"""Charts are drawn once their holder's width is known."""
SETTINGS: Final = {
    "QUBIX_REGIONS": "eu-west,us-east",
    "QUBIX_ALLOW_FALLBACK_ADAPTERS": "true",
}
FRESH: Final = (Place("market fresh", "/", "Nothing is offered yet"),)
LONG: Final = {"width": 8_000, "height": 8_000, "pixel": 0.0004, "max_iterations": 5_000}
WIDE: Final = 2_560
"""Of a product that takes the software adapter as long as its photographs take."""
NODES: Final = (
    ("cheap", 40_000, "eu-west", "DE"),
    ("dear", 90_000, "us-east", "US"),
    ("third", 62_500, "eu-west", "FI"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="screenshots", description=__doc__)
    parser.add_argument("--only", default="", help="pages whose name has this in it")
    parser.add_argument("--keep", action="store_true", help="wait for Enter before the market ends")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="qx-"))
    folder.chmod(0o755)
    try:
        with WebMarket(folder, ALL, **SETTINGS) as market, browser.started() as browsers:
            tabs = Tabs(browsers, market.url)
            taken = _take(tabs, Made({DEVELOPER: market.token}, "", "", ""), FRESH, options.only)
            made = _furnished(market)
            # What goes by itself comes first: a job ends.
            taken += _take(tabs, made, [*_under_way(market, made), *made.places()], options.only)
            taken += _shared(market, tabs, options.only)
            tabs.close()
            print(f"{taken} screenshots in {FOLDER}")
            if options.keep:
                input(f"The market is at {market.url}, its data in {market.folder}. Enter ends it. ")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _furnished(market: WebMarket) -> Made:
    for name, rate, region, country in NODES:
        told = {"QUBIX_NODE_RATE_QU_PER_H": str(rate), "QUBIX_NODE_REGION": region, "QUBIX_NODE_COUNTRY": country}
        # One measures itself in earnest: all kernels have somebody who runs them.
        (market.start_node if name == "third" else market.start_quick_node)(name, **told)
    gauges = market.folder / "gauges"
    nvml.write(gauges, {"count": 1, "temp": 61, "util": 38})
    stub = {"STUB_LIBRARY": str(nvml.build(market.folder)), "STUB_GAUGES": str(gauges)}
    market.start_node("card", "tests.support.card_node", QUBIX_NODE_DEVICES="auto", **stub)
    return make(market)


def _under_way(market: WebMarket, made: Made) -> list[Place]:
    """A job that runs, a rental, and a dispute. In a thread, since Playwright's loop runs here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_begun, market, made).result()


def _begun(market: WebMarket, made: Made) -> list[Place]:
    with qubix.Client(market.url, token=market.token, data_dir=market.folder / "client") as api:
        rental = api.rent(seconds=3_600, provider=market.parts["dear"].info["peer_id"])
        rental.wait_started()
        job = api.submit("mandelbrot", cap_qu=200_000, provider=market.parts["third"].info["peer_id"], params=LONG)
        wait_for("the job to run", lambda: job.refresh().state == "running")
        dispute = api.disputes.open(made.job, "The colours of the picture are not those that were asked for.")
    return [
        Place("job running", f"/jobs/{job.id}", "Running"),
        Place("rental running", "/rentals", "Running"),
        Place("dispute", f"/disputes/{dispute.dispute_id}", "The colours"),
        Place("disputes open", "/disputes", "mandelbrot"),
        Place("provider dispute", f"/disputes/{dispute.dispute_id}", "Your answer", PROVIDER),
    ]


def _shared(market: WebMarket, tabs: Tabs, only: str) -> int:
    """A tab that shares Chromium's own renderer in a card's place, waits for a job, and runs one."""
    if only not in "share listed, share running":
        return 0
    page = tabs.open(token=market.token, gpu=True)
    page.goto("/share")
    page.get_by_role("button", name="Share this GPU").click()
    expect(page.get_by_text("Everything that was looked at")).to_be_visible(timeout=4 * browser.DEADLINE_MS)
    taken = _shots(page, Place("share listed", "/share", "waiting for work", stay=True))
    peer = page.evaluate("document.querySelector('a[href^=\"/offers/\"]').pathname.slice(8)")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_work, market, peer).result()
    return taken + _shots(page, Place("share running", "/share", "Running a job", stay=True))


def _work(market: WebMarket, listing_id: str) -> None:
    with qubix.Client(market.url, token=market.token, data_dir=market.folder / "client") as api:
        peer = next(one.provider for one in api.offers() if one.listing_id == listing_id)
        a = np.random.default_rng(0).standard_normal((WIDE, WIDE), dtype=np.float32)
        job = api.submit("matmul", a=a, b=a, cap_qu=200_000, provider=peer)
        wait_for("the job to run", lambda: job.refresh().state == "running")


def _take(tabs: Tabs, made: Made, places: Sequence[Place], only: str) -> int:
    pages = {who: tabs.open(token=token) for who, token in made.tokens.items()}
    return sum(_shots(pages[place.who], place) for place in places if only in place.name)


def _shots(page: Page, place: Place) -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for size in SIZES:
        _shoot(page, place, size)
    return len(SIZES) * len(SCHEMES)


def _shoot(page: Page, place: Place, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    place.open(page)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        page.wait_for_timeout(SETTLED_MS)
        height = min(TALL_MAX, max(size[1], int(page.evaluate("document.documentElement.scrollHeight"))))
        page.set_viewport_size({"width": size[0], "height": height})
        page.screenshot(path=FOLDER / f"{place.name.replace(' ', '-')}-{size[0]}-{scheme}.png")
        page.set_viewport_size({"width": size[0], "height": size[1]})
        wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if wider > 0:
            print(f"{place.name} at {size[0]} px is {wider} px too wide")


if __name__ == "__main__":
    main()
