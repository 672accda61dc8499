# SPDX-License-Identifier: Apache-2.0
"""Limits by address and identity: bounded memory, and nobody locks anybody else out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.errors import LimitExceeded
from qubix_coordinator.http.rates import Doors, Rate, asker_of


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
