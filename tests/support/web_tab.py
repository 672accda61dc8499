# SPDX-License-Identifier: Apache-2.0
"""A provider in a tab of real Chromium, on a page of the market's own: its code is built as the pages are, and runs
under their policy."""

import mimetypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Route

from tests.support.browser import Tabs

DEADLINE_S: Final = 60.0
AT: Final = "/tab-for-tests/"


class SharingTab:
    """`folder` is what `web_gpu.build` made."""

    def __init__(self, tabs: Tabs, folder: Path, token: str, **settings: Any) -> None:
        self._folder = folder
        self.settings = {"rateQuPerHour": 360_000, "throttle": 1.0, **settings}
        self.page = tabs.open(gpu=True, token=token)
        self.page.context.route(f"**{AT}**", self._serve)

    def _serve(self, route: Route) -> None:
        path = self._folder / urlsplit(route.request.url).path.removeprefix(AT)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        route.fulfill(body=path.read_bytes(), content_type=kind)

    def load(self) -> None:
        self.page.goto("/")
        self._add()

    def _add(self) -> None:
        """The page itself must be the server's: Chromium lets pages of nowhere speak to nobody on this machine."""
        (script,) = self._folder.glob("assets/provider-*.js")
        self.page.add_script_tag(url=f"{AT}assets/{script.name}", type="module")

    def start(self) -> None:
        self.page.evaluate("(settings) => sharing.start(settings)", self.settings)

    def reload(self) -> None:
        """As a person does who presses F5 and shares again."""
        self.page.reload()
        self._add()
        self.start()

    def again(self) -> None:
        """In another tab of the same browser, which keeps what this one kept."""
        self.page = self.page.context.new_page()
        self.load()
        self.start()

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.page.evaluate("sharing.state")
        return found

    def until(self, what: Callable[[dict[str, Any]], object], *, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """Asked from outside: the policy lets nothing be evaluated inside."""
        end = time.monotonic() + deadline_s
        while not what(state := self.state):
            assert time.monotonic() < end, f"what was waited for did not come: {state}"
            time.sleep(0.05)
        return state

    def call(self, expression: str) -> Any:
        """Of the provider, such as `pause()`; waits for what it promises."""
        return self.page.evaluate(f"sharing.provider.{expression}")
