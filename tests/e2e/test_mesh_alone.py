# SPDX-License-Identifier: Apache-2.0
"""Trust P5, by real processes: coordinator and every gateway killed, nodes and watchers still exchange offers."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from qubix_mesh.peerbook import PeerBook
from qubix_mesh.watch import Watch
from qubix_node.offers import price
from qubix_protocol.api import NetworkView
from tests.support.market import Market

DEADLINE_S = 90
QUICK = "tests.support.quick_node"
SETTING = 50_000
LISTEN = "/ip4/127.0.0.1/tcp/0"


class MeshMarket(Market):
    """No job runs here: there is nothing to verify."""

    def start_verifier(self, name: str = "verifier") -> None:  # type: ignore[override]
        return None


def until(condition: Callable[[], object], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


def network(market: Market) -> NetworkView:
    return msgspec.json.decode(httpx.get(f"{market.url}/api/v1/network").content, type=NetworkView)


@contextmanager
def watching(key: bytes, bootstrap: tuple[str, ...], remembered: Path) -> Iterator[Watch]:
    """As the terminal does it: trio in a thread of its own."""
    watch = Watch(network="devnet", coordinator=key, bootstrap=bootstrap, remembered=remembered)
    stop: list[Callable[[], None]] = []
    started = threading.Event()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            token = trio.lowlevel.current_trio_token()
            stop.append(lambda: token.run_sync_soon(nursery.cancel_scope.cancel))
            nursery.start_soon(watch.run)
            started.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    try:
        assert started.wait(DEADLINE_S)
        yield watch
    finally:
        stop[0]()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def rates(watch: Watch) -> dict[str, int]:
    return {one.peer_id: one.offer.rate_qu_per_h for one in watch.offers()}


def set_rate(market: Market, node: str, rate: int) -> None:
    command = [sys.executable, "-m", "qubix_node", "--data-dir", str(market.folder / node), "--set-rate", str(rate)]
    env = {"PATH": os.environ["PATH"], "QUBIX_NODE_RATE_QU_PER_H": str(SETTING)}
    subprocess.run(command, check=True, timeout=DEADLINE_S, env=env, capture_output=True)


@pytest.mark.parametrize("restarted", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_p5_with_the_coordinator_and_every_gateway_killed_nodes_and_watchers_still_exchange_offers(
    folder: Path, restarted: bool
) -> None:
    relay = {"QUBIX_NODE_RELAY": "yes", "QUBIX_NODE_LISTEN": LISTEN, "QUBIX_NODE_THREADS": "1"}
    with MeshMarket(folder, QUBIX_NODE_RATE_QU_PER_H=str(SETTING)) as market:
        first = market.env["QUBIX_BOOTSTRAP"]
        second = ",".join(market.start_gateway("other").info["addresses"])
        relays = [
            market.start_node("one", QUICK, **relay, QUBIX_BOOTSTRAP=first),
            market.start_node("two", QUICK, **relay, QUBIX_BOOTSTRAP=second),
        ]
        until(lambda: len(network(market).relays) == 2, market.logs)
        # It learns of the relays from the coordinator alone, and listens nowhere.
        plain = market.start_node("three", QUICK, QUBIX_NODE_THREADS="1", QUBIX_BOOTSTRAP=first)
        everybody = {str(node.info["peer_id"]) for node in (*relays, plain)}
        view = network(market)
        key, book = bytes.fromhex(view.coordinator_key), folder / "watch.json"
        with watching(key, tuple(first.split(",")), book) as watch:
            until(lambda: rates(watch).keys() == everybody, market.logs)
            connected = lambda: {one.peer_id for one in watch.peers() if one.relay and one.connected}  # noqa: E731
            until(lambda: len(connected()) == 2, market.logs)
            until(lambda: book.exists() and len(PeerBook(book).remembered()) >= 3, market.logs)
            for name in ("coordinator", "gateway", "other"):
                market.parts[name].kill()
            for number, name in enumerate(("one", "two", "three")):
                price.announce(market.folder / name / "node", 700 + number, SETTING)
            wanted = {
                str(market.parts[name].info["peer_id"]): 700 + n for n, name in enumerate(("one", "two", "three"))
            }
            until(lambda: rates(watch) == wanted, lambda: (rates(watch), wanted, market.logs()))
            # One relay is enough.
            market.parts["one"].kill()
            if restarted:
                # It kept what the coordinator said of it.
                market.parts["three"].kill()
                market.start_node("three", QUICK, QUBIX_NODE_THREADS="1", QUBIX_BOOTSTRAP=first)
            set_rate(market, "three", 999)
            three = str(plain.info["peer_id"])
            until(lambda: rates(watch).get(three) == 999, lambda: (rates(watch), market.logs()))
        # Somebody who comes later, and knows nothing but where somebody was before.
        with watching(key, (), book) as later:
            until(lambda: rates(later).get(three) == 999, lambda: (rates(later), market.logs()))
            assert not any(one.stale for one in later.offers())
