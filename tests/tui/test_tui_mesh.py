# SPDX-License-Identifier: Apache-2.0
"""The Mesh screen: offers and peers of a watch in its own thread, without a coordinator, and its clean end."""

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import trio

from qubix_mesh.errors import BadAddress
from qubix_mesh.watch import Heard, PeerSeen, Watch
from qubix_protocol.messages import Device, Offer, Sample
from qubix_protocol.states import Availability, DeviceKind
from qubix_tui.mesh import knowing
from qubix_tui.mesh.heard import Known, MeshOffer, Watching, offer_of
from qubix_tui.mesh.thread import MeshThread, real_watch
from qubix_tui.settings import Settings
from tests.tui.api import TuiApi
from tests.tui.world import LARGE, SMALL, Clock, assert_screen, gone, settings, shows, terminal, text, until

PEER = f"12D3KooW{'a' * 44}"
KEY = "ab" * 32
GATEWAY = f"/ip4/127.0.0.1/tcp/4001/p2p/{PEER}"
KNOWN = Known("devnet", KEY, (GATEWAY,), ("local",))


def offer(**changes: object) -> Offer:
    device = Device(
        device_id="GPU-1",
        kind=DeviceKind.CUDA,
        model="NVIDIA RTX A6000",
        memory_bytes=48 * 2**30,
        backends=("cuda",),
        driver="580.95",
        cuda="13.0",
    )
    given = {
        "device": device,
        "rate_qu_per_h": 81_000,
        "region": "local",
        "availability": Availability.AVAILABLE,
        "metrics": Sample(at_ms=1, utilisation_pct=12),
        "country": "CH",
        **changes,
    }
    return Offer(**given)  # type: ignore[arg-type]


def heard(heard_s: float, *, stale: bool = False, **changes: object) -> Heard:
    return Heard(
        peer_id=PEER, offer=offer(**changes), heard_s=heard_s, sequence=(1, 1), expires_ms=0, certified_until_ms=0,
        stale=stale,
    )  # fmt: skip


