# SPDX-License-Identifier: Apache-2.0
"""What the node asks of hardware. `nvml`, `cpu` and `fake` implement it; all calls may block for milliseconds."""

from typing import Protocol

from qubix_protocol.messages import Device, Sample


class DeviceProbe(Protocol):
    """`reason` says why there are no devices, or why one has gone; "" when all is well."""

    @property
    def reason(self) -> str: ...

    def devices(self) -> list[Device]:
        """Those that answer now. One that was lost is gone from the list until the node starts again."""
        ...

    def sample(self, device_id: str) -> Sample | None:
        """A reading of now; None when the device is gone. What it does not tell is None inside."""
        ...

    def close(self) -> None: ...
