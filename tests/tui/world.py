# SPDX-License-Identifier: Apache-2.0
"""The terminal in front of a coordinator's twin: real sockets, a live feed that a test writes, screens read as text."""

import asyncio
import contextlib
import difflib
import os
import queue
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.style import Style
from textual.pilot import Pilot
from textual.widgets import Input

from qubix_protocol.api import ListingView
from qubix_protocol.messages import Sample
from qubix_protocol.states import Availability, DeviceKind
from qubix_tui.app import QubixApp
from qubix_tui.mesh.heard import OpenWatch
from qubix_tui.settings import Settings
from tests.support.fake_api import TOKEN, FakeApi, listing

DEADLINE_S = 20.0
SMALL, LARGE = (80, 24), (200, 50)


class Line:
    """What a connection of the live feed is told, as the test goes along. `cut` ends it."""

    def __init__(self) -> None:
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._cursor = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (event := self._queue.get(timeout=60)) is not None:
            yield event

    def send(self, topic: str, kind: str, data: Any) -> None:
        self._cursor += 1
        event = {"topic": topic, "kind": kind, "cursor": f"{self._cursor}.0", "data": msgspec.to_builtins(data)}
        self._queue.put(event)

    def cut(self) -> None:
        self._queue.put(None)


class Clock:
    """Monotonic, and moved by the test."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def settings(api_url: str, folder: Path, **more: Any) -> Settings:
    given: dict[str, Any] = {"coordinator_url": api_url, "token": TOKEN, "data_dir": folder, "tries_max": 1, **more}
    return Settings(**given)


@contextlib.asynccontextmanager
async def terminal(
    found: Settings,
    size: tuple[int, int] = SMALL,
    clock: Callable[[], float] | None = None,
    open_watch: OpenWatch | None = None,
) -> AsyncGenerator[tuple[QubixApp, Pilot[None]], None]:
    app = QubixApp(found, clock=clock or time.monotonic, open_watch=open_watch)
    async with app.run_test(size=size, notifications=True) as pilot:
        yield app, pilot


@contextlib.asynccontextmanager
async def market(
    api: FakeApi,
    folder: Path,
    size: tuple[int, int] = SMALL,
    clock: Callable[[], float] | None = None,
    offers: Sequence[ListingView] | None = None,
    **more: Any,
) -> AsyncGenerator[tuple[QubixApp, Pilot[None], Line], None]:
    """The terminal with a live feed, told of `offers` where there are some. The feed ends before the terminal does:
    nothing waits for anybody."""
    line = Line()
    api.live.append(line)
    async with terminal(settings(api.url, folder, **more), size, clock) as (app, pilot):
        try:
            if offers is not None:
                line.send("market", "snapshot", offers)
                await until(pilot, lambda: len(app.book.entries) == len(offers))
            yield app, pilot, line
        finally:
            line.cut()
            await app.tasks.stop()


def text(app: QubixApp) -> str:
    """The screen as a person reads it, without trailing blanks."""
    return "\n".join("".join(part.text for part in line).rstrip() for line in _drawn(app))


def styles(app: QubixApp) -> list[Style]:
    return [part.style for line in _drawn(app) for part in line if part.style is not None]


def _drawn(app: QubixApp) -> Sequence[Any]:
    found: Sequence[Any] = app.screen._compositor.render_strips()
    return found


async def until(
    pilot: Pilot[None], holds: Callable[[], object], what: str = "", deadline_s: float = DEADLINE_S
) -> None:
    """Goes on as soon as it holds."""
    end_s = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < end_s, f"{what or 'it'} did not come about:\n{text(pilot.app)}"  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        await pilot.pause()


async def shows(pilot: Pilot[None], *words: str) -> None:
    """Until the screen shows all of them."""
    await until(pilot, lambda: all(word in text(pilot.app) for word in words), f"all of {words}")  # type: ignore[arg-type]


async def gone(pilot: Pilot[None], words: str) -> None:
    """Until a window that says them is closed."""
    await until(pilot, lambda: words not in text(pilot.app), f"no {words!r}")  # type: ignore[arg-type]


async def fill(pilot: Pilot[None], **values: str) -> None:
    """As typing does, without a key for each letter: field by field of the screen in front, once they are there."""
    fields = {f"#{name.replace('_', '-')}": value for name, value in values.items()}
    await until(pilot, lambda: all(pilot.app.screen.query(field) for field in fields), f"all of {list(fields)}")
    for field, value in fields.items():
        pilot.app.screen.query_one(field, Input).value = value


async def focus(pilot: Pilot[None], name: str = "") -> None:
    """Until the keyboard's place is the field of that name, or any that is typed in."""

    def there() -> bool:
        found = pilot.app.focused
        return isinstance(found, Input) and name in ("", found.id)

    await until(pilot, there, f"the focus on {name or 'a field'}")


