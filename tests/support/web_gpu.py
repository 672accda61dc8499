# SPDX-License-Identifier: Apache-2.0
"""A tab's worker, spoken to from Python: built as the market's pages are, served under their policy."""

import contextlib
import http.server
import subprocess
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from playwright.sync_api import Page

from qubix_coordinator.http.pages import policy
from qubix_protocol.arrays import Array
from tests.support.scripts import script

ROOT: Final = Path(__file__).resolve().parents[2]


def references() -> ModuleType:
    return script("web_references")


def build(folder: Path) -> None:
    npm, env = script("web_build").npm_command()
    words = [*npm, "exec", "--", "vite", "build", "-c", "vite.conformance.config.ts", "--outDir", str(folder)]
    done = subprocess.run(words, cwd=ROOT / "web", env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class _Served(http.server.SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", policy())
        super().end_headers()

    def log_message(self, *args: object) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Served, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Worker:
    """The worker of one page. What it refuses is `Failed`."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def run(
        self, kernel: str, inputs: Mapping[str, Array], params: Mapping[str, Any], units: tuple[int, int]
    ) -> dict[str, Array]:
        packed, unpacked = references().packed, references().unpacked
        given = {name: packed(array) for name, array in inputs.items()}
        asked = [kernel, dict(params), given, {"start": units[0], "stop": units[1]}]
        found = _done(self.page.evaluate("(asked) => conformance.run(...asked)", asked))
        return {name: unpacked(one) for name, one in found.items()}

    def ask(self, call: str) -> Any:
        """`call` is an expression of JavaScript, such as `gpu.info()`."""
        return _done(self.page.evaluate(f"(() => {{ const {{ gpu, told }} = conformance; return told({call}); }})()"))


class Failed(Exception):
    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.remedy = code, message, remedy


def _done(told: Mapping[str, Any]) -> Any:
    if "failed" in told:
        raise Failed(told["failed"], told["message"], told["remedy"])
    return told["done"]
