# SPDX-License-Identifier: Apache-2.0
"""This machine's CPU as a device: always of kind CPU, wherever it is shown."""

import platform
from pathlib import Path
from typing import Final

import psutil

from qubix_node.clock import wall_ms
from qubix_protocol.messages import Device, Host, Sample
from qubix_protocol.states import DeviceKind

_CPUINFO: Final = Path("/proc/cpuinfo")
_SENSORS: Final = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz")


class CpuProbe:
    """A `device.DeviceProbe` with one device. `peer_id` makes its id stable and this node's own."""

    reason = ""

    def __init__(self, peer_id: str, backends: tuple[str, ...] = ("cpu",)) -> None:
        self._device = Device(
            device_id=f"cpu-{peer_id[-12:]}",
            kind=DeviceKind.CPU,
            model=model(),
            memory_bytes=psutil.virtual_memory().total,
            cores=cores(),
            backends=backends,
        )
        psutil.cpu_percent()  # the first call only sets the start of the interval

    def devices(self) -> list[Device]:
        return [self._device]

    def sample(self, device_id: str) -> Sample | None:
        if device_id != self._device.device_id:
            return None
        memory = psutil.virtual_memory()
        return Sample(
            at_ms=wall_ms(),
            utilisation_pct=min(100.0, max(0.0, psutil.cpu_percent())),
            memory_used_bytes=memory.total - memory.available,
            memory_total_bytes=memory.total,
            temperature_c=_temperature(),
            clock_mhz=_clock(),
        )

    def lost(self, device_id: str) -> str:
        return ""

    def close(self) -> None:
        return


def model(cpuinfo: Path = _CPUINFO) -> str:
    """As the processor names itself; where Linux does not say, as the platform does."""
    try:
        with cpuinfo.open(errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() in ("model name", "Hardware", "cpu model") and value.strip():
                    return " ".join(value.split())[:200]
    except OSError:
        pass
    return (platform.processor() or platform.machine() or "CPU")[:200]


def cores() -> int:
    """What this process may use, which can be fewer than there are."""
    return len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count() or 1


def host(agent: str) -> Host:
    return Host(
        system=f"{platform.system()} {platform.release()}"[:200],
        cpu_model=model(),
        cpu_cores=max(1, cores()),
        memory_bytes=psutil.virtual_memory().total,
        agent=agent,
    )


def _temperature() -> float | None:
    """The hottest reading of the processor's own sensors; None on machines without any (virtual ones)."""
    read = getattr(psutil, "sensors_temperatures", None)
    if read is None:
        return None
    sensors = read()
    for name in _SENSORS:
        readings = [entry.current for entry in sensors.get(name, []) if -100 <= entry.current <= 300]
        if readings:
            return float(max(readings))
    return None


def _clock() -> int | None:
    """MHz now; None where the system does not tell, for which psutil raises an OSError or a RuntimeError of its own."""
    try:
        frequency = psutil.cpu_freq()
    except (OSError, RuntimeError):
        return None
    return int(frequency.current) if frequency and frequency.current > 0 else None
