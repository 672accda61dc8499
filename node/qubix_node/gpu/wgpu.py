# SPDX-License-Identifier: Apache-2.0
"""Cards of AMD, Intel and Apple, as wgpu finds them. NVIDIA's are NVML's (`nvml`), whatever else finds them too.

wgpu itself never gets into this process: a child asks it once, at the start. What a card measures of itself comes from
/sys on Linux; elsewhere nothing is told, and nothing is said.
"""

import logging
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import psutil

from qubix_kernels.adapters import Adapter, decode
from qubix_kernels.box.rules import Gpu, graphics
from qubix_node.clock import wall_ms
from qubix_node.gpu import drm, rules
from qubix_node.gpu.rules import Graphics
from qubix_protocol.messages import Device, Sample
from qubix_protocol.states import DeviceKind

log = logging.getLogger("qubix_node")
LOOK_S: Final = 20.0
GAUGES: Final = ("utilisation_pct", "memory_used_bytes", "temperature_c", "power_mw", "clock_mhz", "fan_pct")
_TEXT_MAX: Final = 200
Look = Callable[[], list[Adapter]]


def by_child() -> list[Adapter]:
    """Raises OSError or RuntimeError."""
    command = [sys.executable, "-P", "-m", "qubix_kernels.adapters"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LOOK_S, check=False, cwd="/"
        )
        return decode(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"a graphics driver did not answer within {LOOK_S:g} s") from error
    except msgspec.MsgspecError as error:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"graphics drivers cannot be asked: {' '.join(said)[:300] or done.returncode}") from error


class WgpuProbe:
    """A `device.DeviceProbe`. `backends` are those of WebGPU that kernels have; `software`: a test wants what is no
    card as well; `system` is the platform's name."""

    def __init__(
        self,
        peer_id: str,
        backends: tuple[str, ...],
        *,
        software: bool = False,
        look: Look = by_child,
        root: drm.Drm | None = None,
        system: str = sys.platform,
    ) -> None:
        self._peer, self._backends, self._system = peer_id, backends, system
        self._cards: dict[str, tuple[Graphics, Device]] = {}
        self._lost: dict[str, str] = {}
        self.unfit: Mapping[str, str] = {}
        self.reason = ""
        nodes = (root or drm.Drm()).nodes() if system == "linux" else None
        if nodes is not None and not software and not [one for one in nodes if one.vendor_id != rules.NVIDIA]:
            self.reason = "no other graphics card has a render node in /dev/dri"
            return
        try:
            adapters = look()
        except (OSError, RuntimeError) as error:
            self.reason = str(error)
            return
        found, self.unfit = rules.graphics(adapters, nodes, software=software)
        self._keep(found)
        if not self._cards:
            self.reason = rules.unreachable(nodes or ()) or "no graphics card has a Vulkan, Metal or Direct3D 12 driver"

    def _keep(self, found: Sequence[Graphics]) -> None:
        for number, one in enumerate(found):
            place = one.node.slot if one.node else str(number)
            device = Device(
                device_id=f"wgpu-{self._peer[-12:]}-{place}",
                kind=DeviceKind.WEBGPU,
                model=_text(one.adapter.name) or "graphics card",
                memory_bytes=self._memory_bytes(one),
                driver=_text(f"{one.adapter.driver} ({one.adapter.api}, {one.adapter.kind})".strip()),
                backends=self._backends,
                fallback=rules.is_software(one.adapter),
            )
            self._cards[device.device_id] = one, device
            told = self._read(one)
            missing = [name for name in GAUGES if getattr(told, name) is None]
            log.info("gpu.graphics", extra={"model": device.model, "driver": device.driver, "not_told": missing})

    def _memory_bytes(self, one: Graphics) -> int:
        """Of its own where the system tells; where it shares the machine's, the half that drivers give it; else as much
        as one buffer may have, which is there for certain."""
        told = drm.memory_bytes(one.node.device) if one.node else None
        if told is not None:
            return told
        if one.adapter.kind in ("integrated", "software"):
            return int(psutil.virtual_memory().total) // 2
        return one.adapter.buffer_bytes

    def devices(self) -> list[Device]:
        return [device for _, device in list(self._cards.values())]

    def sample(self, device_id: str) -> Sample | None:
        found = self._cards.get(device_id)
        if found is None:
            return None
        one, device = found
        if one.node is not None and not one.node.path.exists():
            del self._cards[device_id]
            self._lost[device_id] = f"its render node {one.node.path} is gone"
            self.reason = f"{device.model} is lost: {self._lost[device_id]}"
            return None
        return self._read(one)

    def _read(self, one: Graphics) -> Sample:
        return drm.sample(one.node) if one.node is not None else Sample(at_ms=wall_ms())

    def lost(self, device_id: str) -> str:
        return self._lost.get(device_id, "")

    def gpu(self, device_id: str) -> Gpu | None:
        """What its box shows."""
        found = self._cards.get(device_id)
        if found is None:
            return None
        one = found[0]
        node, folders = (str(one.node.path), (str(one.node.device),)) if one.node else ("", ())
        return graphics(device_id, one.adapter.name, node, folders)

    def close(self) -> None:
        return


def _text(words: str) -> str:
    """As a statement may carry it."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())[:_TEXT_MAX]
