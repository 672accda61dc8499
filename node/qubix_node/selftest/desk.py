# SPDX-License-Identifier: Apache-2.0
"""Self-tests of a running node: one after it went to market (R1.6), and whenever its owner or the coordinator asks."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from qubix_node.link import Live
from qubix_node.selftest.asked import Ask, Asked
from qubix_node.selftest.look import look_at
from qubix_node.selftest.tools import Tools
from qubix_protocol.messages import Device, Message
from qubix_protocol.selftest import SelfTest, SelfTestAsk, failing, summary

log = logging.getLogger("qubix_node")
FIRST_S: Final = 3.0
"""After the first offer: a job that waited for this device comes first."""
_MEASURED_S: Final = 600.0
_LOOK_S: Final = 0.5
_ASKED_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class _Wanted:
    """`device_id` "" means all; `ask` is who waits for the results on this machine."""

    device_id: str
    quick: bool
    ask: Ask | None = None


class SelfTests:
    """`tools` are for one device, of `devices`; `measured` says whether its rates are known to the end."""

    def __init__(
        self,
        *,
        tools: Callable[[Device], Tools],
        devices: Callable[[], Sequence[Device]],
        measured: Callable[[str], bool],
        offered: trio.Event,
        asked: Asked,
    ) -> None:
        self._tools, self._devices, self._measured = tools, devices, measured
        self._offered, self._asked = offered, asked
        self._wanted: deque[_Wanted] = deque(maxlen=_ASKED_MAX)
        self._unsent: dict[str, SelfTest] = {}
        self._more, self._found = trio.Event(), trio.Event()
        """Each is waited for by one task alone, which makes it anew."""

    def command(self, message: Message) -> bool:
        """One believed statement of the coordinator; False when it is not about self-tests."""
        if not isinstance(message, SelfTestAsk):
            return False
        self._want(_Wanted(message.device_id, message.quick))
        return True

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._want_the_first)
            while True:
                while self._wanted:
                    await self._carry_out(self._wanted.popleft())
                self._more = trio.Event()
                await self._more.wait()

    async def _want_the_first(self) -> None:
        await self._offered.wait()
        await trio.sleep(FIRST_S)
        with trio.move_on_after(_MEASURED_S):
            while not all(self._measured(device.device_id) for device in self._devices()):  # noqa: ASYNC110
                await trio.sleep(_LOOK_S)
        self._want(_Wanted("", quick=False))

    async def _watch(self) -> None:
        """For who asks on this machine."""
        while True:
            ask = await trio.to_thread.run_sync(self._asked.look)
            if ask is not None:
                self._want(_Wanted("", ask.quick, ask))
            await trio.sleep(_LOOK_S)

    async def _carry_out(self, wanted: _Wanted) -> None:
        tests = []
        for device in self._devices():
            if wanted.device_id in ("", device.device_id):
                test = await look_at(self._tools(device), quick=wanted.quick)
                say(device, test)
                self._unsent[device.device_id] = test
                self._found.set()
                tests.append(test)
        if wanted.ask is not None:
            await trio.to_thread.run_sync(self._asked.answer, wanted.ask, tests)

    async def report(self, live: Live) -> None:
        """A session's task: the newest test of each device, once."""
        while True:
            self._found = trio.Event()
            for device_id, test in list(self._unsent.items()):
                await live.send(test)
                if self._unsent.get(device_id) is test:
                    del self._unsent[device_id]
            await self._found.wait()

    def _want(self, wanted: _Wanted) -> None:
        self._wanted.append(wanted)
        self._more.set()


def say(device: Device, test: SelfTest) -> None:
    """In one line what was found, and what to do."""
    facts = {"device": device.kind.titled(device.model), "finding": summary(test.checks)}
    if failing(test.checks):
        log.warning("selftest.failed", extra=facts)
    else:
        log.info("selftest.passed", extra=facts)
