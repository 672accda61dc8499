# SPDX-License-Identifier: Apache-2.0
"""What NVML says of one card: its description, and a reading of now. Every question may fail by itself."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
import psutil
import pynvml

from qubix_node.clock import wall_ms
from qubix_node.errors import CardGone, NoReading
from qubix_node.gpu import rules
from qubix_protocol.messages import Device, Sample
from qubix_protocol.states import DeviceKind, Throttle

log = logging.getLogger("qubix_node")
T = TypeVar("T")
_GONE: Final = frozenset(
    {
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_GPU_NOT_FOUND,
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
"""Answers that mean that this card will not answer again: it is lost, or the driver under it was taken away."""
_THROTTLE: Final = {
    pynvml.nvmlClocksThrottleReasonGpuIdle: Throttle.IDLE,
    pynvml.nvmlClocksThrottleReasonApplicationsClocksSetting: Throttle.SET_BY_USER,
    pynvml.nvmlClocksThrottleReasonSwPowerCap: Throttle.POWER_CAP,
    pynvml.nvmlClocksThrottleReasonHwSlowdown: Throttle.HW_SLOWDOWN,
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: Throttle.HW_THERMAL,
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: Throttle.POWER_BRAKE,
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: Throttle.THERMAL,
    pynvml.nvmlClocksThrottleReasonSyncBoost: Throttle.SYNC_BOOST,
    pynvml.nvmlClocksThrottleReasonDisplayClockSetting: Throttle.DISPLAY,
}
_FORMS: Final = {field.name: field.type for field in msgspec.structs.fields(Sample)}

Ours = Callable[[int], bool]


def told(ask: Callable[[], T]) -> T | None:
    """None for what this card or driver does not tell. Raises `CardGone`."""
    try:
        return ask()
    except pynvml.NVMLError as error:
        if error.value in _GONE:
            raise CardGone(str(error)) from error
        log.debug("gpu.not_told", extra={"reason": str(error)})
        return None


def first_told(*ways: Callable[[], T]) -> T | None:
    """The first way that this driver and binding know: newer names first."""
    for way in ways:
        found = told(way)
        if found is not None:
            return found
    return None


# What it is ---------------------------------------------------------------------------------------------------------


def describe(handle: Any, backends: tuple[str, ...]) -> Device:
    """Raises `CardGone`, or NVMLError when it does not even tell its name, UUID or memory."""
    major, minor = capability(handle) or (0, 0)
    cuda = told(pynvml.nvmlSystemGetCudaDriverVersion) or 0
    return Device(
        device_id=_text(pynvml.nvmlDeviceGetUUID(handle)),
        kind=DeviceKind.CUDA,
        model=_text(pynvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        cores=told(lambda: int(pynvml.nvmlDeviceGetNumGpuCores(handle))) or 0,
        driver=_text(told(pynvml.nvmlSystemGetDriverVersion) or ""),
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
        compute_capability=f"{major}.{minor}" if major else "",
        backends=backends,
    )


def fitness(handle: Any) -> rules.Card:
    """Raises `CardGone`."""
    mig = told(lambda: pynvml.nvmlDeviceGetMigMode(handle))
    return rules.Card(
        capability=capability(handle),
        driver=_text(told(pynvml.nvmlSystemGetDriverVersion) or ""),
        mig=mig is not None and mig[0] == pynvml.NVML_DEVICE_MIG_ENABLE,
        compute_mode=told(lambda: int(pynvml.nvmlDeviceGetComputeMode(handle))),
    )


def capability(handle: Any) -> tuple[int, int] | None:
    found = told(lambda: pynvml.nvmlDeviceGetCudaComputeCapability(handle))
    return None if found is None else (int(found[0]), int(found[1]))


def minor(handle: Any) -> int | None:
    return told(lambda: int(pynvml.nvmlDeviceGetMinorNumber(handle)))


def pids(handle: Any) -> frozenset[int] | None:
    found = told(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
    return None if found is None else frozenset(int(one.pid) for one in found)


def _text(value: str | bytes) -> str:
    """Older bindings give bytes. At most what a message may carry."""
    return (value.decode(errors="replace") if isinstance(value, bytes) else value)[:200]


# What it does now ---------------------------------------------------------------------------------------------------


def read(handle: Any, xid: int | None, ours: Ours) -> Sample:
    """Some 40 ms, the time over which the driver counts what goes through PCIe. `ours` says whether a process belongs
    to this node. Raises `CardGone`, or `NoReading` when not a single question was answered."""
    found = {**_gauges(handle), **_clocks(handle), **_neighbours(handle, ours), **_health(handle)}
    if all(value is None for value in found.values()):
        raise NoReading("the driver answers none of the questions about this card")
    return believable(found | {"xid": xid})


def believable(found: Mapping[str, object]) -> Sample:
    """A reading without what cannot be: a message with a broken sensor's 511 °C in it would be refused as a whole."""
    return Sample(at_ms=wall_ms(), **{name: value for name, value in found.items() if _fits(name, value)})  # type: ignore[arg-type]


