# SPDX-License-Identifier: Apache-2.0
"""Finds out what a node's devices can do, and when enough of it is known to go to market (R1.2).

A processor is measured before that: it takes a few seconds. For a card each kernel is compiled first, which takes as
long for each: after a while the node goes to market, where the card is seen and can be rented when all of its kernels
are measured. Nothing is assigned to it meanwhile: what is measured beside a job would be remembered as slow.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from qubix_node.gpu.device import DeviceProbe
from qubix_node.jobs.worker import Workers
from qubix_node.rates import Plan, measured
from qubix_protocol.messages import Device, KernelRate
from qubix_protocol.states import DeviceKind

log = logging.getLogger("qubix_node")
PATIENCE_S: Final = 6.0
"""How long a node with a card waits for all of its rates."""

Rates = Mapping[str, tuple[KernelRate, ...]]


class Measuring:
    """`spare` joins `probes` when nothing runs on any of them. `rates` has the devices that are measured to the end;
    whoever wants to hear of more sets `changed`."""

    def __init__(
        self,
        workers: Workers,
        folder: Path,
        probes: list[DeviceProbe],
        plans: Mapping[str, Plan],
        spare: Callable[[], DeviceProbe] | None = None,
    ) -> None:
        self._workers, self._folder, self._plans, self._spare = workers, folder, plans, spare
        self.probes: Final = probes
        self._rates: dict[str, tuple[KernelRate, ...]] = {}
        self._something_runs = False
        self.changed: Callable[[], None] = _nobody
        self._news = trio.Event()
        self._processors_known = self._done = False

    @property
    def rates(self) -> Rates:
        return self._rates

    async def run(self) -> None:
        """Until everything is known. Raises `WorkerLost` when no worker can be started at all."""
        await self._workers.warm()  # remembered rates need no worker, but the first job should find one waiting
        await self._measure([one for one in devices_of(self.probes) if one.kind is DeviceKind.CPU])
        self._processors_known = True
        await self._measure([one for one in devices_of(self.probes) if one.kind is not DeviceKind.CPU])
        if self._spare is not None and not self._something_runs:
            log.warning("gpu.runs_nothing", extra={"do": "see rates.not_measured above; the CPU is offered meanwhile"})
            spare, self._processors_known = self._spare(), False
            self.probes.append(spare)
            await self._measure(spare.devices())
        self._done = True
        self._news.set()

    async def _measure(self, devices: Sequence[Device]) -> None:
        if devices:
            await measured(self._workers, self._folder, devices, self._plans, self._heard)

    def _heard(self, device_id: str, rates: tuple[KernelRate, ...], complete: bool) -> None:
        self._something_runs |= bool(rates)
        self._news.set()
        if complete:
            self._rates[device_id] = rates
            self.changed()

    async def until_enough(self, patience_s: float = PATIENCE_S) -> None:
        """Everything is known; or after a while the processors, and that something runs on a card: else the spare is
        needed."""
        with trio.move_on_after(patience_s):
            await self._until(lambda: self._done)
        await self._until(lambda: self._done or (self._processors_known and self._something_runs))

    async def _until(self, what: Callable[[], bool]) -> None:
        while not what():
            self._news = trio.Event()
            await self._news.wait()


def devices_of(probes: Sequence[DeviceProbe]) -> list[Device]:
    return [device for probe in probes for device in probe.devices()]


def _nobody() -> None:
    return