async def types(pilot: Pilot[None], *keys: str) -> None:
    """Into the field that has the focus, once one has it: before, a letter is another key of the screen."""
    await focus(pilot)
    await pilot.press(*keys)


def gpu(name: str, rate: int, **changes: Any) -> ListingView:
    """An NVIDIA card in the market, by the name of its provider."""
    given: dict[str, Any] = {
        "kind": DeviceKind.CUDA,
        "model": "NVIDIA GeForce RTX 4090",
        "memory_bytes": 24 * 2**30,
        "driver": "580.95.05",
        "cuda": "13.0",
        "compute_capability": "8.9",
        "backends": ("cuda",),
        "provider": f"12D3KooW{name:a>44}",
        "verified": True,
        "score": 61_234.0,
        "reliability": 0.987,
        "country": "DE",
        "region": "eu",
        "inet_down_bytes_per_s": 125_000_000,
        "inet_up_bytes_per_s": 62_500_000,
        "metrics": Sample(at_ms=1, utilisation_pct=37, temperature_c=55),
        "metrics_age_ms": 1_000,
        **changes,
    }
    return msgspec.structs.replace(listing(name, rate), **given)


MARKET = (
    gpu("one", 90_000),
    gpu("two", 60_000, model="NVIDIA H100 80GB HBM3", memory_bytes=80 * 2**30, availability=Availability.BUSY),
    gpu("three", 70_000, country="US", country_seen=True, region="us", devices_alike=4),
    gpu(
        "four",
        5_000,
        kind=DeviceKind.CPU,
        model="AMD EPYC 7763",
        backends=("cpu",),
        verified=False,
        score=0.0,
        driver="",
        cuda="",
        metrics=None,
        metrics_age_ms=None,
        reliability=0.0,
    ),
)


SCREENS = Path(__file__).parent / "screens"


async def assert_screen(pilot: Pilot[None], name: str, *, hide: str = "") -> None:
    """The screen becomes as it was kept in screens/NAME.txt: what it asks for comes in any order.
    QUBIX_WRITE_SCREENS=1 keeps it anew, to be read in the diff. `hide` is of the moment."""
    kept = SCREENS / f"{name}.txt"

    def found() -> str:
        seen = text(pilot.app) + "\n"  # type: ignore[arg-type]
        return seen.replace(hide, "#" * len(hide)) if hide else seen

    if os.environ.get("QUBIX_WRITE_SCREENS"):
        kept.write_text(found())
    wanted = kept.read_text()
    try:
        await until(pilot, lambda: found() == wanted, name)
    except AssertionError:
        diff = difflib.unified_diff(wanted.splitlines(), found().splitlines(), "kept", "found", lineterm="")
        raise AssertionError("\n".join(diff)) from None


def assert_without_colour(app: QubixApp) -> None:
    """Every colour on the screen is a grey."""
    for style in styles(app):
        for colour in (style.color, style.bgcolor):
            if colour is not None and colour.triplet is not None:
                assert len(set(colour.triplet)) == 1, colour
