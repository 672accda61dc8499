# SPDX-License-Identifier: Apache-2.0
"""What the node has to say: links and reports until they are acknowledged, everything else once."""

from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from qubix_node.link import Live
from qubix_protocol.messages import Message

_SAID_MAX: Final = 512
_WINDOW: Final = 256
"""Statements on the way at a time."""
RESEND_S: Final = 15.0
SENDS_MAX: Final = 20
"""Times that one statement is sent in live sessions; silence beyond means that the coordinator is done with it."""

Key = tuple[str, int | None]
"""Attempt and the index of its link; None for its report."""


class Outbox:
    """Kept statements go out in the order in which they were put, so a report always follows its links.

    When an acknowledgement stays away, or a new session begins, sending starts again from the oldest: each is sealed
    anew, its body is the same, and the coordinator takes duplicates for one.
    """

    def __init__(self, unanswered: Callable[[str], Awaitable[None]]) -> None:
        """`unanswered` is called with the id of an attempt that was sent for `SENDS_MAX` times in vain."""
        self._unanswered = unanswered
        self._kept: OrderedDict[Key, Message] = OrderedDict()
        self._sent: dict[Key, float] = {}
        self._sends: Counter[Key] = Counter()
        self._said: deque[Message] = deque(maxlen=_SAID_MAX)
        self._wake = trio.Event()

    def __len__(self) -> int:
        return len(self._kept)

    def waiting(self) -> list[tuple[Key, Message]]:
        """Everything that is not acknowledged, in order."""
        return list(self._kept.items())

    def overdue(self) -> list[tuple[Key, Message]]:
        """What live sessions were told more than once without an answer."""
        return [(key, message) for key, message in self._kept.items() if self._sends[key] > 1]

    def keep(self, key: Key, message: Message) -> None:
        """Sent until `acknowledge`. The caller has it in the journal already, which bounds how many there are."""
        self._kept.setdefault(key, message)
        self._wake.set()

    def say(self, message: Message) -> None:
        """Sent once, if a session stands soon; the oldest are forgotten on overflow."""
        self._said.append(message)
        self._wake.set()

    def acknowledge(self, key: Key) -> bool:
        """False when nothing of that name waits (a duplicate)."""
        self._sent.pop(key, None)
        self._sends.pop(key, None)
        self._wake.set()
        return self._kept.pop(key, None) is not None

    def resend(self, key: Key) -> None:
        """Do not wait for the usual time."""
        self._sent.pop(key, None)
        self._wake.set()

    def forget(self, attempt_id: str) -> None:
        """Nothing of this attempt interests the coordinator any more."""
        for key in [key for key in self._kept if key[0] == attempt_id]:
            self.acknowledge(key)

    async def run(self, live: Live) -> None:
        """A session's task. Raises `MeshError` when the stream breaks."""
        self._sent.clear()
        try:
            while True:
                self._wake = trio.Event()
                await self._send_all(live)
                with trio.move_on_after(RESEND_S / 3):
                    await self._wake.wait()
        finally:
            self._said.clear()

    async def _send_all(self, live: Live) -> None:
        while self._said:
            await live.send(self._said.popleft())
        for key, message in self._due(trio.current_time()):
            if self._sends[key] >= SENDS_MAX:
                self.forget(key[0])
                await self._unanswered(key[0])
                return
            # Noted first: the acknowledgement may overtake the end of the sending.
            self._sent[key] = trio.current_time()
            self._sends[key] += 1
            await live.send(message)

    def _due(self, now_s: float) -> list[tuple[Key, Message]]:
        if self._sent and min(self._sent.values()) < now_s - RESEND_S:
            self._sent.clear()
        room = _WINDOW - len(self._sent)
        waiting = ((key, message) for key, message in self._kept.items() if key not in self._sent)
        return [pair for _, pair in zip(range(room), waiting, strict=False)]
