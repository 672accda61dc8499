# SPDX-License-Identifier: Apache-2.0
"""Which hardware to look at, by the settings and by what is there."""

import logging

from qubix_node.errors import NothingToOffer
from qubix_node.gpu.cpu import CpuProbe
from qubix_node.gpu.device import DeviceProbe
from qubix_node.gpu.nvml import NvmlProbe
from qubix_protocol.messages import Device

log = logging.getLogger("qubix_node")


def probes(choice: str, peer_id: str, cuda_backends: tuple[str, ...]) -> list[DeviceProbe]:
    """`choice` as in the settings: `auto` takes GPUs that can be rented, or else the CPU. Raises `NothingToOffer`."""
    if choice == "cpu":
        return [CpuProbe(peer_id)]
    nvidia = NvmlProbe(cuda_backends)
    cards = nvidia.devices()
    if nvidia.reason:
        log.info("gpu.none", extra={"reason": nvidia.reason})
    if choice == "gpu" and not cards:
        raise NothingToOffer(
            f"{nvidia.reason}. Install the driver, or offer the CPU with QUBIX_NODE_DEVICES=cpu or auto."
        )
    if any(rentable(card) for card in cards):
        return [nvidia]
    if choice == "gpu":
        return [nvidia]
    for card in cards:
        log.warning("gpu.not_rentable", extra={"model": card.model, "reason": "no kernel has a CUDA back end"})
    return [nvidia, CpuProbe(peer_id)]


def rentable(device: Device) -> bool:
    return bool(device.backends)
