# SPDX-License-Identifier: Apache-2.0
"""Limits by address and identity: bounded memory, and nobody locks anybody else out."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.errors import LimitExceeded
from qubix_coordinator.http.rates import Doors, Rate, Turns, asker_of


def test_a_burst_then_a_steady_pace() -> None:
    rate = Rate(burst=3, per_s=0.5)
    assert [rate.wait_s("a", 0.0) for _ in range(4)] == [0, 0, 0, 2]
    assert rate.wait_s("b", 0.0) == 0
    assert rate.wait_s("a", 1.0) == 1
    assert rate.wait_s("a", 2.0) == 0
    assert rate.wait_s("a", 2.0) == 2


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 30)), max_size=80))
def test_nobody_gets_more_than_burst_and_pace_allow(asked: list[tuple[int, float]]) -> None:
    rate, granted = Rate(burst=4, per_s=0.5), dict.fromkeys(range(6), 0)
    now_s = 0.0
    for key, later_s in asked:
        now_s += later_s / 10
        granted[key] += rate.wait_s(key, now_s) == 0
    assert all(count <= 4 + 0.5 * now_s + 1e-6 for count in granted.values())


def test_memory_is_bounded_and_the_newest_are_kept() -> None:
    rate = Rate(burst=1, per_s=0.001, keys_max=10)
    for n in range(1_000):
        rate.wait_s(n, float(n))
    assert len(rate) == 10
    assert rate.wait_s(999, 1_000.0) > 0


def test_one_who_floods_an_identity_locks_nobody_out_elsewhere() -> None:
    doors = Doors()
    for _ in range(10):
        doors.sign_in("192.0.2.1", "VICTIM", 0.0)
    with pytest.raises(LimitExceeded):
        doors.sign_in("192.0.2.1", "VICTIM", 0.0)
    doors.sign_in("198.51.100.1", "VICTIM", 0.0)
    for n in range(40):
        doors.challenge("192.0.2.1", f"NEW{n}", 0.0)
    with pytest.raises(LimitExceeded) as refused:
        doors.challenge("192.0.2.1", "NEW", 0.0)
    assert refused.value.retry_after_s


def test_who_looks_without_end_locks_nobody_out_elsewhere() -> None:
    doors = Doors()
    for _ in range(120):
        doors.look("192.0.2.1", 0.0)
    with pytest.raises(LimitExceeded):
        doors.look("192.0.2.1", 0.0)
    doors.look("198.51.100.1", 0.0)
    doors.sign_in("192.0.2.1", "SOMEBODY", 0.0)
    doors.look("192.0.2.1", 1.0)


class Visits:
    """Visitors of one market, who stay until they are sent away."""

    def __init__(self, at_once: int) -> None:
        self.turns = Turns(at_once)
        self.came: list[str] = []
        self.visits: list[asyncio.Task[None]] = []
        self._leave = asyncio.Event()

    def begin(self, address: str) -> "asyncio.Task[None]":
        self.visits.append(asyncio.create_task(self._visit(address)))
        return self.visits[-1]

    async def _visit(self, address: str) -> None:
        async with self.turns.one(address):
            self.came.append(address)
            await self._leave.wait()

    async def settled(self) -> list[str]:
        """Who came, once nobody moves any more."""
        for _ in range(10 * (1 + len(self.visits))):
            await asyncio.sleep(0)
        return self.came

    async def all_gone(self) -> None:
        self._leave.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*self.visits, return_exceptions=True)


@pytest.mark.asyncio
async def test_who_asks_for_much_makes_only_itself_wait() -> None:
    market = Visits(at_once=2)
    for address in "aaaaabac":
        market.begin(address)
    assert await market.settled() == ["a", "a"]
    await market.all_gone()
    assert market.came == ["a", "a", "a", "b", "c", "a", "a", "a"]


@pytest.mark.asyncio
async def test_who_gives_up_waiting_takes_nobodys_turn() -> None:
    market = Visits(at_once=1)
    first, waits, goes, last = (market.begin(address) for address in "abcd")
    assert await market.settled() == ["a"]
    waits.cancel()
    await market.settled()
    # It is let in and gives up in the same moment.
    first.cancel()
    await asyncio.sleep(0)
    goes.cancel()
    assert await market.settled() == ["a", "d"]
    assert not last.done()
    market.begin("e")
    await market.all_gone()
    assert market.came == ["a", "d", "e"]
    async with asyncio.timeout(60), market.turns.one("f"):
        pass


@pytest.mark.parametrize(
    ("address", "asker"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        (None, "unknown"),
        ("<local>", "unknown"),
    ],
)
def test_who_counts_as_one(address: str | None, asker: str) -> None:
    assert asker_of(address) == asker
