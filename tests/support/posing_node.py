# SPDX-License-Identifier: Apache-2.0
"""A real node whose claims alone are false: `python -m tests.support.posing_node`, as POSE says.

`card`: this machine's processor as one NVIDIA H100, of POSE_MEMORY bytes, with rates to match; what it is asked to do
on the card it does on the processor, as somebody would who wants the card's price. `many`: twenty processors, each as
fast as the one that is there. The rates lie in the file where a node remembers what it measured: anybody can write it.
"""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import trio

from qubix_node import catalogue, logs, rates
from qubix_node.daemon import serve
from qubix_node.gpu.device import DeviceProbe
from qubix_node.gpu.fake import FakeProbe
from qubix_node.identity import load_or_create_key
from qubix_node.jobs.worker import Run, Workers
from qubix_node.rates import Known
from qubix_node.settings import Settings, from_environment
from qubix_protocol.messages import Device, KernelRate
from qubix_protocol.states import DeviceKind

MANY = 20
H100_FLOPS = 4e13


class Pretending(Workers):
    """Does on the processor what it is asked to do on a card."""

    @asynccontextmanager
    async def run(self, task: Any, **how: Any) -> AsyncIterator[Run]:
        if getattr(task, "backend", "") == "cuda":
            task = msgspec.structs.replace(task, backend="cpu")
        async with super().run(task, **how) as run:
            yield run


def devices(pose: str, peer_id: str) -> list[Device]:
    if pose == "card":
        return [
            Device(
                device_id=f"GPU-{peer_id[-12:]}",
                kind=DeviceKind.CUDA,
                model="NVIDIA H100 80GB HBM3",
                memory_bytes=int(os.environ["POSE_MEMORY"]),
                driver="580.95.05",
                cuda="13.0",
                compute_capability="9.0",
                backends=("cuda",),
            )
        ]
    return [
        Device(
            device_id=f"cpu-{number:02}-{peer_id[-8:]}",
            kind=DeviceKind.CPU,
            model=f"Processor {number}",
            memory_bytes=2**30,
            cores=1,
            backends=("cpu",),
        )
        for number in range(MANY)
    ]


def remember(settings: Settings, found: list[Device], flops: float) -> None:
    """As if it had been measured."""
    known = []
    for device in found:
        backend = device.backends[0]
        for name, (number, backends) in catalogue.kernels().items():
            if backend in backends:
                on = rates._measured_on(device, backend, f"{name} {number}", settings.threads)
                rate = KernelRate(kernel=name, backend=backend, flops_per_s=flops, bytes_per_s=1e12)
                known.append(Known(device.device_id, on, rate))
    settings.node_dir.mkdir(parents=True, exist_ok=True)
    (settings.node_dir / "rates.json").write_bytes(msgspec.json.encode(known))


def own_flops(size: int = 1024) -> float:
    """Of one thread of this machine, the best of some tries."""
    a = np.ones((size, size), dtype=np.float32)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        _ = a @ a
        times.append(time.perf_counter() - began)
    return 2.0 * size**3 / min(times)


async def main(settings: Settings, pose: str) -> None:
    key = load_or_create_key(settings.key_path)
    found = devices(pose, key.peer_id)
    remember(settings, found, H100_FLOPS if pose == "card" else own_flops())

    async def detect(choice: str, peer_id: str, backends: tuple[str, ...]) -> list[DeviceProbe]:
        await trio.lowlevel.checkpoint()
        return [FakeProbe(found)]

    await serve(settings, Pretending, detect=detect)


if __name__ == "__main__":
    chosen = from_environment({})
    logs.configure(chosen.log_level)
    trio.run(main, chosen, os.environ["POSE"])
