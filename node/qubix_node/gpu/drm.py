# SPDX-License-Identifier: Apache-2.0
"""Graphics cards as Linux shows them: render nodes in /dev/dri, what they are and measure in /sys. No driver's library
is asked anything here; a gauge that a driver does not show is None.

Paths and units: the kernel's documentation of amdgpu (gpu/amdgpu/thermal, driver-misc), i915 and xe, and hwmon's sysfs
interface (temperatures in m°C, power in µW, frequencies in Hz).
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qubix_node.clock import wall_ms
from qubix_protocol.messages import Sample

_MHZ: Final = 1_000_000
_UW: Final = 1_000


@dataclass(frozen=True, slots=True)
class RenderNode:
    """`slot` is the card's place on the bus, which stays; `device` its folder in /sys; `usable` whether this user may
    open the node."""

    path: Path
    device: Path
    slot: str
    vendor_id: int
    device_id: int
    usable: bool


class Drm:
    """`root` is another one in tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def nodes(self) -> list[RenderNode]:
        """In the order of their slots."""
        found = [self._node(path) for path in sorted((self._root / "sys/class/drm").glob("renderD*"))]
        return sorted((one for one in found if one is not None), key=lambda one: (one.slot, one.path))

    def _node(self, entry: Path) -> RenderNode | None:
        try:
            device = (entry / "device").resolve(strict=True)
        except OSError:
            return None
        vendor, number = _number(device / "vendor"), _number(device / "device")
        path = self._root / "dev/dri" / entry.name
        if vendor is None or number is None or not path.exists():
            return None  # on no PCI bus, as in a phone
        return RenderNode(path, device, device.name, vendor, number, os.access(path, os.R_OK | os.W_OK))


def sample(node: RenderNode) -> Sample:
    """What the driver shows now."""
    hwmon = next(iter(sorted((node.device / "hwmon").glob("hwmon*"))), node.device / "none")
    cards = sorted((node.device / "drm").glob("card*"))
    used, total = _memory(node.device)
    return Sample(
        at_ms=wall_ms(),
        utilisation_pct=_within(_number(node.device / "gpu_busy_percent"), 0, 100),
        memory_busy_pct=_within(_number(node.device / "mem_busy_percent"), 0, 100),
        memory_used_bytes=used,
        memory_total_bytes=total,
        temperature_c=_within(_scaled(_number(hwmon / "temp1_input"), 1 / 1000), -100, 300),
        power_mw=_whole(_first([hwmon / "power1_average", hwmon / "power1_input"]), _UW),
        power_limit_mw=_whole(_number(hwmon / "power1_cap"), _UW),
        clock_mhz=_clock(node.device, hwmon, cards),
        memory_clock_mhz=_whole(_number(hwmon / "freq2_input"), _MHZ),
        fan_pct=_fan(hwmon),
    )


def memory_bytes(device: Path) -> int | None:
    """Of its own, or what it may take of the machine's where it has next to none of its own."""
    return _memory(device)[1]


def _memory(device: Path) -> tuple[int | None, int | None]:
    """Used and in all. A processor's graphics unit has a small part set aside for it (VRAM) and takes the rest from the
    machine's memory (GTT)."""
    own, own_used = _number(device / "mem_info_vram_total"), _number(device / "mem_info_vram_used")
    if own is None or own_used is None:
        return None, None
    shared, shared_used = _number(device / "mem_info_gtt_total"), _number(device / "mem_info_gtt_used")
    if shared is not None and shared_used is not None and shared > own and _is_small(own):
        return own_used + shared_used, own + shared
    return own_used, own


def _is_small(own: int) -> bool:
    return own <= 2 * 1024**3


def _clock(device: Path, hwmon: Path, cards: Iterable[Path]) -> int | None:
    """amdgpu's, else i915's, else xe's."""
    found = _whole(_number(hwmon / "freq1_input"), _MHZ)
    if found is not None:
        return found
    return _first([*(card / "gt_act_freq_mhz" for card in cards), device / "tile0/gt0/freq0/act_freq"])


def _fan(hwmon: Path) -> float | None:
    turns, most = _number(hwmon / "fan1_input"), _number(hwmon / "fan1_max")
    return _within(100 * turns / most, 0, 100) if turns is not None and most else None


def _first(paths: Iterable[Path]) -> int | None:
    return next((found for path in paths if (found := _number(path)) is not None), None)


def _number(path: Path) -> int | None:
    """Decimal or, with 0x, hexadecimal; None for what cannot be read just now, which some gauges of a sleeping card
    cannot."""
    try:
        return int(path.read_text().strip(), 0)
    except (OSError, ValueError):
        return None


def _scaled(number: int | None, factor: float) -> float | None:
    return None if number is None else number * factor


def _whole(number: int | None, unit: int) -> int | None:
    return None if number is None or number < 0 else number // unit


def _within(number: float | None, low: float, high: float) -> float | None:
    return float(number) if number is not None and low <= number <= high else None
