# SPDX-License-Identifier: Apache-2.0
"""Reads every device now and then, keeps the last reading of each and the newest few to be sent.

Each device has a thread of its own, since a driver call can hang for as long as the driver likes: the others go on
being read. A device without a reading for `SILENT_S` goes off the market until the node starts again: an answer that
comes later is not believed, since what made the driver hang is still there, and nothing here resets a card (trust B2).
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from qubix_node.clock import wall_ms
from qubix_node.gpu.device import DeviceProbe
from qubix_node.link import Live
from qubix_protocol.messages import Device, DeviceSample, Sample, Telemetry
from qubix_protocol.states import DeviceKind
from qubix_protocol.units import READING_AGE_S_MAX

log = logging.getLogger("qubix_node")
SILENT_S: Final = 30.0
_KEPT_MAX: Final = 256
_FIRST_S: Final = 2.0
_PERIOD_S_MAX: Final = 10.0
"""However seldom the coordinator wants telemetry: offers carry readings too."""
_STRIKES: Final = 2

Lost = Callable[[Device, str], Awaitable[None]]


class _Reading:
    """One call of a probe, whose end is waited for in parts."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.sample: Sample | None = None
        self.failed = ""


class Sampler:
    """`lost` is told of each device that has gone, and why; `busy` says whether work of ours is on a device."""

    def __init__(
        self,
        probes: Sequence[DeviceProbe],
        lost: Lost,
        *,
        busy: Callable[[str], object] = lambda _: False,
        silent_s: float = SILENT_S,
    ) -> None:
        self._lost, self._busy, self._silent_s = lost, busy, silent_s
        self._probes = {device.device_id: probe for probe in probes for device in probe.devices()}
        self._present = {device.device_id: device for probe in probes for device in probe.devices()}
        self._gone: dict[str, Device] = {}
        self._queue: deque[DeviceSample] = deque(maxlen=_KEPT_MAX)
        # A thread that hangs keeps its place for ever, so the places are not those of the node's other work.
        self._threads = trio.CapacityLimiter(max(1, len(self._present)))
        self._latest: dict[str, Sample] = {}
        self._idle: dict[str, Sample] = {}
        self.period_s = _FIRST_S

    def devices(self) -> tuple[Device, ...]:
        """Those that answer."""
        return tuple(self._present.values())

    def gone(self) -> tuple[Device, ...]:
        """Those that did once."""
        return tuple(self._gone.values())

    def latest(self, device_id: str) -> Sample | None:
        """The last reading while it is young enough to be sent as what is now (P9)."""
        sample = self._latest.get(device_id)
        return sample if sample is not None and wall_ms() - sample.at_ms <= READING_AGE_S_MAX * 1000 else None

    def free_memory_bytes(self, device_id: str) -> int | None:
        """Of a card when it was last read with nothing of ours on it: a display or another program may hold some. None
        for what is no card, or does not tell. Memory that our last job held is not counted as taken."""
        sample, device = self._idle.get(device_id), self._present.get(device_id)
        if sample is None or device is None or device.kind is DeviceKind.CPU:
            return None
        if sample.memory_total_bytes is None or sample.memory_used_bytes is None:
            return None
        return max(0, sample.memory_total_bytes - sample.memory_used_bytes)

    async def run(self) -> None:
        """Until cancelled; a reading that hangs then is left to itself."""
        async with trio.open_nursery() as nursery:
            for device_id in list(self._present):
                nursery.start_soon(self._watch, device_id)
            await trio.sleep_forever()

    async def _watch(self, device_id: str) -> None:
        """Until the device has gone."""
        heard_s, failed = trio.current_time(), ""
        while device_id in self._present:
            busy = self._busy(device_id)
            reading = await self._read(device_id)
            if device_id not in self._present:
                return
            if reading.sample is not None:
                self._keep(device_id, reading.sample, idle=not (busy or self._busy(device_id)))
                heard_s = trio.current_time()
            elif reason := self._end(device_id, reading, trio.current_time() - heard_s):
                await self._drop(device_id, reason)
                return
            if reading.failed and reading.failed != failed:
                log.warning("gpu.no_reading", extra={"device": device_id, "reason": reading.failed})
            failed = reading.failed
            await trio.sleep(min(self.period_s, _PERIOD_S_MAX))

    def _end(self, device_id: str, reading: _Reading, silent_s: float) -> str:
        """Why a device that gave no sample leaves the market; "" while it may stay."""
        if not reading.done.is_set():
            return f"the driver did not answer within {self._silent_s:g} s"
        if not reading.failed:
            return self._probes[device_id].lost(device_id) or "it is gone"
        return f"no reading for {silent_s:.0f} s: {reading.failed}" if silent_s >= self._silent_s else ""

    async def _read(self, device_id: str) -> _Reading:
        """Waits `silent_s` in all, in parts: a process that was stopped for a while finds one part over, not all."""
        reading = _Reading()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask, device_id, reading)
            for _ in range(_STRIKES):
                with trio.move_on_after(self._silent_s / _STRIKES):
                    await reading.done.wait()
                    break
            nursery.cancel_scope.cancel()
        return reading

    async def _ask(self, device_id: str, reading: _Reading) -> None:
        try:
            reading.sample = await trio.to_thread.run_sync(  # type: ignore[call-arg]
                self._probes[device_id].sample, device_id, abandon_on_cancel=True, limiter=self._threads
            )
        except Exception as error:  # noqa: BLE001  whatever a driver's binding raises, the other devices go on
            reading.failed = f"{type(error).__name__}: {error}"[:500]
        reading.done.set()

    def _keep(self, device_id: str, sample: Sample, *, idle: bool) -> None:
        self._latest[device_id] = sample
        if idle:
            self._idle[device_id] = sample
        self._queue.append(DeviceSample(device_id=device_id, sample=sample))

    async def condemn(self, device_id: str, reason: str) -> None:
        """Whoever used it says that it cannot be used any more."""
        if device_id in self._present:
            await self._drop(device_id, reason)

    async def _drop(self, device_id: str, reason: str) -> None:
        device = self._gone[device_id] = self._present.pop(device_id)
        self._latest.pop(device_id, None)
        remedy = "look at it, then start the node again"
        log.error("gpu.off_market", extra={"device": device_id, "model": device.model, "reason": reason, "do": remedy})
        await self._lost(device, reason)

    async def send(self, live: Live) -> None:
        """A session's task: telemetry at the pace that the coordinator asks for."""
        self.period_s = live.welcome.telemetry_s
        while True:
            await trio.sleep(self.period_s)
            samples = []
            while self._queue:
                samples.append(self._queue.popleft())
            if samples:
                await live.send(Telemetry(samples=tuple(samples)))
