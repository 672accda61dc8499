# SPDX-License-Identifier: Apache-2.0
"""The system's Chromium, driven by Playwright. What a page complains of is kept: errors on its console, exceptions and
rejections that nobody caught, and whatever its policy refused."""

import asyncio
import contextlib
import re
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from playwright.sync_api import Browser, BrowserContext, Page, Playwright, ViewportSize, expect, sync_playwright

from tests.support.wallet_double import ExtensionWallet, WalletError

T = TypeVar("T")
COMMANDS: Final = ("chromium", "chromium-browser", "google-chrome")
WEBGPU: Final = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
"""WebGPU by Chromium's own renderer on the CPU, whatever cards the machine has: a fallback adapter."""
FLAGS: Final = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
DEADLINE_MS: Final = 30_000
"""Ten times and more what is expected."""
DESKTOP: Final = (1280, 800)
PHONE: Final = (390, 844)
REFUSED_LATE: Final = "status of 401"
"""What a page asked for just before its session ended, and the market hears of just after: no fault of either."""

_POLICY = """
addEventListener('securitypolicyviolation', (event) =>
  console.error(`policy: ${event.violatedDirective} refuses ${event.blockedURI} ${event.sourceFile ?? ''}`));
"""
_EXTENSION = """
{
  const ask = async (name, given) => {
    const told = await window.qubixTestWallet(name, given ?? null);
    if (told.error) throw Object.assign(new Error(told.error.message), { code: told.error.code });
    return told.answer;
  };
  const names = ['connect', 'disconnect', 'getAccount', 'signMessage', 'signTransaction', 'sendTransaction'];
  window.qubic = { isQubic: true, ...Object.fromEntries(names.map((name) => [name, (given) => ask(name, given)])) };
}
"""


class NoBrowser(Exception):
    """Its text says what to install."""


def executable() -> str:
    for command in COMMANDS:
        if found := shutil.which(command):
            return found
    raise NoBrowser("These tests drive Chromium, and there is none. Debian, Ubuntu: apt-get install chromium")


class Browsers:
    """One Chromium with WebGPU and one without, each started when it is first wanted."""

    def __init__(self, playwright: Playwright) -> None:
        self._playwright = playwright
        self._running: dict[bool, Browser] = {}

    def get(self, *, gpu: bool = False) -> Browser:
        if gpu not in self._running:
            flags = [*FLAGS, *(WEBGPU if gpu else ())]
            self._running[gpu] = self._playwright.chromium.launch(executable_path=executable(), args=flags)
        return self._running[gpu]

    def kept(self, folder: Path) -> tuple[BrowserContext, int]:
        """A Chromium of its own with its profile in `folder`, and the port by which another program drives it too."""
        port_file = folder / "DevToolsActivePort"
        context = self._playwright.chromium.launch_persistent_context(
            folder, executable_path=executable(), args=[*FLAGS, "--remote-debugging-port=0"]
        )
        return context, int(port_file.read_text().split()[0])

    def close(self) -> None:
        for browser in self._running.values():
            browser.close()


@contextlib.contextmanager
def started() -> Iterator[Browsers]:
    """Playwright's loop counts as running in this thread meanwhile: nothing else of asyncio can run in it."""
    expect.set_options(timeout=DEADLINE_MS)
    with sync_playwright() as playwright:
        browsers = Browsers(playwright)
        try:
            yield browsers
        finally:
            browsers.close()


class Tabs:
    """The pages of one test, each in a context of its own: nothing is shared but the market."""

    def __init__(self, browsers: Browsers, url: str) -> None:
        self._browsers, self.url = browsers, url.rstrip("/")
        self._open: list[tuple[BrowserContext, Page]] = []
        self._allowed: list[re.Pattern[str]] = []
        self.complaints: list[str] = []

    def open(
        self,
        *,
        token: str = "",
        wallet: ExtensionWallet | None = None,
        gpu: bool = False,
        dark: bool = False,
        size: tuple[int, int] = DESKTOP,
        url: str = "",
        init: str = "",
    ) -> Page:
        """A page that is at no address yet, but knows the market's: `page.goto("/")`. With a token it is signed in;
        with a wallet it has an extension; `init` runs before the scripts of each page."""
        base = (url or self.url).rstrip("/")
        context = self._browsers.get(gpu=gpu).new_context(
            base_url=base,
            viewport=ViewportSize(width=size[0], height=size[1]),
            color_scheme="dark" if dark else "light",
            locale="en",
            timezone_id="UTC",
            reduced_motion="reduce",
            accept_downloads=True,
        )
        context.set_default_timeout(DEADLINE_MS)
        context.tracing.start(snapshots=True)
        context.add_init_script(_POLICY)
        if wallet is not None:
            context.expose_function("qubixTestWallet", _asker(wallet))
            context.add_init_script(_EXTENSION)
        if init:
            context.add_init_script(init)
        if token:
            sign_in(context, base, token)
        page = context.new_page()
        self._listen(page)
        context.on("page", self._listen)
        self._open.append((context, page))
        return page

    def allow(self, pattern: str) -> None:
        """A complaint that the test brings about itself: a regular expression over its text and address."""
        self._allowed.append(re.compile(pattern))

    def _listen(self, page: Page) -> None:
        page.on("pageerror", lambda error: self._hear(f"uncaught: {error}"))
        page.on("crash", lambda _: self._hear("the page crashed"))
        page.on(
            "console",
            lambda said: self._hear(f"{said.text} {said.location['url']}") if said.type == "error" else None,
        )

    def _hear(self, text: str) -> None:
        self.complaints.append(text)

    def unexpected(self) -> list[str]:
        return [text for text in self.complaints if not any(one.search(text) for one in self._allowed)]

    def keep(self, name: str) -> Path:
        """A screenshot and a trace of each page, in a folder that stays."""
        folder = Path(tempfile.mkdtemp(prefix=f"qubix-{re.sub(r'[^a-z0-9]+', '-', name.lower())[:60]}-"))
        for number, (context, page) in enumerate(self._open, 1):
            with contextlib.suppress(Exception):
                page.screenshot(path=folder / f"{number}.png", timeout=5_000)
            with contextlib.suppress(Exception):
                context.tracing.stop(path=folder / f"{number}.trace.zip")
        return folder

    def close(self) -> None:
        for context, _ in self._open:
            context.close()
        self._open.clear()


def sign_in(context: BrowserContext, url: str, token: str) -> None:
    """By the market's own door for pages: the token goes into a cookie that no script reads."""
    answer = context.request.post(f"{url}/api/v1/session", data={"token": token}, headers={"Origin": url})
    assert answer.status == 201, answer.text()


def _asker(wallet: ExtensionWallet) -> Callable[[str, Any], dict[str, Any]]:
    def ask(name: str, given: Any) -> dict[str, Any]:
        call = getattr(wallet, name)
        try:
            return {"answer": _finished(call() if given is None else call(given))}
        except WalletError as refused:
            return {"error": {"code": refused.code, "message": refused.message}}

    return ask


def _finished(work: Coroutine[Any, Any, T]) -> T:
    """In a thread, since Playwright's loop runs in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
