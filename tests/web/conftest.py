# SPDX-License-Identifier: Apache-2.0
"""A real market and real Chromium for each file of tests.

A file says what it needs in module constants: `PARTS` of the market (see `tests.support.web_market`), and settings in
`ENV`. A test that leaves a complaint of a page behind fails; `tabs.allow` names those it brings about itself.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Page

from qubix_coordinator.http import pages
from tests.support import browser
from tests.support.browser import Browsers, Tabs
from tests.support.web_market import GATEWAY, VERIFIER, WebMarket

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture(scope="module")
def market(request: pytest.FixtureRequest) -> Iterator[WebMarket]:
    assert (pages.BUILT / "index.html").is_file(), "the web pages are not built: run `make setup`, and see what it says"
    # A short, reachable path: sockets have short names, and the database may run as another user.
    folder = Path(tempfile.mkdtemp(prefix="qx-"))
    folder.chmod(0o755)
    parts = getattr(request.module, "PARTS", (GATEWAY, VERIFIER))
    try:
        with WebMarket(folder, parts, **getattr(request.module, "ENV", {})) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def browsers() -> Iterator[Browsers]:
    before = set(psutil.Process().children(recursive=True))
    with browser.started() as found:
        yield found
    left = {one for one in set(psutil.Process().children(recursive=True)) - before if _is_browser(one)}
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive, "Chromium is left running"


def _is_browser(process: psutil.Process) -> bool:
    try:
        return any(name in " ".join(process.cmdline()) for name in ("chrom", "playwright"))
    except psutil.Error:
        return False


@pytest.fixture
def tabs(request: pytest.FixtureRequest, browsers: Browsers, market: WebMarket) -> Iterator[Tabs]:
    found = Tabs(browsers, market.url)
    yield found
    complaints = found.unexpected()
    try:
        if complaints or request.node.stash.get(_FAILED, False):
            said = f"screenshots and traces are in {found.keep(request.node.name)}\n\n{market.logs()}"
            request.node.add_report_section("teardown", "browser", said)
            assert not complaints, said
    finally:
        found.close()


@pytest.fixture
def page(tabs: Tabs, market: WebMarket) -> Page:
    """Signed in as the developer of this market."""
    return tabs.open(token=market.token)


@pytest.fixture
def gpu_page(tabs: Tabs, market: WebMarket) -> Page:
    """The same in a Chromium with WebGPU, of a fallback adapter."""
    return tabs.open(token=market.token, gpu=True)
