# SPDX-License-Identifier: Apache-2.0
"""`make screenshots`: every page of the web marketplace with real things on it, at three widths, light and dark, into
build/screenshots. The market is started here, and is gone afterwards. `--only PART` takes pages whose name has it;
`--keep` says where the market is and leaves it running until Enter."""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import Page

from tests.support import browser, nvml
from tests.support.browser import Tabs
from tests.support.web_market import ALL, WebMarket
from tests.web.places import Made, Place, make

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "build" / "screenshots"
SIZES: Final = ((390, 844), (1280, 800), (1920, 1080))
SCHEMES: Final = ("light", "dark")
TALL_MAX: Final = 4_000
SETTLED_MS: Final = 400
"""Charts are drawn once their holder's width is known."""
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
        with WebMarket(folder, ALL, QUBIX_REGIONS="eu-west,us-east") as market:
            made = _furnished(market)
            with browser.started() as browsers:
                tabs = Tabs(browsers, market.url)
                taken = _take(tabs, made, options.only)
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


def _take(tabs: Tabs, made: Made, only: str) -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    pages = {who: tabs.open(token=token) for who, token in made.tokens.items()}
    chosen = [place for place in made.places() if only in place.name]
    for place in chosen:
        for size in SIZES:
            _shoot(pages[place.who], place, size)
    return len(chosen) * len(SIZES) * len(SCHEMES)


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
