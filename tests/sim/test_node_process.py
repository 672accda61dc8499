# SPDX-License-Identifier: Apache-2.0
"""`python -m qubix_node` as a process: real mesh, real HTTP, a real job; how it stops, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import trio

from qubix_kernels import get, names
from qubix_mesh.host import open_mesh
from qubix_protocol.arrays import ArrayMeta, to_npy, unpack_arrays
from qubix_protocol.digests import of_bytes
from qubix_protocol.keys import SigningKey, peer_id
from qubix_protocol.messages import Assign, InputRef, Range, Report
from qubix_protocol.states import Availability, Outcome
from tests.support.fake_coordinator import FakeCoordinator
from tests.support.fake_http import FakeHttp, serve_http
from tests.support.node_world import matrices

COORDINATOR = SigningKey(b"c" * 32)
READY_S = 90
RSS_MAX = 150 * 2**20


class NodeProcess:
    """Ended and reaped when the block is left."""

    def __init__(self, folder: Path, module: str = "qubix_node", **env: str) -> None:
        read, write = os.pipe()
        self._ready = read
        clean = {name: value for name, value in os.environ.items() if not name.startswith("QUBIX_")}
        self.log = folder.with_suffix(".log")
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", module],
                env={
                    **clean,
                    "QUBIX_DATA_DIR": str(folder),
                    "QUBIX_READY_FD": str(write),
                    "QUBIX_NODE_DEVICES": "cpu",
                    "QUBIX_NODE_THREADS": "1",
                    **env,
                },
                pass_fds=[write],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        os.close(write)

    async def ready(self) -> dict[str, Any]:
        with trio.fail_after(READY_S):
            async with trio.lowlevel.FdStream(self._ready) as pipe:
                line = b""
                while not line.endswith(b"\n"):
                    more = await pipe.receive_some(4096)
                    assert more, self.log.read_text()
                    line += more
        found: dict[str, Any] = json.loads(line)
        return found

    async def exit_status(self) -> int:
        return await trio.to_thread.run_sync(self.popen.wait, READY_S)


@contextmanager
def node_process(folder: Path, module: str = "qubix_node", **env: str) -> Iterator[NodeProcess]:
    process = NodeProcess(folder, module, **env)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.wait(30)


@dataclass
class Outside:
    coordinator: FakeCoordinator
    http: FakeHttp
    url: str


@asynccontextmanager
async def outside() -> AsyncIterator[Outside]:
    """Everything beyond the node: its gateway and coordinator on a real mesh, HTTP on a real socket."""
    http = FakeHttp(COORDINATOR)
    async with open_mesh(COORDINATOR.seed) as mesh, trio.open_nursery() as nursery:
        coordinator = FakeCoordinator(COORDINATOR, mesh)
        http.gateways = mesh.addresses
        nursery.start_soon(coordinator.listen_to_offers, "here")
        with serve_http(http) as url:
            coordinator.artifact_url = f"{url}/api/v1/artifacts"
            yield Outside(coordinator, http, url)
        nursery.cancel_scope.cancel()


def job(world: Outside, device_id: str) -> Assign:
    refs = []
    for name, array in matrices(256).items():
        data = to_npy(array)
        world.http.artifacts[of_bytes(data).hex()] = data
        refs.append(InputRef(name=name, digest=of_bytes(data), size_bytes=len(data), meta=ArrayMeta.of(array)))
    return Assign(
        job_id="00000000-0000-0000-0000-000000000001",
        attempt_id="00000000-0000-0000-0000-000000000002",
        fence=1,
        device_id=device_id,
        backend="cpu",
        kernel="matmul",
        kernel_version=1,
        params={},
        inputs=tuple(refs),
        units_total=256,
        ranges=(Range(0, 256),),
        chunk_units=64,
        time_limit_ms=60_000,
        rate_qu_per_h=100_000,
        offer_digest=bytes(32),
    )


@pytest.mark.trio
async def test_a_whole_life(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with outside() as world:
        with node_process(folder, "tests.support.small_node", QUBIX_COORDINATOR_URL=world.url) as process:
            info = await process.ready()
            assert (info["process"], info["pid"]) == ("node", process.popen.pid)
            (device_id,) = info["devices"]
            assert len(world.http.enrolled) == 1
            await world.coordinator.until(lambda: bool(world.coordinator.offers))
            offer = world.coordinator.offers[0]
            assert (offer.device.device_id, offer.availability) == (device_id, Availability.AVAILABLE)
            assert {rate.kernel for rate in offer.rates} == {
                name for name in names() if "cpu" in get(name).spec.backends
            }
            assert all(rate.flops_per_s > 1e6 for rate in offer.rates)
            assert psutil.Process(process.popen.pid).memory_info().rss < RSS_MAX

            await world.coordinator.send(job(world, device_id))
            report = await world.coordinator.wait_for(Report)
            assert report.outcome is Outcome.COMPLETED, report
            links = [p.link for p in world.coordinator.links() if p.link is not None]
            parts = [unpack_arrays(world.http.artifacts[link.output_digest.hex()])["c"] for link in links]
            arrays = matrices(256)
            np.testing.assert_allclose(np.concatenate(parts), arrays["a"] @ arrays["b"], rtol=1e-3, atol=1e-3)
            assert psutil.Process(process.popen.pid).memory_info().rss < RSS_MAX

            with node_process(folder, QUBIX_COORDINATOR_URL=world.url) as second:
                assert await second.exit_status() == 1
                assert "another node uses" in second.log.read_text()

            children = psutil.Process(process.popen.pid).children(recursive=True)
            assert children, "the zygote"
            process.popen.send_signal(signal.SIGTERM)
            assert await process.exit_status() == 0, process.log.read_text()
            assert psutil.wait_procs(children, timeout=30)[1] == []
            await world.coordinator.until(lambda: world.coordinator.offers[-1].availability is Availability.OFFLINE)
        await again(folder, world, info["peer_id"])


async def again(folder: Path, world: Outside, known_peer: str) -> None:
    """A second start is the same node, which enrols and measures nothing."""
    rates = (folder / "node" / "rates.json").read_bytes()
    with node_process(folder, QUBIX_COORDINATOR_URL=world.url) as process:
        info = await process.ready()
        assert info["peer_id"] == known_peer == peer_id(SigningKey((folder / "node.key").read_bytes()).public)
        assert len(world.http.enrolled) == 1
        assert (folder / "node" / "rates.json").read_bytes() == rates
        process.popen.send_signal(signal.SIGINT)
        assert await process.exit_status() == 0, process.log.read_text()


@pytest.mark.trio
async def test_it_stops_at_once_while_it_waits_for_a_coordinator(tmp_path: Path) -> None:
    with node_process(tmp_path / "data", QUBIX_COORDINATOR_URL="http://127.0.0.1:1") as process:
        with trio.fail_after(READY_S):
            while "enrol.waiting" not in process.log.read_text():  # noqa: ASYNC110
                await trio.sleep(0.05)
        process.popen.send_signal(signal.SIGTERM)
        assert await process.exit_status() == 0, process.log.read_text()


@pytest.mark.trio
@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"QUBIX_NODE_RATE_QU_PER_H": "-1"}, "QUBIX_NODE_RATE_QU_PER_H"),
        ({"QUBIX_NODE_DEVICES": "toaster"}, "Use auto, gpu, cpu"),
        ({"QUBIX_COORDINATOR_URL": "nonsense"}, "QUBIX_COORDINATOR_URL"),
        ({"QUBIX_BOOTSTRAP": "/ip4/1.2.3.4/tcp/1"}, "QUBIX_BOOTSTRAP"),
    ],
)
async def test_bad_settings_are_named_with_their_remedy(tmp_path: Path, env: dict[str, str], said: str) -> None:
    with node_process(tmp_path / "data", **env) as process:
        assert await process.exit_status() == 2
        assert said in process.log.read_text()


@pytest.mark.trio
async def test_a_coordinator_of_another_network_is_refused(tmp_path: Path) -> None:
    with (
        serve_http(FakeHttp(COORDINATOR, "test")) as url,
        node_process(tmp_path / "data", QUBIX_COORDINATOR_URL=url) as process,
    ):
        assert await process.exit_status() == 1
        assert "QUBIX_NETWORK=test" in process.log.read_text()


def test_help_names_the_variables() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qubix_node", "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "QUBIX_NODE_RATE_QU_PER_H" in done.stdout
