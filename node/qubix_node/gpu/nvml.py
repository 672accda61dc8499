# SPDX-License-Identifier: Apache-2.0
"""NVIDIA GPUs through NVML, by NVIDIA's own binding (`pynvml` of nvidia-ml-py).

Without a driver the library is missing: no devices, and a reason. A card that falls off the bus (GpuIsLost), wants a
reset or has a critical error of its own (Xid) is gone until the node starts again, and nothing here resets it (trust
B2); the others go on.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pynvml

from qubix_node.errors import CardGone
from qubix_node.gpu import reading, rules
from qubix_protocol.messages import Device, Sample

log = logging.getLogger("qubix_node")
_REASONS: Final = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no NVIDIA driver is installed (libnvidia-ml.so.1 is missing)",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is installed but not loaded",
    pynvml.NVML_ERROR_NO_PERMISSION: "this user may not use the NVIDIA driver",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the NVIDIA driver was updated under a running system: restart it",
}
_NO_BACKEND: Final = "no kernel has a CUDA back end"


@dataclass(slots=True)
class _Card:
    handle: Any
    device: Device
    minor: int | None
    xids: reading.XidWatch


class NvmlProbe:
    """A `device.DeviceProbe`. `backends` are the CUDA back ends that kernels really have: without any, cards are listed
    and nothing can be rented on them. `toolkit` is the major version of the installed CUDA parts. `sample` may be
    called from several threads, each for another card."""

    def __init__(
        self, backends: tuple[str, ...], *, toolkit: int | None, ours: Callable[[int], bool] | None = None
    ) -> None:
        self._backends, self._toolkit = backends, toolkit
        self._ours = ours or reading.below(os.getpid())
        self._cards: dict[str, _Card] = {}
        self._lost: dict[str, str] = {}
        self.unfit: dict[str, str] = {}
        self.reason = ""
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            self.reason = _REASONS.get(error.value, f"NVML does not start: {error}")
            return
        self._find(count)

    def _find(self, count: int) -> None:
        """In the order of their UUIDs: indices change with slots, drivers and environment variables."""
        found = [card for index in range(count) if (card := self._open(index)) is not None]
        self._cards = {card.device.device_id: card for card in sorted(found, key=lambda card: card.device.device_id)}
        if not self._cards and not self.reason:
            self.reason = "the NVIDIA driver sees no GPU"

    def _open(self, index: int) -> _Card | None:
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            found = reading.fitness(handle)
            obstacle = rules.unfit(found, self._toolkit) if self._backends else _NO_BACKEND
            device = reading.describe(handle, () if obstacle else self._backends)
            card = _Card(handle, device, reading.minor(handle), reading.XidWatch(handle))
        except (pynvml.NVMLError, CardGone) as error:
            self.reason = f"GPU {index} does not answer: {error}"
            log.warning("gpu.unusable", extra={"gpu": index, "reason": str(error)})
            return None
        if obstacle:
            self.unfit[device.device_id] = obstacle
        elif remark := rules.remark(found):
            log.warning("gpu.remark", extra={"model": device.model, "device": device.device_id, "what": remark})
        return card

    def devices(self) -> list[Device]:
        return [card.device for card in list(self._cards.values())]

    def sample(self, device_id: str) -> Sample | None:
        card = self._cards.get(device_id)
        if card is None:
            return None
        try:
            self._judge(card.device, card.xids.look())
            return reading.read(card.handle, card.xids.newest, self._ours)
        except CardGone as error:
            self._lose(card.device, str(error))
            return None

    def _judge(self, device: Device, xids: list[int]) -> None:
        for xid in xids:
            if rules.condemns(xid):
                raise CardGone(f"the driver reported critical error Xid {xid}")
            log.warning("gpu.program_error", extra={"device": device.device_id, "xid": xid})

    def _lose(self, device: Device, reason: str) -> None:
        self._cards.pop(device.device_id, None)
        self._lost[device.device_id] = reason
        self.reason = f"{device.model} is lost: {reason}"

    def lost(self, device_id: str) -> str:
        return self._lost.get(device_id, "")

    def minor(self, device_id: str) -> int | None:
        """N of the card's /dev/nvidiaN, which is not its index; None where there is none (WSL), or it is gone. From
        memory: the driver is not asked."""
        card = self._cards.get(device_id)
        return card.minor if card is not None else None

    def pids(self, device_id: str) -> frozenset[int] | None:
        """Who computes on the card, by the driver's word; None when it does not tell, or the card is gone. This asks
        the driver, which may hang: call it in a thread, with a deadline."""
        card = self._cards.get(device_id)
        return reading.pids(card.handle) if card is not None else None

    def close(self) -> None:
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            log.debug("gpu.shutdown", extra={"reason": str(error)})
