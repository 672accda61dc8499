# SPDX-License-Identifier: Apache-2.0
"""Which device nodes are whose: what a card's box shows, and whom the driver lists on it."""

import logging
import shutil
import subprocess
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

from qubix_kernels.box import rules
from qubix_node.gpu.device import DeviceProbe
from qubix_node.gpu.nvml import NvmlProbe
from qubix_node.gpu.wgpu import WgpuProbe
from qubix_node.jobs.cards import Card

log = logging.getLogger("qubix_node")
_UVM: Final = Path("/dev/nvidia-uvm")
_MODPROBE_S: Final = 30.0


def cards_of(probes: Iterable[DeviceProbe]) -> dict[str, Card]:
    """Each NVIDIA card that has a device node: without one (WSL) there is no box for it, and its kernels find no card.
    And the cards of others."""
    found = {}
    for probe in probes:
        if isinstance(probe, NvmlProbe):
            for device in probe.devices():
                minor = probe.minor(device.device_id)
                if minor is not None:
                    gpu = rules.nvidia(device.device_id, minor)
                    found[device.device_id] = Card(gpu, partial(probe.pids, device.device_id))
    if found and not _UVM.exists():
        _make_uvm()
    return found | _graphics(probes)


def _graphics(probes: Iterable[DeviceProbe]) -> dict[str, Card]:
    """Nobody tells who computes on them. On these only our own shaders run, and wgpu clears each buffer before they can
    read it: what is left in memory is nobody's to see."""
    found = {}
    for probe in probes:
        if isinstance(probe, WgpuProbe):
            for device in probe.devices():
                gpu = probe.gpu(device.device_id)
                if gpu is not None:
                    found[device.device_id] = Card(gpu, lambda: None, wipes=False)
    return found


def _make_uvm() -> None:
    """The driver's own helper makes the node at the first use of CUDA, which a box cannot wait for."""
    helper = shutil.which("nvidia-modprobe", path="/usr/bin:/usr/sbin:/bin:/sbin")
    if helper is None:
        log.warning("gpu.no_uvm", extra={"reason": f"{_UVM} is missing, and nvidia-modprobe too: CUDA will not start"})
        return
    subprocess.run([helper, "-u", "-c=0"], stdin=subprocess.DEVNULL, timeout=_MODPROBE_S, check=False)
