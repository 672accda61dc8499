# SPDX-License-Identifier: Apache-2.0
"""Which hardware to look at, by the settings and by what is there."""

import logging
from typing import Final

import trio

from qubix_node.errors import NothingToOffer
from qubix_node.gpu.cpu import CpuProbe
from qubix_node.gpu.device import DeviceProbe
from qubix_node.gpu.nvml import NvmlProbe
from qubix_node.gpu.toolkit import cuda_major
from qubix_protocol.messages import Device

log = logging.getLogger("qubix_node")
DETECT_S: Final = 30.0
_USE_CPU: Final = "or offer the CPU with QUBIX_NODE_DEVICES=cpu or auto."


async def detected(
    choice: str, peer_id: str, cuda_backends: tuple[str, ...], *, detect_s: float = DETECT_S
) -> list[DeviceProbe]:
    """`probes` in a thread: a driver that hangs is one that is not there. Raises `NothingToOffer`."""
    found: list[DeviceProbe] = []
    with trio.move_on_after(detect_s) as waited:
        found = await trio.to_thread.run_sync(  # type: ignore[call-arg]
            probes, choice, peer_id, cuda_backends, abandon_on_cancel=True
        )
    if not waited.cancelled_caught:
        return found
    reason = f"the NVIDIA driver did not answer within {detect_s:g} s"
    log.error("gpu.none", extra={"reason": reason, "do": "restart this machine, or mend its driver"})
    if choice == "gpu":
        raise NothingToOffer(f"{reason}. Restart this machine, {_USE_CPU}")
    return [CpuProbe(peer_id)]


def probes(choice: str, peer_id: str, cuda_backends: tuple[str, ...]) -> list[DeviceProbe]:
    """`choice` as in the settings: `auto` takes GPUs that can be rented, or else the CPU. Raises `NothingToOffer`."""
    if choice == "cpu":
        return [CpuProbe(peer_id)]
    nvidia = NvmlProbe(cuda_backends, toolkit=cuda_major())
    cards = nvidia.devices()
    if nvidia.reason:
        log.info("gpu.none", extra={"reason": nvidia.reason})
    for card in cards:
        if not rentable(card):
            log.warning("gpu.not_rentable", extra={"model": card.model, "reason": nvidia.unfit[card.device_id]})
    if any(rentable(card) for card in cards):
        return [nvidia]
    if choice == "gpu":
        raise NothingToOffer(_nothing(nvidia, cards))
    return [nvidia, CpuProbe(peer_id)]


def _nothing(nvidia: NvmlProbe, cards: list[Device]) -> str:
    if not cards:
        return f"{nvidia.reason}. Install the driver, {_USE_CPU}"
    reasons = "; ".join(f"{card.model}: {nvidia.unfit[card.device_id]}" for card in cards)
    return f"no GPU of this machine can be rented ({reasons}). Mend that, {_USE_CPU}"


def rentable(device: Device) -> bool:
    return bool(device.backends)
