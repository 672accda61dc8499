# SPDX-License-Identifier: Apache-2.0
"""What is kept is sent in order until it is acknowledged; what is only said is sent once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from qubix_mesh.errors import StreamClosed
from qubix_node.jobs.outbox import RESEND_S, SENDS_MAX, Outbox
from qubix_protocol.messages import Accept, Heartbeat, Message

pytestmark = pytest.mark.trio


class Line:
    """In the place of a session: remembers, or breaks."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.broken = False

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise StreamClosed("broken")
        self.sent.append(message)


def note(fence: int) -> Accept:
    return Accept(attempt_id="00000000-0000-0000-0000-000000000001", fence=fence)


async def nobody(attempt_id: str) -> None:
    raise AssertionError(attempt_id)


@asynccontextmanager
async def running(outbox: Outbox, line: Line) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run, line)
        yield
        nursery.cancel_scope.cancel()


async def test_everything_goes_out_in_order_and_once(autojump_clock: trio.testing.MockClock) -> None:
    outbox, line = Outbox(nobody), Line()
    for index in range(600):
        outbox.keep(("a", index), note(index))
    outbox.keep(("a", None), note(600))
    async with running(outbox, line):
        acknowledged = 0
        while acknowledged <= 600:
            await trio.sleep(0.1)
            for message in line.sent[acknowledged:]:
                assert isinstance(message, Accept)
                assert outbox.acknowledge(("a", message.fence if message.fence < 600 else None))
                acknowledged += 1
    assert [m.fence for m in line.sent if isinstance(m, Accept)] == list(range(601))
    assert len(outbox) == 0
    assert not outbox.acknowledge(("a", 0)), "a duplicate"


async def test_silence_means_again_from_the_oldest(autojump_clock: trio.testing.MockClock) -> None:
    outbox, line = Outbox(nobody), Line()
    for index in range(3):
        outbox.keep(("a", index), note(index))
    async with running(outbox, line):
        await trio.sleep(1)
        outbox.acknowledge(("a", 0))
        await trio.sleep(RESEND_S * 1.5)
    assert [m.fence for m in line.sent if isinstance(m, Accept)] == [0, 1, 2, 1, 2]


async def test_a_new_session_sends_what_is_kept_and_not_what_was_said(
    autojump_clock: trio.testing.MockClock,
) -> None:
    outbox, line = Outbox(nobody), Line()
    outbox.keep(("a", 0), note(0))
    outbox.say(Heartbeat())
    async with running(outbox, line):
        await trio.sleep(0.1)
    again = Line()
    async with running(outbox, again):
        await trio.sleep(0.1)
    assert (line.sent, again.sent) == ([Heartbeat(), note(0)], [note(0)])


async def test_a_broken_line_ends_the_session_and_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    outbox, line = Outbox(nobody), Line()
    line.broken = True
    outbox.keep(("a", 0), note(0))
    with pytest.raises(StreamClosed):
        await outbox.run(line)  # type: ignore[arg-type]
    assert len(outbox) == 1


async def test_what_nobody_ever_answers_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    given_up: list[str] = []

    async def unanswered(attempt_id: str) -> None:
        await trio.lowlevel.checkpoint()
        given_up.append(attempt_id)

    outbox, line = Outbox(unanswered), Line()
    outbox.keep(("a", 0), note(0))
    outbox.keep(("a", None), note(1))
    async with running(outbox, line):
        await trio.sleep(RESEND_S * SENDS_MAX * 2)
    assert given_up == ["a"]
    assert len(outbox) == 0
    assert line.sent.count(note(0)) == SENDS_MAX