def _fits(name: str, value: object) -> bool:
    try:
        msgspec.convert(value, _FORMS[name])
    except msgspec.ValidationError:
        log.debug("gpu.unbelievable", extra={"gauge": name, "value": repr(value)[:100]})
        return False
    return True


def _gauges(handle: Any) -> dict[str, object]:
    usage = told(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
    memory = told(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    return {
        "utilisation_pct": None if usage is None else float(min(100, usage.gpu)),
        "memory_busy_pct": None if usage is None else float(min(100, usage.memory)),
        "memory_used_bytes": None if memory is None else int(memory.used),
        "memory_total_bytes": None if memory is None else int(memory.total),
        "temperature_c": _temperature(handle),
        "power_mw": told(lambda: int(pynvml.nvmlDeviceGetPowerUsage(handle))),
        "power_limit_mw": first_told(
            lambda: int(pynvml.nvmlDeviceGetEnforcedPowerLimit(handle)),
            lambda: int(pynvml.nvmlDeviceGetPowerManagementLimit(handle)),
        ),
        "fan_pct": told(lambda: float(min(100, pynvml.nvmlDeviceGetFanSpeed(handle)))),
        "pcie_rx_bytes_per_s": _pcie(handle, pynvml.NVML_PCIE_UTIL_RX_BYTES),
        "pcie_tx_bytes_per_s": _pcie(handle, pynvml.NVML_PCIE_UTIL_TX_BYTES),
    }


def _temperature(handle: Any) -> float | None:
    sensor = pynvml.NVML_TEMPERATURE_GPU
    return first_told(
        lambda: float(pynvml.nvmlDeviceGetTemperatureV(handle, sensor)),
        lambda: float(pynvml.nvmlDeviceGetTemperature(handle, sensor)),
    )


def _pcie(handle: Any, counter: int) -> int | None:
    """NVML counts KB over 20 ms."""
    return told(lambda: 1024 * int(pynvml.nvmlDeviceGetPcieThroughput(handle, counter)))


def _clocks(handle: Any) -> dict[str, object]:
    reasons = first_told(
        lambda: int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)),
        lambda: int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
    )
    return {
        "clock_mhz": told(lambda: int(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))),
        "memory_clock_mhz": told(lambda: int(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM))),
        "throttle": None if reasons is None else throttle(reasons),
    }


def throttle(bits: int) -> tuple[str, ...]:
    """NVML's bits as words; those that have no word here are one `other`."""
    words = tuple(word.value for bit, word in _THROTTLE.items() if bits & bit)
    unknown = bits & ~sum(_THROTTLE)
    return (*words, Throttle.OTHER.value) if unknown else words


def _neighbours(handle: Any, ours: Ours) -> dict[str, object]:
    """Counts alone: what others run on their machine is no business of the market."""
    found = told(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
    if found is None:
        return {}
    foreign = [one for one in found if not ours(int(one.pid))]
    return {
        "processes": len(found),
        "foreign_processes": len(foreign),
        "foreign_memory_bytes": sum(int(one.usedGpuMemory or 0) for one in foreign),
    }


def _health(handle: Any) -> dict[str, object]:
    uncorrected, volatile = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
    return {
        "ecc_errors": told(lambda: int(pynvml.nvmlDeviceGetTotalEccErrors(handle, uncorrected, volatile))),
        "retired_pages": first_told(
            lambda: sum(
                len(pynvml.nvmlDeviceGetRetiredPages(handle, cause))
                for cause in range(pynvml.NVML_PAGE_RETIREMENT_CAUSE_COUNT)
            ),
            lambda: sum(pynvml.nvmlDeviceGetRemappedRows(handle)[:2]),
        ),
    }


def below(parent: int) -> Ours:
    """Whether a process was started by `parent` or by one that it started: a node's workers are its descendants."""

    def ours(pid: int) -> bool:
        try:
            return pid == parent or any(one.pid == parent for one in psutil.Process(pid).parents())
        except psutil.Error:
            return False

    return ours


# Critical errors ----------------------------------------------------------------------------------------------------


class XidWatch:
    """One card's critical errors, from an event set of its own. A driver that has none (vGPU, WSL) tells nothing."""

    def __init__(self, handle: Any) -> None:
        self.newest: int | None = None
        self._events: Any = told(lambda: _subscribe(handle))

    def look(self) -> list[int]:
        """What happened since the last look, oldest first; never waits. Raises `CardGone`."""
        found: list[int] = []
        while self._events is not None and len(found) < 64:
            event = told(lambda: pynvml.nvmlEventSetWait(self._events, 0))
            if event is None:
                break
            if event.eventType & pynvml.nvmlEventTypeXidCriticalError:
                found.append(int(event.eventData))
        self.newest = found[-1] if found else self.newest
        return found


def _subscribe(handle: Any) -> Any:
    if not pynvml.nvmlDeviceGetSupportedEventTypes(handle) & pynvml.nvmlEventTypeXidCriticalError:
        return None
    events = pynvml.nvmlEventSetCreate()
    try:
        pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
    except pynvml.NVMLError:
        pynvml.nvmlEventSetFree(events)
        raise
    return events