class FakeWatch:
    """What a test says is heard; its methods are those of `qubix_mesh.watch.Watch`."""

    def __init__(self) -> None:
        self.heard: tuple[Heard, ...] = ()
        self.seen: tuple[PeerSeen, ...] = ()
        self.failure: Exception | None = None
        self.threads: list[str] = []
        self.cancelled = threading.Event()
        self._wake = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self.ready = threading.Event()

    async def run(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.threads.append(threading.current_thread().name)
        self._token = trio.lowlevel.current_trio_token()
        self.ready.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()

    async def changed(self) -> None:
        """What was told since it was asked last counts, too: a word must not fall between two questions."""
        await self._wake.wait()
        self._wake = trio.Event()

    def offers(self) -> tuple[Heard, ...]:
        return self.heard

    def peers(self) -> tuple[PeerSeen, ...]:
        return self.seen

    def tell(self, heard: tuple[Heard, ...], seen: tuple[PeerSeen, ...]) -> None:
        """From the test's thread."""
        assert self.ready.wait(20)
        assert self._token is not None
        self.heard, self.seen = heard, seen
        self._token.run_sync_soon(lambda: self._wake.set())


@dataclass
class Nobody:
    """An address where nobody answers."""

    url: str


@pytest.fixture
def nobody() -> Iterator[Nobody]:
    """Until the test is over: given back before, the port may be somebody's."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        yield Nobody(f"http://127.0.0.1:{found.getsockname()[1]}")


def test_the_twin_has_the_methods_of_the_real_watch(tmp_path: Path) -> None:
    real: Watching = real_watch(KNOWN, tmp_path / "peers")
    assert isinstance(real, Watch)
    assert (real.offers(), real.peers()) == ((), ())
    fake: Watching = FakeWatch()
    assert {name for name in vars(Watching) if not name.startswith("_")} <= set(dir(fake)) & set(dir(real))


def test_an_offer_keeps_what_its_node_says_and_no_more() -> None:
    found: MeshOffer = offer_of(heard(1.0))
    assert (found.listing.model, found.listing.rate_qu_per_h, found.listing.country) == (
        "NVIDIA RTX A6000",
        81_000,
        "CH",
    )
    assert not found.listing.verified
    assert found.listing.score == 0
    assert found.certified


def test_a_thread_ends_when_it_is_told_to() -> None:
    watch = FakeWatch()
    thread = MeshThread(KNOWN, lambda known: watch)
    thread.start()
    assert watch.ready.wait(20)
    assert watch.threads == ["mesh"]
    thread.stop()
    assert watch.cancelled.is_set()
    assert not thread.running
    assert thread.error is None
    thread.stop()


def test_what_ends_the_mesh_is_told_with_a_next_step() -> None:
    for failure, words in ((BadAddress("x is no address"), "QUBIX_BOOTSTRAP"), (OSError("no sockets"), "Press u")):
        watch = FakeWatch()
        watch.failure = failure
        thread = MeshThread(KNOWN, lambda known, watch=watch: watch)  # type: ignore[misc]
        thread.start()
        thread._thread.join(20)
        assert thread.error is not None
        assert str(failure) in str(thread.error)
        assert words in thread.error.remedy


@pytest.mark.asyncio
async def test_offers_and_peers_with_nobody_in_the_middle(tmp_path: Path, nobody: Nobody) -> None:
    """Coordinator and gateways are down: what nodes tell is shown all the same."""
    watch = FakeWatch()
    found = settings(nobody.url, tmp_path, coordinator_key=KEY, bootstrap=(GATEWAY,))
    async with terminal(found, LARGE, open_watch=lambda known: watch) as (_, pilot):
        await pilot.press("8")
        await shows(pilot, "Looking for peers", "○ offline", f"{KEY[:16]}…")
        now = time.monotonic()
        watch.tell(
            (heard(now),), (PeerSeen(PEER, GATEWAY, True, True), PeerSeen(f"{PEER[:-1]}b", GATEWAY, False, False))
        )
        await shows(pilot, "RTX A6000", "81,000", "CH? local", "1 connected of 2", "relay", "● listening · 1 offers")
        await pilot.press("enter")
        await shows(pilot, "✓ by the coordinator", "not told here")
        await pilot.press("escape")
        await gone(pilot, "not told here")
        await pilot.press("p")
        await shows(pilot, GATEWAY[:60], "○ not connected")
        await pilot.press("escape")
        watch.tell((heard(now, stale=True),), ())
        await shows(pilot, "! expired")
        watch.tell((), (PeerSeen(PEER, GATEWAY, False, True),))
        await shows(pilot, "No offers were heard yet")
    assert watch.cancelled.is_set(), "the thread ended with the terminal"


@pytest.mark.asyncio
async def test_without_a_known_key_nobody_is_believed(tmp_path: Path, nobody: Nobody) -> None:
    async with terminal(settings(nobody.url, tmp_path), SMALL) as (_, pilot):
        await pilot.press("8")
        await shows(pilot, "no coordinator was met from here yet", "QUBIX_COORDINATOR_KEY", "u tries again")


@pytest.mark.asyncio
async def test_what_the_coordinator_said_is_remembered(api: TuiApi, tmp_path: Path) -> None:
    seen: list[Known] = []

    def open_watch(known: Known) -> FakeWatch:
        seen.append(known)
        return FakeWatch()

    async with terminal(settings(api.url, tmp_path), open_watch=open_watch) as (_, pilot):
        await pilot.press("8")
        await until(pilot, lambda: seen)
        api.trouble("GET", "/network", *[503] * 4)
        await pilot.press("u")
        await until(pilot, lambda: len(seen) == 2)
    assert seen[0] == seen[1] == Known("devnet", api.key.public.hex(), (), ("local",))


def test_settings_come_first_and_a_pinned_key_is_enough(tmp_path: Path) -> None:
    found = Settings(data_dir=tmp_path, coordinator_url="http://x:1", bootstrap=("one",), regions=("eu",))
    said = knowing.Remembered("test", KEY, ("two", "one"), ("us",))
    assert knowing.merged(found, said) == Known("test", KEY, ("one", "two"), ("eu",))
    given = msgspec.structs.replace(said, regions=("us", "local"))
    assert knowing.merged(Settings(coordinator_key="cd" * 32), given).coordinator_key == "cd" * 32
    assert knowing.remembered(found, tmp_path) is None
    (tmp_path / "coordinators.json").write_text(f'{{"http://x:1": {{"network": "test", "coordinator_key": "{KEY}"}}}}')
    (tmp_path / "coordinators.json").chmod(0o600)
    assert knowing.remembered(found, tmp_path) == knowing.Remembered("test", KEY, (), ())
    knowing.remember(found, tmp_path / "tui", said)
    assert knowing.remembered(found, tmp_path / "tui") == said


@pytest.mark.asyncio
async def test_how_it_looks(api: TuiApi, tmp_path: Path) -> None:
    watch, clock = FakeWatch(), Clock()
    found = settings(api.url, tmp_path, coordinator_key=KEY, bootstrap=(GATEWAY,))
    async with terminal(found, SMALL, clock, lambda known: watch) as (app, pilot):
        await pilot.press("8")
        await shows(pilot, "believed")
        watch.tell((heard(clock.now_s - 7),), (PeerSeen(PEER, GATEWAY, True, True),))
        await shows(pilot, "1 offers", "7 s ago")
        await until(pilot, lambda: "○ offline" in text(app))
        await assert_screen(pilot, "mesh-80x24")
