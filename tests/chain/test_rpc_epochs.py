# SPDX-License-Identifier: Apache-2.0
"""Epochs end on Wednesdays at 12:00 UTC; the guess of the tick is rather too early."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from qubix_chain.rpc.epochs import TICK_S_MAX, end, next_end
from qubix_chain.rpc.types import TickInfo

START = datetime(2020, 1, 1, tzinfo=UTC)
ANY = st.integers(0, 20 * 366 * 86_400).map(lambda seconds: START + timedelta(seconds=seconds))


@given(ANY)
def test_the_end_is_the_next_wednesday_noon(now: datetime) -> None:
    found = next_end(now)
    assert (found.weekday(), found.hour, found.minute, found.second) == (2, 12, 0, 0)
    assert timedelta(0) < found - now <= timedelta(days=7)


def test_the_guess_is_cautious() -> None:
    now = datetime(2026, 11, 25, 11, 59, 0, tzinfo=UTC)
    found = end(TickInfo(1000, 227, 1), now)
    assert found.at == datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert found.tick_min == 1000 + 60 / TICK_S_MAX
