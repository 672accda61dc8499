# SPDX-License-Identifier: Apache-2.0
"""A whole node in one process: real zygote and journal; the mesh, the store and the coordinator are fakes."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import trio

from qubix_mesh.fake import FakeNetwork, open_fake_mesh
from qubix_node.errors import Unreachable
from qubix_node.gpu import cpu
from qubix_node.gpu.fake import FakeProbe
from qubix_node.identity import Enrolment
from qubix_node.jobs.store_fake import FakeStore
from qubix_node.jobs.worker import Workers
from qubix_node.node import Machine, Node
from qubix_node.settings import Settings
from qubix_protocol.arrays import Array, ArrayMeta, to_npy
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Assign, Device, InputRef, KernelRate, Range
from qubix_protocol.states import DeviceKind
from tests.support.fake_coordinator import NETWORK, FakeCoordinator

REGION = "test-region"
DEVICE = Device(device_id="cpu-test", kind=DeviceKind.CPU, model="Test CPU", memory_bytes=2**30, backends=("cpu",))
RATE = KernelRate(kernel="matmul", backend="cpu", flops_per_s=1e9, bytes_per_s=1e9)
NODE_KEY, COORDINATOR_KEY = SigningKey(b"n" * 32), SigningKey(b"c" * 32)
_numbers = count(1)


@dataclass
class World:
    coordinator: FakeCoordinator
    store: FakeStore
    network: FakeNetwork
    workers: Workers
    folder: Path
    probe: FakeProbe
    gateways: tuple[str, ...] = ()
    """Named to the node before the coordinator's own address."""

    @asynccontextmanager
    async def node(self, *, wait: bool = True, tests_itself: bool = False, **settings: object) -> AsyncIterator[Node]:
        """A running node; when the block is left it is gone at once, as if it had been killed. `tests_itself`: soon
        after its first offer, unasked, in workers that a test may take for its own."""
        real = Settings(data_dir=self.folder, network=NETWORK, rate_qu_per_h=1_000, **settings)  # type: ignore[arg-type]
        real.node_dir.mkdir(parents=True, exist_ok=True)
        enrolment = Enrolment(
            network=NETWORK,
            coordinator_url="http://coordinator.invalid",
            coordinator_key=COORDINATOR_KEY.public.hex(),
            account_id="a",
            region=REGION,
            gateways=(*self.gateways, *self.coordinator.mesh.addresses),
        )
        machine = Machine(
            key=NODE_KEY,
            host=cpu.host("test"),
            enrolment=enrolment,
            rates={device.device_id: (RATE,) for device in self.probe.present},
            probes=(self.probe,),
        )
        async with open_fake_mesh(self.network, NODE_KEY.seed) as mesh, trio.open_nursery() as nursery:
            node = Node(real, machine, mesh, self.workers, store=lambda _: self.store, refresh=_same, post=_nobody)
            if not tests_itself:
                node.selftests._offered = trio.Event()
            self.stop = trio.Event()
            nursery.start_soon(node.run, self.stop)
            if wait:
                await self.coordinator.until(lambda: self.coordinator.peer is not None)
            yield node
            nursery.cancel_scope.cancel()

    def assign(self, arrays: Mapping[str, Array], kernel: str = "matmul", **changed: object) -> Assign:
        """The whole of a job, its inputs put into the store."""
        units = next(iter(arrays.values())).shape[0]
        refs = []
        for name, array in arrays.items():
            data = to_npy(array)
            refs.append(
                InputRef(name=name, digest=self.store.add(data), size_bytes=len(data), meta=ArrayMeta.of(array))
            )
        number = next(_numbers)
        known: dict[str, object] = {
            "job_id": f"00000000-0000-0000-0001-{number:012d}",
            "attempt_id": f"00000000-0000-0000-0002-{number:012d}",
            "fence": 1,
            "device_id": DEVICE.device_id,
            "backend": "cpu",
            "kernel": kernel,
            "kernel_version": 1,
            "params": {},
            "inputs": tuple(refs),
            "units_total": units,
            "ranges": (Range(0, units),),
            "chunk_units": max(1, units // 4),
            "time_limit_ms": 60_000,
            "rate_qu_per_h": 1_000,
            "offer_digest": bytes(32),
        }
        return Assign(**{**known, **changed})  # type: ignore[arg-type]


async def _nobody(raw: bytes) -> bytes:
    raise Unreachable("this world has no HTTP")


async def _same(enrolment: Enrolment) -> Enrolment:
    await trio.lowlevel.checkpoint()
    return enrolment


@asynccontextmanager
async def open_world(folder: Path, *, clock_skew_ms: int = 0) -> AsyncIterator[World]:
    network, workers = FakeNetwork(1), Workers(1, folder / "node" / "scratch")
    try:
        async with open_fake_mesh(network, COORDINATOR_KEY.seed) as mesh, trio.open_nursery() as nursery:
            coordinator = FakeCoordinator(COORDINATOR_KEY, mesh, clock_skew_ms=clock_skew_ms)
            nursery.start_soon(partial(coordinator.listen_to_offers, REGION))
            yield World(coordinator, FakeStore(), network, workers, folder, FakeProbe([DEVICE]))
            nursery.cancel_scope.cancel()
    finally:
        await workers.close()


def matrices(size: int, seed: int = 1) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((size, size), dtype=np.float32) for name in ("a", "b")}
