# SPDX-License-Identifier: Apache-2.0
"""Hardware for tests: what it says is set by hand."""

import threading

from qubix_node.clock import wall_ms
from qubix_node.errors import NoReading
from qubix_protocol.messages import Device, Sample


class FakeProbe:
    """A `device.DeviceProbe`."""

    def __init__(self, devices: list[Device]) -> None:
        self.present = list(devices)
        self.reason = ""
        self.gauges: dict[str, Sample] = {}
        self.hanging: dict[str, threading.Event] = {}
        """A reading of such a device waits until its event is set."""
        self.mute: set[str] = set()
        """Devices that tell nothing."""
        self.closed = False
        self._lost: dict[str, str] = {}

    def devices(self) -> list[Device]:
        return list(self.present)

    def sample(self, device_id: str) -> Sample | None:
        if device_id in self.hanging:
            self.hanging[device_id].wait()
        if device_id in self.mute:
            raise NoReading(f"{device_id} is mute")
        if all(device.device_id != device_id for device in self.present):
            return None
        return self.gauges.get(device_id, Sample(at_ms=wall_ms()))

    def lose(self, device_id: str, reason: str = "it was taken away") -> None:
        self.present = [device for device in self.present if device.device_id != device_id]
        self._lost[device_id] = reason
        self.reason = f"{device_id} is lost: {reason}"

    def lost(self, device_id: str) -> str:
        return self._lost.get(device_id, "")

    def close(self) -> None:
        self.closed = True
