# SPDX-License-Identifier: Apache-2.0
"""Nobody misses an event, sees one twice, or sees one of a transaction that was rolled back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from qubix_coordinator import outbox
from qubix_coordinator.db.database import Database, Row, execute
from qubix_coordinator.outbox.notifier import Notifier, Overflow
from qubix_coordinator.outbox.rules import wants

WAIT_S = 20


async def emit(db: Database, topic: str, *numbers: int) -> None:
    async with db.transaction() as tx:
        for n in numbers:
            await outbox.emit(tx, topic, {"n": n})


def numbers(events: list[outbox.Event]) -> list[int]:
    return [event.payload["n"] for event in events]


@contextlib.asynccontextmanager
async def running(notifier: Notifier) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(notifier.run())
        try:
            yield
        finally:
            task.cancel()


@pytest.mark.asyncio
async def test_events_are_read_in_order_by_topic_and_page(db: Database) -> None:
    await emit(db, "market", 1, 2)
    await emit(db, "job:a", 3)
    await emit(db, "job:b", 4)
    assert numbers(await outbox.read(db, outbox.START)) == [1, 2, 3, 4]
    assert numbers(await outbox.read(db, outbox.START, ["job:"])) == [3, 4]
    assert numbers(await outbox.read(db, outbox.START, ["job:b", "market"])) == [1, 2, 4]
    assert numbers(await outbox.read(db, outbox.START, ["job"])) == []
    page = await outbox.read(db, outbox.START, limit=2)
    cursor = outbox.parse_cursor(str(page[-1].cursor))
    assert cursor is not None
    assert numbers(await outbox.read(db, cursor)) == [3, 4]


@pytest.mark.asyncio
async def test_the_order_is_that_of_numbers(db: Database) -> None:
    """A transaction with one digit more is the newer one."""
    async with db.transaction() as tx:
        for n, xid in enumerate((99, 100, 5, 101)):
            sql = "INSERT INTO event (xid, topic, payload) VALUES ($1::text::xid8, 't', $2::text::jsonb)"
            await execute(tx, sql, str(xid), f'{{"n": {n}}}')
    assert numbers(await outbox.read(db, outbox.START)) == [2, 0, 1, 3]
    first = await outbox.read(db, outbox.START, limit=2)
    assert numbers(await outbox.read(db, first[-1].cursor)) == [1, 3]


@pytest.mark.asyncio
async def test_a_rolled_back_event_never_was(db: Database) -> None:
    async def fail() -> None:
        async with db.transaction() as tx:
            await outbox.emit(tx, "t", {"n": 1})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await outbox.read(db, outbox.START) == []


@pytest.mark.asyncio
async def test_a_late_commit_is_not_passed(db: Database) -> None:
    """The older transaction commits last: readers wait for it instead of passing over its event."""
    async with db.transaction() as slow:
        await outbox.emit(slow, "t", {"n": 1})
        await emit(db, "t", 2)
        assert numbers(await outbox.read(db, outbox.START)) == []
        before = await outbox.newest(db)
    assert numbers(await outbox.read(db, outbox.START)) == [1, 2]
    assert numbers(await outbox.read(db, before)) == [1, 2], "a snapshot taken meanwhile shows neither"
    assert await outbox.read(db, await outbox.newest(db)) == []


@pytest.mark.asyncio
async def test_a_follower_gets_past_and_live_once_each(db: Database) -> None:
    notifier = Notifier(db, poll_ms=10)
    await emit(db, "t", 1, 2)
    await emit(db, "other", 99)
    got: list[int] = []

    async def follow() -> None:
        async for event in notifier.follow(outbox.START, ["t"]):
            got.append(event.payload["n"])
            if event.payload["n"] == 40:
                return

    async with running(notifier):
        task = asyncio.create_task(follow())
        await asyncio.gather(*(emit(db, "t", n) for n in range(3, 40)))
        await emit(db, "t", 40)
        notifier.nudge()
        await asyncio.wait_for(task, WAIT_S)
    assert sorted(got) == list(range(1, 41))


@pytest.mark.asyncio
async def test_a_nudge_delivers_before_the_poll(db: Database) -> None:
    notifier = Notifier(db, poll_ms=3_600_000)
    async with running(notifier):
        with notifier.subscribe(["t"]) as live:
            events = aiter(live)
            for n in range(5):
                await notifier.wait_listening()
                await emit(db, "t", n)
                notifier.nudge()
                assert (await asyncio.wait_for(anext(events), WAIT_S)).payload == {"n": n}


class Eventful(Database):
    """The same database, where something settles right before and right after each look at the newest position."""

    def __init__(self, db: Database) -> None:
        super().__init__(db._context, db._client, db.dsn)
        self.emitted: list[int] = []

    async def fetch(self, sql: str, *args: object) -> list[Row]:
        looking_for_newest = "event_horizon" in sql and "ORDER BY" in sql
        if looking_for_newest:
            await self._emit()
        found = await super().fetch(sql, *args)
        if looking_for_newest:
            await self._emit()
        return found

    async def _emit(self) -> None:
        self.emitted.append(len(self.emitted) + 1)
        await emit(self, "t", self.emitted[-1])


@pytest.mark.asyncio
async def test_what_settles_while_an_idle_notifier_wakes_is_not_lost(db: Database) -> None:
    """An idle notifier starts at the newest position: what lies before it, the follower must read for itself."""
    eventful = Eventful(db)
    got: list[int] = []
    cursor = outbox.START
    for turn in range(1, 4):
        notifier = Notifier(eventful, poll_ms=10)
        async with running(notifier), asyncio.timeout(WAIT_S):
            async for event in notifier.follow(cursor, ["t"]):
                got.append(event.payload["n"])
                cursor = event.cursor
                if got[-1] == 2 * turn:
                    break
    assert got == eventful.emitted == [1, 2, 3, 4, 5, 6]


@pytest.mark.asyncio
async def test_a_slow_follower_is_told_and_others_go_on(db: Database) -> None:
    notifier = Notifier(db, poll_ms=10)
    async with running(notifier):
        with notifier.subscribe(["t"], bound=3) as slow, notifier.subscribe(["t"]) as quick:
            await notifier.wait_listening()
            await emit(db, "t", *range(10))
            events = aiter(quick)
            assert [(await asyncio.wait_for(anext(events), WAIT_S)).payload["n"] for _ in range(10)] == list(range(10))
            left = aiter(slow)
            assert [(await anext(left)).payload["n"] for _ in range(3)] == [0, 1, 2]
            with pytest.raises(Overflow):
                await anext(left)


@pytest.mark.asyncio
async def test_the_end_of_the_notifier_ends_its_followers(db: Database) -> None:
    notifier = Notifier(db, poll_ms=10)
    with notifier.subscribe(None) as live:
        async with running(notifier):
            await notifier.wait_listening()
        assert [event async for event in live] == []


@pytest.mark.asyncio
async def test_pruning_moves_the_horizon_and_late_cursors_are_told(db: Database) -> None:
    await emit(db, "t", 1, 2)
    assert await outbox.oldest(db) == outbox.START
    assert await db.run(lambda tx: outbox.prune(tx, 3600)) == 0
    assert await db.run(lambda tx: outbox.prune(tx, 0)) == 2
    horizon = await outbox.oldest(db)
    assert horizon > outbox.START
    await emit(db, "t", 3)
    assert numbers(await outbox.read(db, horizon)) == [3]
    with pytest.raises(Overflow):
        await anext(Notifier(db).follow(outbox.START, None))


@pytest.mark.asyncio
async def test_payloads_and_topics_are_bounded(db: Database) -> None:
    for topic, payload in (("Bad Topic", {}), ("t", {"x": "é" * 200_000})):
        with pytest.raises(Exception, match="event_"):
            await db.run(lambda tx, topic=topic, payload=payload: outbox.emit(tx, topic, payload))  # type: ignore[misc]


@pytest.mark.parametrize(
    "text", ["", "1", "1-", "-1-2", "a-b", "1-2-3", "99999999999999999999999-1", f"{2**64}-1", f"1-{2**63}"]
)
def test_other_cursors_are_not_parsed(text: str) -> None:
    assert outbox.parse_cursor(text) is None


def test_topics_by_name_and_by_prefix() -> None:
    assert wants(None, "x")
    assert wants(frozenset({"job:"}), "job:1")
    assert wants(frozenset({"market"}), "market")
    assert not wants(frozenset({"market"}), "market.eu")
    assert not wants(frozenset(), "x")
