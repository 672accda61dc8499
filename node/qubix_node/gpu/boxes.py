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
from qubix_node.jobs.cards import Card

log = logging.getLogger("qubix_node")
_UVM: Final = Path("/dev/nvidia-uvm")
_MODPROBE_S: Final = 30.0


def cards_of(probes: Iterable[DeviceProbe]) -> dict[str, Card]:
    """Each card that has a device node. Without one (WSL) there is no box for it, and its kernels find no card."""
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
    return found


def _make_uvm() -> None:
    """The driver's own helper makes the node at the first use of CUDA, which a box cannot wait for."""
    helper = shutil.which("nvidia-modprobe", path="/usr/bin:/usr/sbin:/bin:/sbin")
    if helper is None:
        log.warning("gpu.no_uvm", extra={"reason": f"{_UVM} is missing, and nvidia-modprobe too: CUDA will not start"})
        return
    subprocess.run([helper, "-u", "-c=0"], stdin=subprocess.DEVNULL, timeout=_MODPROBE_S, check=False)
