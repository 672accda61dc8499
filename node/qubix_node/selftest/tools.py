# SPDX-License-Identifier: Apache-2.0
"""What the checks of one device work with."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qubix_kernels.box.machine import Isolation
from qubix_mesh.port import Mesh
from qubix_node.jobs.worker import Workers
from qubix_node.selftest.rules import Way
from qubix_protocol.messages import Device, KernelRate, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """`reading` is the newest of the device, and may hang where it asks a driver; `occupied` says why its kernels must
    not run now, "" when they may; `way` measures the way to the store; `offset_ms` is None while nobody has told
    another clock."""

    device: Device
    folder: Path
    workers: Workers
    isolation: Isolation
    budget_bytes: int
    example_scale: Callable[[str], int]
    reading: Callable[[], Sample | None]
    rates: Callable[[], Sequence[KernelRate]]
    occupied: Callable[[], str]
    gateways: Sequence[str]
    mesh: Mesh
    way: Callable[[], Awaitable[Way]]
    offset_ms: Callable[[], int | None]
