# SPDX-License-Identifier: Apache-2.0
"""NVIDIA GPUs through NVML, by NVIDIA's own binding (`pynvml` of nvidia-ml-py).

Without a driver the library is missing: no devices, and a reason. A card that falls off the bus (GpuIsLost) or wants a
reset is gone until the node starts again; the others go on.
"""

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pynvml

from qubix_node.clock import wall_ms
from qubix_protocol.messages import Device, Sample
from qubix_protocol.states import DeviceKind

log = logging.getLogger("qubix_node")
T = TypeVar("T")
_GONE: Final = (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_ResetRequired)
_REASONS: Final = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no NVIDIA driver is installed (libnvidia-ml.so.1 is missing)",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is installed but not loaded",
    pynvml.NVML_ERROR_NO_PERMISSION: "this user may not use the NVIDIA driver",
}


class NvmlProbe:
    """A `device.DeviceProbe`. `backends` are the CUDA back ends that kernels really have: without any, cards are listed
    and nothing can be rented on them."""

    def __init__(self, backends: tuple[str, ...]) -> None:
        self._backends = backends
        self._handles: dict[str, Any] = {}
        self._cards: dict[str, Device] = {}
        self.reason = ""
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self.reason = _REASONS.get(error.value, f"NVML does not start: {error}")
            return
        self._find()

    def _find(self) -> None:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                card = _describe(handle, self._backends)
            except pynvml.NVMLError as error:
                self.reason = f"GPU {index} does not answer: {error}"
                log.warning("gpu.unusable", extra={"gpu": index, "reason": str(error)})
                continue
            self._handles[card.device_id], self._cards[card.device_id] = handle, card
        if not self._cards and not self.reason:
            self.reason = "the NVIDIA driver sees no GPU"

    def devices(self) -> list[Device]:
        return list(self._cards.values())

    def sample(self, device_id: str) -> Sample | None:
        handle = self._handles.get(device_id)
        if handle is None:
            return None
        try:
            return _read(handle)
        except _GONE as error:
            self._lose(device_id, error)
            return None

    def _lose(self, device_id: str, error: Exception) -> None:
        del self._handles[device_id]
        card = self._cards.pop(device_id)
        self.reason = f"{card.model} is lost: {error}"
        log.error("gpu.lost", extra={"device": device_id, "model": card.model, "reason": str(error)})

    def close(self) -> None:
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            log.debug("gpu.shutdown", extra={"reason": str(error)})


def _describe(handle: Any, backends: tuple[str, ...]) -> Device:
    major, minor = _told(lambda: pynvml.nvmlDeviceGetCudaComputeCapability(handle)) or (0, 0)
    cuda = _told(pynvml.nvmlSystemGetCudaDriverVersion) or 0
    return Device(
        device_id=_text(pynvml.nvmlDeviceGetUUID(handle)),
        kind=DeviceKind.CUDA,
        model=_text(pynvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        cores=_told(lambda: int(pynvml.nvmlDeviceGetNumGpuCores(handle))) or 0,
        driver=_text(_told(pynvml.nvmlSystemGetDriverVersion) or ""),
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
        compute_capability=f"{major}.{minor}" if major else "",
        backends=backends,
    )


def _read(handle: Any) -> Sample:
    usage = _told(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
    memory = _told(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    return Sample(
        at_ms=wall_ms(),
        utilisation_pct=None if usage is None else min(100.0, float(usage.gpu)),
        memory_used_bytes=None if memory is None else int(memory.used),
        memory_total_bytes=None if memory is None else int(memory.total),
        temperature_c=_told(lambda: float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))),
        power_mw=_told(lambda: int(pynvml.nvmlDeviceGetPowerUsage(handle))),
        clock_mhz=_told(lambda: int(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))),
    )


def _told(ask: Callable[[], T]) -> T | None:
    """None for what this card or driver does not tell. Raises what means that the card is gone."""
    try:
        return ask()
    except _GONE:
        raise
    except pynvml.NVMLError as error:
        log.debug("gpu.not_told", extra={"reason": str(error)})
        return None


def _text(value: str | bytes) -> str:
    """Older bindings give bytes. At most what a message may carry."""
    return (value.decode(errors="replace") if isinstance(value, bytes) else value)[:200]
