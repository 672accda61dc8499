# SPDX-License-Identifier: Apache-2.0
"""Which hardware to look at, by the settings and by what is there."""

import logging
from functools import partial
from typing import Final

import trio

from qubix_node.errors import NothingToOffer
from qubix_node.gpu.cpu import CpuProbe
from qubix_node.gpu.device import DeviceProbe
from qubix_node.gpu.nvml import NvmlProbe
from qubix_node.gpu.toolkit import cuda_major
from qubix_node.gpu.wgpu import Look, WgpuProbe, by_child
from qubix_protocol.messages import Device

log = logging.getLogger("qubix_node")
DETECT_S: Final = 30.0
_USE_CPU: Final = "or offer the CPU with QUBIX_NODE_DEVICES=cpu or auto."


async def detected(
    choice: str,
    peer_id: str,
    cuda_backends: tuple[str, ...],
    *,
    webgpu_backends: tuple[str, ...] = (),
    software: bool = False,
    detect_s: float = DETECT_S,
) -> list[DeviceProbe]:
    """`probes` in a thread: a driver that hangs is one that is not there. Raises `NothingToOffer`."""
    found: list[DeviceProbe] = []
    look = partial(probes, choice, peer_id, cuda_backends, webgpu_backends, software=software)
    with trio.move_on_after(detect_s) as waited:
        found = await trio.to_thread.run_sync(look, abandon_on_cancel=True)  # type: ignore[call-arg]
    if not waited.cancelled_caught:
        return found
    reason = f"the NVIDIA driver did not answer within {detect_s:g} s"
    log.error("gpu.none", extra={"reason": reason, "do": "restart this machine, or mend its driver"})
    if choice == "gpu":
        raise NothingToOffer(f"{reason}. Restart this machine, {_USE_CPU}")
    return [CpuProbe(peer_id)]


def probes(
    choice: str,
    peer_id: str,
    cuda_backends: tuple[str, ...],
    webgpu_backends: tuple[str, ...] = (),
    *,
    software: bool = False,
    look: Look = by_child,
) -> list[DeviceProbe]:
    """`choice` as in the settings: `auto` takes GPUs that can be rented, or else the CPU. `software`: what computes on
    the processor in a GPU's place counts as one, for a test; `look` asks wgpu. Raises `NothingToOffer`."""
    if choice == "cpu":
        return [CpuProbe(peer_id)]
    others = _graphics(peer_id, webgpu_backends, software, look)
    nvidia = NvmlProbe(cuda_backends, toolkit=cuda_major())
    cards = nvidia.devices()
    if nvidia.reason:
        log.info("gpu.none", extra={"reason": nvidia.reason})
    for card in cards:
        if not rentable(card):
            log.warning("gpu.not_rentable", extra={"model": card.model, "reason": nvidia.unfit[card.device_id]})
    if others or any(rentable(card) for card in cards):
        return [nvidia, *others]
    if choice == "gpu":
        raise NothingToOffer(_nothing(nvidia, cards))
    return [nvidia, CpuProbe(peer_id)]


def _graphics(peer_id: str, backends: tuple[str, ...], software: bool, look: Look) -> list[DeviceProbe]:
    """The cards of others than NVIDIA; nothing where there are none."""
    if not backends:
        return []
    probe = WgpuProbe(peer_id, backends, software=software, look=look)
    for model, reason in probe.unfit.items():
        log.info("gpu.not_offered", extra={"model": model, "reason": reason})
    if not probe.devices():
        log.info("gpu.no_graphics", extra={"reason": probe.reason})
        return []
    return [probe]


def _nothing(nvidia: NvmlProbe, cards: list[Device]) -> str:
    if not cards:
        return f"{nvidia.reason}. Install the driver, {_USE_CPU}"
    reasons = "; ".join(f"{card.model}: {nvidia.unfit[card.device_id]}" for card in cards)
    return f"no GPU of this machine can be rented ({reasons}). Mend that, {_USE_CPU}"


def rentable(device: Device) -> bool:
    return bool(device.backends)
