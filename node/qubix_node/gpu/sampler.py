# SPDX-License-Identifier: Apache-2.0
"""Reads every device now and then, keeps the last reading of each and the newest few to be sent."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import trio

from qubix_node.gpu.device import DeviceProbe
from qubix_node.link import Live
from qubix_protocol.messages import Device, DeviceSample, Sample, Telemetry

log = logging.getLogger("qubix_node")
_KEPT_MAX: Final = 256
_FIRST_S: Final = 2.0


class Sampler:
    """`changed` is called when a device has gone."""

    def __init__(self, probes: Sequence[DeviceProbe], changed: Callable[[], None]) -> None:
        self._probes, self._changed = probes, changed
        self._present = {device.device_id: device for probe in probes for device in probe.devices()}
        self._gone: dict[str, Device] = {}
        self._queue: deque[DeviceSample] = deque(maxlen=_KEPT_MAX)
        self.latest: dict[str, Sample] = {}
        self.period_s = _FIRST_S

    def devices(self) -> tuple[Device, ...]:
        """Those that answer."""
        return tuple(self._present.values())

    def gone(self) -> tuple[Device, ...]:
        """Those that did once."""
        return tuple(self._gone.values())

    async def run(self) -> None:
        """Until cancelled. A reading that hangs (a driver can) holds up only further readings."""
        while True:
            await trio.to_thread.run_sync(self._read_all, abandon_on_cancel=True)  # type: ignore[call-arg]
            if set(self._present) - set(self.latest):
                self._drop_gone()
            await trio.sleep(self.period_s)

    def _read_all(self) -> None:
        latest = {}
        for probe in self._probes:
            for device in probe.devices():
                if (sample := probe.sample(device.device_id)) is not None:
                    latest[device.device_id] = sample
                    self._queue.append(DeviceSample(device_id=device.device_id, sample=sample))
        self.latest = latest

    def _drop_gone(self) -> None:
        for device_id in set(self._present) - set(self.latest):
            self._gone[device_id] = self._present.pop(device_id)
        self._changed()

    async def send(self, live: Live) -> None:
        """A session's task: telemetry at the pace that the coordinator asks for."""
        self.period_s = live.welcome.telemetry_s
        while True:
            await trio.sleep(self.period_s)
            samples = []
            while self._queue:
                samples.append(self._queue.popleft())
            if samples:
                await live.send(Telemetry(samples=tuple(samples)))
