# SPDX-License-Identifier: Apache-2.0
"""`qubix mesh offers`: with a coordinator that answers, and later without one."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
import trio

from qubix_mesh import known
from qubix_mesh.__main__ import BAD_SETTINGS, NOTHING_HEARD, main
from qubix_mesh.errors import BadPin, NotKnown
from qubix_mesh.host import open_mesh
from qubix_mesh.known import Known
from qubix_protocol.api import NetworkView
from tests.mesh.adverts_world import COORDINATOR, START_MS, TOPIC, judge, offer, speaker

SECONDS = (2, 5, 15, 45)
"""To listen for, until something is heard: a busy machine takes longer to find its way into the mesh."""


class Answer(BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/v1/network" else 404)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        return


def view(gateways: tuple[str, ...] = (), key: str = COORDINATOR.public.hex()) -> bytes:
    return msgspec.json.encode(
        NetworkView(
            network="devnet",
            coordinator_key=key,
            protocol_version=1,
            fee_bps=1,
            gateways=gateways,
            regions=("local",),
            clock_ms=START_MS,
        )
    )


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), type("Says", (Answer,), {"body": body}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def speaking() -> Iterator[str]:
    """A relay in a thread, which says its own offer twice a second; its address."""
    found: list[str] = []
    stop: list[Callable[[], None]] = []
    ready = threading.Event()
    node = speaker(1, clock_ms=lambda: START_MS + round(time.monotonic() * 1000))

    async def run() -> None:
        # Nobody hears themselves: it relays, and another node of its own speaks through it.
        async with (
            trio.open_nursery() as nursery,
            open_mesh(b"r" * 32) as relay,
            open_mesh(node.key.seed, listen=()) as mouth,
        ):
            token = trio.lowlevel.current_trio_token()
            stop.append(lambda: token.run_sync_soon(nursery.cancel_scope.cancel))
            found.extend(relay.addresses)
            clock = judge(clock_ms=lambda: None)
            async with relay.subscribe(TOPIC, clock.validator(TOPIC), capacity=8):
                await mouth.connect(relay.addresses[0], timeout_s=10)
                ready.set()
                while True:
                    await mouth.publish(TOPIC, node.advert(offer("GPU\x1b-1", rate_qu_per_h=42, country="DE")))
                    await trio.sleep(0.5)

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    assert ready.wait(30)
    try:
        yield found[0]
    finally:
        stop[0]()
        thread.join(30)


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def setenv(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    setenv(QUBIX_DATA_DIR=str(tmp_path), QUBIX_NETWORK="devnet", QUBIX_COORDINATOR_URL="http://127.0.0.1:9")
    return setenv


def heard(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[str, str]:
    """What it says on both lines when it has heard an offer."""
    for seconds in SECONDS:
        status = main(["offers", "--seconds", str(seconds), *more])
        out, err = capsys.readouterr()
        if status != NOTHING_HEARD:
            break
    assert status == 0, err
    return out, err


def test_offers_with_a_coordinator_and_later_without(
    env: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with speaking() as address:
        with answering(view((address,))) as url:
            env(QUBIX_COORDINATOR_URL=url)
            out, _ = heard(capsys)
        head, row = out.splitlines()
        assert head.split()[:3] == ["model", "kind", "memory"]
        assert ("H100" in row, "42" in row, "DE" in row, "\x1b" in row) == (True, True, True, False)
        out, err = heard(capsys, "--json")
        (line,) = [json.loads(text) for text in out.splitlines()]
        assert (line["provider"], line["rate_qu_per_h"], line["stale"]) == (speaker(1, clock_ms=int).peer_id, 42, False)
        assert "does not answer" in err


def test_nothing_is_believed_of_a_market_that_nobody_told_of(
    env: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["offers", "--seconds", "1"]) == BAD_SETTINGS
    assert "nothing is remembered" in capsys.readouterr().err
    env(QUBIX_COORDINATOR_KEY=COORDINATOR.public.hex())
    assert main(["offers", "--seconds", "1"]) == NOTHING_HEARD
    assert "no offer was heard" in capsys.readouterr().err
    env(QUBIX_COORDINATOR_KEY="x")
    assert main(["offers"]) == BAD_SETTINGS


@pytest.mark.trio
async def test_another_key_than_the_first_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mesh" / "market.json"
    with answering(view(("a", "b"))) as url:
        found, fresh = await known.find(url, "devnet", path)
        assert (found.addresses, fresh) == (("a", "b"), True)
    with answering(view(key="ab" * 32)) as url:
        with pytest.raises(NotKnown, match="delete"):
            await known.find(url, "devnet", path)
        with pytest.raises(NotKnown, match="QUBIX_NETWORK"):
            await known.find(url, "test", path)
    assert await known.find("http://127.0.0.1:9", "devnet", path) == (found, False)
    assert isinstance(found, Known)
    with answering(b"{}") as url:
        assert await known.find(url, "devnet", path) == (found, False)
    path.write_text("{")
    with pytest.raises(BadPin, match="Delete it"):
        await known.find("http://127.0.0.1:9", "devnet", path)
