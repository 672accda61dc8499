# SPDX-License-Identifier: Apache-2.0
"""What the node asks of hardware. `nvml`, `cpu` and `fake` implement it; all calls but `sample` are quick."""

from typing import Protocol

from qubix_protocol.messages import Device, Sample


class DeviceProbe(Protocol):
    """`reason` says why there are no devices, or why one has gone; "" when all is well."""

    @property
    def reason(self) -> str: ...

    def devices(self) -> list[Device]:
        """Those that answer now, in an order that does not change. One that was lost is gone from the list until the
        node starts again."""
        ...

    def sample(self, device_id: str) -> Sample | None:
        """A reading of now; None when the device is gone. What it does not tell is None inside. Raises `NoReading`
        when it tells nothing at all this time. It may hang as long as a driver can, and be called from several
        threads, each for another device."""
        ...

    def lost(self, device_id: str) -> str:
        """Why a device that was here is gone; "" while it is not."""
        ...

    def close(self) -> None: ...
