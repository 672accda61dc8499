# SPDX-License-Identifier: Apache-2.0
"""Hardware for tests: what it says is set by hand."""

from qubix_node.clock import wall_ms
from qubix_protocol.messages import Device, Sample


class FakeProbe:
    """A `device.DeviceProbe`."""

    def __init__(self, devices: list[Device]) -> None:
        self.present = list(devices)
        self.reason = ""
        self.gauges: dict[str, Sample] = {}
        self.closed = False

    def devices(self) -> list[Device]:
        return list(self.present)

    def sample(self, device_id: str) -> Sample | None:
        if all(device.device_id != device_id for device in self.present):
            return None
        return self.gauges.get(device_id, Sample(at_ms=wall_ms()))

    def lose(self, device_id: str) -> None:
        self.present = [device for device in self.present if device.device_id != device_id]
        self.reason = f"{device_id} is lost"

    def close(self) -> None:
        self.closed = True
