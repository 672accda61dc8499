# SPDX-License-Identifier: Apache-2.0
"""The node's way past every gateway: what goes there, when, and which answers are believed. The clock is trio's own:
each test names it, since pytest-trio sees a test's own arguments alone."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from qubix_node.courier import LOOK_S, Courier
from qubix_node.errors import StatementRefused, Unreachable
from qubix_node.identity import Incarnations
from qubix_node.jobs.outbox import Key, Outbox
from qubix_node.voice import Pins
from qubix_protocol import digests
from qubix_protocol.envelope import Opened, open_envelope, seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Acknowledged, Link, Message, Progress, Range, Report
from qubix_protocol.statements import FromNode
from qubix_protocol.states import Outcome

pytestmark = pytest.mark.trio
NODE, COORDINATOR = SigningKey(b"n" * 32), SigningKey(b"c" * 32)
ATTEMPT = "00000000-0000-0000-0002-000000000001"
NOW = 1_000_000
SESSION = 4


class World:
    """A courier, its outbox, and a coordinator that answers as `answer` says."""

    def __init__(self, folder: Any) -> None:
        (folder / "incarnation").write_text(f"{SESSION}\n")
        self.linked = False
        self.brought: list[Message] = []
        self.sequences: list[tuple[int, int]] = []
        self.fault: Exception | None = None
        self.answer: Callable[[Opened, Acknowledged], bytes] = self.acknowledge
        self.outbox = Outbox(_nobody)
        self.courier = Courier(
            self._post,
            Pins(NODE, "devnet", COORDINATOR.public),
            Incarnations(folder / "incarnation"),
            self.outbox,
            linked=lambda: self.linked,
            clock_ms=lambda: NOW,
            heard=self._heard,
        )

    def acknowledge(self, asked: Opened, told: Acknowledged, key: SigningKey = COORDINATOR, skew: int = 0) -> bytes:
        incarnation, counter = asked.sequence
        return seal(
            told,
            key,
            network="devnet",
            audience=NODE.public,
            incarnation=incarnation,
            counter=counter + skew,
            expires_ms=NOW + 1_000,
        )

    async def _post(self, raw: bytes) -> bytes:
        if self.fault is not None:
            raise self.fault
        opened = open_envelope(raw, network="devnet", audience=COORDINATOR.public, now_ms=NOW, sender=NODE.public)
        message: Any = opened.body(FromNode)  # type: ignore[arg-type]
        self.brought.append(message)
        self.sequences.append(opened.sequence)
        link = message.link.index if isinstance(message, Progress) and message.link else None
        return self.answer(opened, Acknowledged(attempt_id=message.attempt_id, fence=1, link=link))

    async def _heard(self, message: Message) -> None:
        assert isinstance(message, Acknowledged)
        self.outbox.acknowledge((message.attempt_id, message.link))

    def keep(self) -> tuple[Progress, Report]:
        link, report = _link(), _report()
        self.outbox.keep((ATTEMPT, 0), link)
        self.outbox.keep((ATTEMPT, None), report)
        return link, report

    async def looks(self, times: int) -> None:
        with trio.move_on_after(LOOK_S * times + LOOK_S / 2):
            await self.courier.run()


async def _nobody(attempt_id: str) -> None:
    raise AssertionError(attempt_id)


def _link() -> Progress:
    link = Link(
        index=0,
        units=Range(0, 5),
        output_digest=bytes(32),
        output_bytes=1,
        claimed_ms=1,
        predecessor=digests.ZERO,
    )
    return Progress(attempt_id=ATTEMPT, fence=1, fraction=0.5, elapsed_ms=1, link=link)


def _report() -> Report:
    return Report(
        job_id=ATTEMPT,
        attempt_id=ATTEMPT,
        fence=1,
        outcome=Outcome.COMPLETED,
        kernel="knn",
        params_digest=bytes(32),
        inputs_digest=bytes(32),
        links=1,
        units_done=5,
        head=bytes(32),
        claimed_ms=1,
        started_ms=0,
        finished_ms=1,
        backend="cpu",
        device_id="cpu-1",
    )


@pytest.fixture
def world(tmp_path: Any) -> World:
    return World(tmp_path)


async def test_without_any_session_everything_is_brought_in_order_and_once(
    world: World, autojump_clock: MockClock
) -> None:
    link, report = world.keep()
    await world.looks(3)
    assert world.brought == [link, report]
    assert len(world.outbox) == 0
    assert [incarnation for incarnation, _ in world.sequences] == [SESSION, SESSION]
    assert world.sequences == sorted(set(world.sequences))


async def test_in_a_session_only_what_it_was_told_in_vain_is_brought(world: World, autojump_clock: MockClock) -> None:
    link, _ = world.keep()
    world.linked = True
    await world.looks(2)
    assert world.brought == []
    world.outbox._sends[ATTEMPT, 0] = 2
    await world.looks(1)
    assert world.brought == [link]


@pytest.mark.parametrize("lie", [{"key": SigningKey(b"x" * 32)}, {"skew": 1}])
async def test_an_answer_that_is_not_the_coordinators_to_this_statement_is_not_believed(
    world: World, lie: dict[str, Any], autojump_clock: MockClock
) -> None:
    world.keep()
    world.answer = lambda asked, told: world.acknowledge(asked, told, **lie)
    await world.looks(2)
    assert len(world.outbox) == 2


async def test_an_unreachable_coordinator_is_asked_again_and_a_refused_statement_is_not(
    world: World, autojump_clock: MockClock
) -> None:
    kept: list[Key] = [(ATTEMPT, 0), (ATTEMPT, None)]
    link, report = world.keep()
    world.fault = Unreachable("nobody there")
    await world.looks(2)
    assert [key for key, _ in world.outbox.waiting()] == kept
    world.fault = StatementRefused("stale")
    await world.looks(1)
    world.fault = None
    await world.looks(2)
    assert world.brought == []
    assert [message for _, message in world.outbox.waiting()] == [link, report]
